"""Problem files. The iterations use `read_problems`, which keeps only id and text: answers are never in reach."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psr.files.jsonl import DataError, read_jsonl
from psr.records import GoldProblem, Problem

RULES = ["unit", "error", "is_multiple_answer"]
"""Fields, apart from the answer, that decide what counts as correct."""


def read_problems(path: str | Path, limit: int | None = None) -> list[Problem]:
    """The problems of a JSONL file (`id`, `problem`); all other fields are dropped while reading.

    Raises:
        DataError: missing or empty file, malformed line, missing field, or an id that occurs twice.
    """
    rows = read_jsonl(path, ["id", "problem"])[:limit]
    _check_ids(path, rows)
    return [Problem(str(row["id"]), str(row["problem"])) for row in rows]


def read_gold_problems(path: str | Path, limit: int | None = None) -> list[GoldProblem]:
    """Problems with their reference answers, for evaluation only. Raises DataError as `read_problems`."""
    rows = read_jsonl(path, ["id", "problem", "answer"], RULES)[:limit]
    _check_ids(path, rows)
    return [gold_problem(row) for row in rows]


def gold_problem(row: Mapping[str, Any]) -> GoldProblem:
    """A row with `id`, `problem`, `answer` and, as in OlympiadBench, `unit`, `error` (a tolerance, or several: the
    largest counts) and `is_multiple_answer`. Raises DataError where `error` is no number.
    """
    try:
        tolerance = max((float(one) for one in str(row.get("error") or "").split(",") if one.strip()), default=None)
    except ValueError:
        raise DataError(f"problem {row['id']}: error is {row['error']!r}, not a tolerance such as 1e-1") from None
    answer = "" if row["answer"] is None else str(row["answer"])
    several = bool(row.get("is_multiple_answer"))
    return GoldProblem(str(row["id"]), str(row["problem"]), answer, str(row.get("unit") or ""), tolerance, several)


def _check_ids(path: str | Path, rows: list[dict[str, Any]]) -> None:
    name, count = Counter(str(row["id"]) for row in rows).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: the id {name!r} occurs {count} times; ids must be unique")
