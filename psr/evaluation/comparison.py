"""The gap in accuracy between two sets of outcomes on the same problems. Knows files of graded rows."""

from pathlib import Path
from typing import Any

from psr.evaluation.statistics import paired_bootstrap
from psr.files.jsonl import DataError
from psr.files.kinds import Graded
from psr.files.problems import check_ids
from psr.files.rows import read_rows
from psr.terminal.text import brief


def compare_outcomes(a: Path, b: Path, level: float = 0.95) -> dict[str, Any]:
    """The gap in accuracy between two graded files, b minus a, with a paired bootstrap interval.

    Problems without a reference answer do not count; a majority's accuracy is that of the vote.

    Raises:
        DataError: the files do not hold the same problems, or none with a reference answer.
    """
    first, second = _outcomes(a), _outcomes(b)
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise DataError(
            f"{a} and {b} do not hold the same graded problems: {len(odd)} differ, for instance {brief(odd[0])}"
        )
    if not first:
        raise DataError(f"{a}: no problem has a reference answer")
    pairs = [(first[name], second[name]) for name in first]
    difference, low, high = paired_bootstrap([y for _, y in pairs], [x for x, _ in pairs], level=level)
    return {
        "problems": len(pairs),
        "difference": difference,
        "low": low,
        "high": high,
        "level": level,
        "only_a": sum(x and not y for x, y in pairs),
        "only_b": sum(y and not x for x, y in pairs),
    }


def _outcomes(path: Path) -> dict[str, bool]:
    rows = read_rows(path, Graded)
    check_ids(path, [row["id"] for row in rows])
    return {row["id"]: row["correct"] for row in rows if row["correct"] is not None}
