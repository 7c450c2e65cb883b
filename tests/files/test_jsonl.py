"""JSON lines: every fault names its file and line, and no half file is ever left under a name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from psr.files.jsonl import DataError, read_json, read_jsonl, write_json, write_jsonl


def written(folder: Path, text: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_written_is_read_back(tmp_path: Path):
    rows = [{"id": 1, "text": "π \u2028 \\boxed{3}\n"}, {"id": 2, "text": ""}]
    write_jsonl(tmp_path / "new" / "rows.jsonl", iter(rows))
    assert read_jsonl(tmp_path / "new" / "rows.jsonl", ["id", "text"]) == rows


def test_only_the_fields_named_are_read(tmp_path: Path):
    path = written(tmp_path, '{"id": 1, "answer": 2, "note": 3}\n{"id": 2}\n')
    assert read_jsonl(path, ["id"], ["note"]) == [{"id": 1, "note": 3}, {"id": 2}]


def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path):
    path = written(tmp_path, '\n{"id": 1}\n\n{"id": 2}\n  \n')
    assert [row["id"] for row in read_jsonl(path, ["id"])] == [1, 2]
    with pytest.raises(DataError, match="line 4"):
        read_jsonl(written(tmp_path, '\n{"id": 1}\n\n{"name": 2}\n'), ["id"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"rows\.jsonl: the file holds no rows"),
        ("\n \n", r"rows\.jsonl: the file holds no rows"),
        ('{"id": 1}\n{"id": 2\n', r"rows\.jsonl, line 2: not JSON \(.* at column \d+\)"),
        ('{"id": 1}\n[1, 2]\n', r"rows\.jsonl, line 2: expected an object, found list"),
        ('{"id": 1}\n{"name": 2, "text": 3}\n', r"rows\.jsonl, line 2: field 'id' is missing; the row has name, text"),
        ("{}\n", r"rows\.jsonl, line 1: field 'id' is missing; the row has none"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message):
        read_jsonl(written(tmp_path, text), ["id"])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read_jsonl(tmp_path)


def test_writing_that_fails_midway_leaves_the_old_rows(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": 1}])

    def rows() -> Iterator[dict[str, Any]]:
        yield {"id": 2}
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write_jsonl(path, rows())
    with pytest.raises(TypeError):
        write_json(path, {"not": {"json"}})
    assert read_jsonl(path, ["id"]) == [{"id": 1}]
    write_jsonl(path, [{"id": 3}])
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_json_document_comes_back_and_an_absent_one_is_empty(tmp_path: Path):
    path = tmp_path / "deep" / "one.json"
    assert read_json(path) == {}
    write_json(path, {"a": [1, "ü"]})
    assert read_json(path) == {"a": [1, "ü"]}
    assert os.listdir(path.parent) == ["one.json"]
