"""Files as people have them: other encodings, compression, and JSON that Python would read without a word."""

import gzip
import json
from pathlib import Path

import pytest

from psr.files.jsonl import DataError, read_jsonl

ROW = '{"id": 1, "text": "é"}\n'
PACKED = gzip.compress(ROW.encode() * 50)


def test_a_byte_order_mark_and_windows_line_ends_are_readable(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode() * 2)
    assert read_jsonl(path, ["id", "text"]) == [{"id": 1, "text": "é"}] * 2


def test_line_separators_of_unicode_end_no_line(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    row = {"text": "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_jsonl(path, ["text"]) == [row]


def test_a_line_of_ten_megabytes_is_a_row(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "x" * 10_000_000}) + "\n")
    assert len(read_jsonl(path, ["text"])[0]["text"]) == 10_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", ROW.encode("utf-16"), "line 1: UTF-16 text: convert the file to UTF-8"),
        ("a.jsonl", ROW.encode("utf-16-le"), "line 1: UTF-16 text"),
        ("a.jsonl", ROW.encode("utf-16-be"), "line 1: UTF-16 text"),
        ("a.jsonl", b'{"id": 1}\n' + ROW.encode("latin-1"), r"line 2: not UTF-8 \(byte 0xe9 at column 20\).*Latin-1"),
        ("a.jsonl", PACKED, r"line 1: gzip data: give the file a name that ends in \.jsonl\.gz"),
        ("a.jsonl.gz", PACKED[:-12], "the gzip data end too early"),
        ("a.jsonl.gz", PACKED[:30] + b"\xff" * 9 + PACKED[39:], "no sound gzip data"),
        ("a.jsonl.gz", ROW.encode(), "line 1: no sound gzip data"),
        ("a.jsonl", b'{"id": NaN}\n', "line 1: NaN is no number of JSON"),
        ("a.jsonl", b'{"id": [-Infinity]}\n', "line 1: -Infinity is no number of JSON"),
        ("a.jsonl", b'{"id": 1e999}\n', "line 1: the number 1e999 is too large"),
        ("a.jsonl", b'{"id": ' + b"9" * 5000 + b"}\n", "line 1: Exceeds the limit"),
        ("a.jsonl", b'{"id": 1, "id": 2}\n', "line 1: the key 'id' occurs twice in one object"),
        ("a.jsonl", b'{"id": {"a": 1, "b": 2, "b": 3}}\n', "the key 'b' occurs twice"),
        ("a.jsonl", b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1: nested too deeply"),
        ("a.jsonl", b'{"id": "\\ud83d"}\n', "line 1: half a surrogate pair"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name.replace('.', '[.]')}.*{message}"):
        read_jsonl(path, ["id"])
