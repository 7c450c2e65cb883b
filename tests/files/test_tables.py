"""Tables in batches: what comes out is what went in, whatever its batch lacks, and no more than a batch is held."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psr.files import tables
from psr.files.jsonl import DataError
from psr.files.tables import located_rows, read_table, write_table

ROWS: list[dict[str, Any]] = [
    {"id": "a", "score": 1},
    {"id": "b", "steps": [], "score": None},
    {"id": "c", "score": 0.5, "steps": ["3+4=7"]},
    {"id": "d"},
    {"source": "s", "id": "e", "steps": None},
]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_field_may_come_late_be_null_or_change_its_number_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, ending: str
):
    monkeypatch.setattr(tables, "BATCH", size)
    path = tmp_path / f"rows.{ending}"
    write_table(path, ROWS)
    found = read_table(path, ["id"], ["score", "steps", "source"])
    assert [{name: value for name, value in row.items() if value is not None} for row in found] == [
        {name: value for name, value in row.items() if value is not None} for row in ROWS
    ]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_rows_are_numbered_through_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "BATCH", 2)
    write_table(tmp_path / "rows.parquet", ROWS)
    assert [where for where, _ in located_rows(tmp_path / "rows.parquet")] == [
        f"{tmp_path / 'rows.parquet'}, row {number}" for number in range(1, 6)
    ]


class Text(str):
    """A text whose end can be seen."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_no_more_than_a_batch_of_rows_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str):
    monkeypatch.setattr(tables, "BATCH", 10)
    alive, most = weakref.WeakSet[Any](), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal most
        for number in range(100):
            text = Text(f"row {number}")
            alive.add(text)
            yield {"text": text}
            gc.collect(0)
            most = max(most, len(alive))

    write_table(tmp_path / f"rows.{ending}", rows())
    assert most <= 22
    assert len(list(located_rows(tmp_path / f"rows.{ending}"))) == 100


def test_a_table_that_fails_under_way_leaves_nothing(tmp_path: Path):
    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise DataError("the source is torn")

    for ending in ("jsonl", "parquet"):
        with pytest.raises(DataError, match="torn"):
            write_table(tmp_path / f"rows.{ending}", rows())
    assert not list(tmp_path.iterdir())


def test_a_table_of_no_rows_can_be_written(tmp_path: Path):
    write_table(tmp_path / "rows.parquet", [])
    assert list(located_rows(tmp_path / "rows.parquet")) == []


@pytest.mark.parametrize("size", [1, 10])
def test_values_of_different_kinds_are_no_parquet_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    monkeypatch.setattr(tables, "BATCH", size)
    with pytest.raises(DataError, match=r"rows\.parquet: a Parquet column holds one kind of value .*: write \.jsonl"):
        write_table(tmp_path / "rows.parquet", [{"id": 1}, {"id": "b"}])
    assert not list(tmp_path.iterdir())
