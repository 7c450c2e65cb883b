"""Rows of JSONL (plain or gzip) and Parquet files, by the file's ending. Knows no schema."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from psr.files.jsonl import DataError, read_jsonl, write_jsonl
from psr.files.whole import replacing

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def is_table(path: str | Path) -> bool:
    """Whether `read_table` can read a file of this name."""
    return str(path).endswith(ENDINGS)


def read_table(path: str | Path, required: Iterable[str] = (), optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of a JSONL or Parquet file, each with only the named fields; nulls of Parquet are absent fields.

    Raises:
        DataError: as `read_jsonl`, or the file is no Parquet file, or its ending is another one.
    """
    path, required = Path(path), list(required)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return read_jsonl(path, required, optional)
    if path.suffix != ".parquet":
        raise DataError(f"{path}: not a file of rows; its name must end in one of {', '.join(ENDINGS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from None
    if not rows:
        raise DataError(f"{path}: the file holds no rows")
    for number, row in enumerate(rows, start=1):
        missing = [name for name in required if row.get(name) is None]
        if missing:
            raise DataError(f"{path}, row {number}: field {missing[0]!r} is missing; the row has {', '.join(row)}")
    names = [*required, *optional]
    return [{name: row[name] for name in names if row.get(name) is not None} for row in rows]


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all rows as JSONL or, by the ending, as Parquet; the file appears under its name only when it is complete.

    Raises:
        DataError: the ending is neither .jsonl nor .parquet.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
    elif path.suffix == ".parquet":
        with replacing(path) as partial:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), partial)
    else:
        raise DataError(f"{path}: the name of a file to write must end in .jsonl or .parquet")
