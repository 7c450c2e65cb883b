"""Problem files. The iterations use `read_problems`, which keeps only id and text: answers are never in reach."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from psr.files.jsonl import DataError
from psr.files.kinds import GoldRow, ProblemRow
from psr.files.rows import read_rows
from psr.records import GoldProblem, Problem
from psr.terminal.text import brief


def read_problems(path: str | Path, limit: int | None = None) -> list[Problem]:
    """The problems of a JSONL file (`id`, `problem`); all other fields are dropped while reading.

    Raises:
        DataError: as `read_rows`, or an id occurs twice.
    """
    problems = [Problem(row["id"], row["problem"]) for row in read_rows(path, ProblemRow)]
    check_ids(path, [problem.id for problem in problems])
    return problems[:limit]


def read_gold_problems(path: str | Path, limit: int | None = None) -> list[GoldProblem]:
    """Problems with their reference answers, for evaluation only. Raises DataError as `read_problems`."""
    rows = read_rows(path, GoldRow, needs=["id", "answer"])
    problems = [gold_problem(row) for row in rows]
    check_ids(path, [problem.id for problem in problems])
    return problems[:limit]


def gold_problem(row: GoldRow, number: int = 0) -> GoldProblem:
    """A row as a problem; without an id it has its `number`. Of several tolerances the largest counts.

    Raises DataError where `error` is no tolerance.
    """
    name = row.get("id", str(number))
    try:
        tolerances = [float(one) for one in row.get("error", "").split(",") if one.strip()]
    except ValueError:
        tolerances = [math.nan]
    if not all(0 <= one < math.inf for one in tolerances):  # false of NaN, too
        raise DataError(f"problem {brief(name)}: error is {brief(row['error'])}, not a tolerance such as 1e-1")
    several = row.get("is_multiple_answer", False)
    tolerance = max(tolerances, default=None)
    return GoldProblem(name, row["problem"], row.get("answer", ""), row.get("unit", ""), tolerance, several)


def check_ids(path: str | Path, ids: Iterable[str]) -> None:
    """Raise DataError where an id occurs twice: traces, answers and grades are told apart by it."""
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: the id {brief(name)} occurs {count} times; ids must be unique")
