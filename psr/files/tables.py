"""Rows of JSONL (plain or gzip) and Parquet files, by the file's ending. Knows no schema."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from psr.files.jsonl import DataError, located_objects, pick, write_jsonl
from psr.files.whole import replacing

BATCH = 10_000
"""Rows of a Parquet file that are in memory at the same time."""
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
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"{path}, row {number}", {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None


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
        DataError: the ending is neither .jsonl nor .parquet, or a column of a Parquet file would hold different kinds.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
    elif path.suffix == ".parquet":
        with replacing(path) as partial, tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as parts:
            _write_parquet(path, partial, rows, Path(parts))
    else:
        raise DataError(f"{path}: the name of a file to write must end in .jsonl or .parquet")


def _write_parquet(path: Path, partial: Path, rows: Iterable[Mapping[str, Any]], parts: Path) -> None:
    """Write what is to be `path` by way of `parts`, an empty folder: types are known only when all rows have been."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import feather

    waiting, schema, count = iter(rows), pa.schema([]), 0
    while batch := list(islice(waiting, BATCH)):
        names = dict.fromkeys(name for row in batch for name in row)
        try:
            table = pa.table({name: [row.get(name) for row in batch] for name in names})
            schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: a Parquet column holds one kind of value ({reason}): write .jsonl") from None
        feather.write_feather(table, parts / str(count))
        count += 1
    with pq.ParquetWriter(partial, schema) as writer:
        for number in range(count):
            table = feather.read_table(parts / str(number), memory_map=False)
            # The empty table brings the columns that the batch has not, or has as nulls alone.
            writer.write_table(pa.concat_tables([schema.empty_table(), table], promote_options="permissive"))
