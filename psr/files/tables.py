"""Rows of JSONL (plain or gzip) and Parquet files, by the file's ending. Knows no schema."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from psr.files.jsonl import DataError, located_objects, pick, write_jsonl
from psr.files.whole import replacing

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def is_table(path: str | Path) -> bool:
    """Whether `read_table` can read a file of this name."""
    return str(path).endswith(ENDINGS)


def located_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a JSONL or Parquet file, with the words that name its place; Parquet's nulls are absent fields.

    Raises:
        DataError: as `located_objects`, or the file is no Parquet file, or its ending is another one.
    """
    path = Path(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from located_objects(path)
        return
    if path.suffix != ".parquet":
        raise DataError(f"{path}: not a file of rows; its name must end in one of {', '.join(ENDINGS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    import pyarrow as pa  # here, since most files are JSONL, and who reads those need not wait for it
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", {name: value for name, value in row.items() if value is not None}


def read_table(path: str | Path, required: Iterable[str] = (), optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of a JSONL or Parquet file, each with the fields named and no other (`read_rows` looks at the values).

    Raises:
        DataError: as `located_rows`, or the file is empty, or a row lacks a required field.
    """
    required, optional = list(required), list(optional)
    rows = [pick(where, row, required, optional) for where, row in located_rows(path)]
    if not rows:
        raise DataError(f"{path}: the file holds no rows")
    return rows


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all rows as JSONL or, by the ending, as Parquet; the file appears under its name only when it is complete.

    Raises:
        DataError: the ending is neither .jsonl nor .parquet.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replacing(path) as partial:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), partial)
    else:
        raise DataError(f"{path}: the name of a file to write must end in .jsonl or .parquet")
