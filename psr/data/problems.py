"""Problem sources. `read_problems` is what the iterations use: it keeps id and text, so an answer cannot be reached."""

from collections import Counter
from pathlib import Path
from typing import Any

from psr.data.jsonl import DataError, read_jsonl
from psr.records import GoldProblem, Problem


def read_problems(path: str | Path, limit: int | None = None) -> list[Problem]:
    """The problems of a JSONL file (`id`, `problem`); whatever else a row holds is dropped while reading.

    Raises:
        DataError: missing or empty file, malformed line, missing field, or an id that occurs twice.
    """
    rows = read_jsonl(path, ["id", "problem"])[:limit]
    _check_ids(path, rows)
    return [Problem(str(row["id"]), str(row["problem"])) for row in rows]


def read_gold_problems(path: str | Path, limit: int | None = None) -> list[GoldProblem]:
    """Problems with their reference answers, for evaluation only. Raises DataError as `read_problems`."""
    rows = read_jsonl(path, ["id", "problem", "answer"])[:limit]
    _check_ids(path, rows)
    return [GoldProblem(str(row["id"]), str(row["problem"]), str(row["answer"])) for row in rows]


def _check_ids(path: str | Path, rows: list[dict[str, Any]]) -> None:
    name, count = Counter(str(row["id"]) for row in rows).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: the id {name!r} occurs {count} times; ids must be unique")
