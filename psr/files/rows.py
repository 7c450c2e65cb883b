"""The typed reader of rows: every value is what its kind says, or one line names file, line, field, value and remedy.

Knows the formats of files and how to say what is wrong. The kinds are `psr.files.kinds`'.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from psr.files.jsonl import DataError
from psr.files.tables import located_rows
from psr.terminal.text import brief, some_names

R = TypeVar("R", bound=Mapping[str, Any])
OUGHT = {
    "string_type": "it must be a text",
    "list_type": "it must be a list",
    "dict_type": "it must be an object",
    "bool_type": "it must be true or false",
    "extra_forbidden": "there is no such field",
    "int_type": "it must be a whole number",
}


def read_rows(
    path: str | Path,
    kind: type[R],
    limit: int | None = None,
    needs: Iterable[str] = (),
    flaw: Callable[[R], str | None] | None = None,
) -> list[R]:
    """The rows of a JSONL or Parquet file, at most so many, all of the kind.

    Args:
        needs: fields that are optional in rows of the kind, and that these rows have to have.
        flaw: says what is wrong with a row whose fields are right each by itself, or None.

    Raises:
        DataError: as `located_rows`, or the file is empty, or a row is not of the kind.
    """
    return list(each_row(path, kind, needs, flaw))[:limit]


def each_row(
    path: str | Path, kind: type[R], needs: Iterable[str] = (), flaw: Callable[[R], str | None] | None = None
) -> Iterator[R]:
    """The rows as `read_rows` has them, one at a time; an error comes when it is the turn of its row."""
    needs, empty = list(needs), True
    for where, row in located_rows(path):
        for name in needs:
            if row.get(name) is None:
                raise DataError(f"{where}: field {name!r} is missing, or null; the row has {some_names(row)}")
        found = checked(where, row, kind)
        if flaw is not None and (fault := flaw(found)) is not None:
            raise DataError(f"{where}: {fault}")
        yield found
        empty = False
    if empty:
        raise DataError(f"{path}: the file holds no rows")


def checked(where: str, row: Mapping[str, Any], kind: type[R]) -> R:
    """The fields of a row that its kind names. Raises DataError, which begins with `where`."""
    given = {name: value for name, value in row.items() if value is not None or name not in kind.__optional_keys__}  # type: ignore[attr-defined]
    try:
        return cast(R, _reader(kind).validate_python(given, strict=True))
    except ValidationError as error:
        raise DataError(f"{where}: {_fault(error.errors(include_url=False)[0], given)}") from None


@cache
def _reader(kind: type[R]) -> TypeAdapter[R]:
    return TypeAdapter(kind)


def _fault(error: ErrorDetails, row: Mapping[str, Any]) -> str:
    """What pydantic has found first, in our words; its place is a path of names and of numbers from 0."""
    *above, _ = error["loc"]
    within, field = row, ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        for part in above:
            within = within[part]  # type: ignore[index]
        return f"field {field!r} is missing; the row has {some_names(within)}"
    shown = "null" if error["input"] is None else brief(error["input"])
    ought = OUGHT.get(error["type"], error["msg"].replace("Input should", "it must"))
    return f"field {field!r} is {shown}: {ought}"
