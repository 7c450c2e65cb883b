"""JSON lines: reading with errors that name file and line, atomic writing. Knows no schema."""

import codecs
import gzip
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from psr.errors import PSRError
from psr.files.whole import append_line, replacing, write_text
from psr.terminal.text import brief, some_names


class DataError(PSRError, ValueError):
    """Input data that cannot be used; the message names file, line and reason."""


def read_jsonl(path: str | Path, required: Iterable[str] = (), optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of `path`, each with the fields named and no other; what they hold is not looked at (`read_rows` does).

    Raises:
        DataError: missing or empty file, a line that is not a JSON object, or a row without a required field.
    """
    required, optional = list(required), list(optional)
    rows = [pick(where, row, required, optional) for where, row in located_objects(path)]
    if not rows:
        raise DataError(f"{path}: the file holds no rows")
    return rows


def located_objects(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a JSONL file (plain, or gzip by its ending), with the words that name its place.

    Raises:
        DataError: no such file, or a line is not UTF-8 or not a JSON object; gzip data are damaged or cut off.
    """
    for where, line in located_lines(path):
        yield where, _object(where, line)


def located_lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, with their places. Raises DataError as `located_objects`, but for what they say.

    A line ends in a line feed and nothing else: JSON may hold every other line separator of Unicode.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number}"
                text = _decoded(where, line, first=number == 1).rstrip("\r\n")
                if text.strip():
                    yield where, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fault = "the gzip data end too early" if isinstance(error, EOFError) else f"no sound gzip data ({error})"
        raise DataError(f"{path}, line {number + 1}: {fault}: copy or compress the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _decoded(where: str, line: bytes, first: bool) -> str:
    if first and line.startswith(b"\x1f\x8b"):
        raise DataError(f"{where}: gzip data: give the file a name that ends in .jsonl.gz")
    if first and (line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line[:4]):
        raise DataError(f"{where}: UTF-16 text: convert the file to UTF-8, as by `iconv -f UTF-16 -t UTF-8`")
    if first:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}): convert the file, as by "
            "`iconv -f LATIN1 -t UTF-8` where it is Latin-1"
        ) from None


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be read") from None
    except ValueError as error:  # of the hooks, or of Python for a number of thousands of digits
        raise DataError(f"{where}: {str(error).partition(';')[0]}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    if "\\u" in line and not _encodable(row):
        raise DataError(f"{where}: half a surrogate pair (such as \\ud83d alone), which is no character of any text")
    return row


def _encodable(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON leaves open which of two equal keys counts, and Python would take the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {brief(name)} occurs twice in one object")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON: leave the field out, or write null")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def pick(where: str, row: Mapping[str, Any], required: list[str], optional: list[str]) -> dict[str, Any]:
    """The fields named of a row. Raises DataError where a required one is missing."""
    for name in required:
        if name not in row:
            raise DataError(f"{where}: field {name!r} is missing; the row has {some_names(row)}")
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
    return [row for _, row in located_objects(path)]


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
