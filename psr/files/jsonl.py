"""JSON lines: reading with errors that name file and line, atomic writing. Knows no schema."""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from psr.errors import PSRError
from psr.files.whole import append_line, replacing, write_text


class DataError(PSRError, ValueError):
    """Input data that cannot be used; the message names file, line and reason."""


def read_jsonl(path: str | Path, required: Iterable[str] = (), optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of `path`, each with the fields named and no other.

    Raises:
        DataError: missing or empty file, a line that is not a JSON object, or a row without a required field.
    """
    path, required = Path(path), list(required)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows = [_pick(path, number, row, required, list(optional)) for number, row in _objects(path)]
    if not rows:
        raise DataError(f"{path}: the file holds no rows")
    return rows


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.rstrip("\n"))
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
            yield number, row


def _pick(path: Path, number: int, row: Mapping[str, Any], required: list[str], optional: list[str]) -> dict[str, Any]:
    for name in required:
        if name not in row:
            raise DataError(f"{path}, line {number}: field {name!r} is missing; the row has {', '.join(row) or 'none'}")
    names = [*required, *(name for name in optional if name in row)]
    return {name: row[name] for name in names}


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all rows atomically: the file appears under its name only when it is complete."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_appended(path: str | Path) -> list[dict[str, Any]]:
    """The rows written by `append_row`; none if there is no file. A last line left incomplete by a kill is cut off."""
    path = Path(path)
    if not path.is_file():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        os.truncate(path, len(whole))
    return [row for _, row in _objects(path)]


def append_row(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append one line; once this returns, it survives the end of this process."""
    append_line(path, json.dumps(row, ensure_ascii=False))


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON document atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in `path`, empty where there is no file; a NaN or an infinity in it was not measured: None.

    Raises:
        DataError: the file is torn, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except ValueError as error:
        raise DataError(f"{path} is torn ({error}): put a copy of it back, or remove it") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {type(value).__name__} and not an object: put a copy of it back, or remove it")
    return value
