"""Which kinds of mistakes judged pairs of arithmetic are about: a judge learns the kinds that it sees."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

STEP = re.compile(r"[a-z]?(\d+)([+-])(\d+)=(\d+)")


def kind(row: dict[str, Any]) -> str:
    """The operation, and whether the rejected step states more or less than the chosen one of the same operands."""
    chosen, rejected = STEP.match(row["chosen"]), STEP.match(row["rejected"])
    if chosen is None or rejected is None or chosen.groups()[:3] != rejected.groups()[:3]:
        return "other"
    return f"{chosen[2]}, rejected says {'more' if int(rejected[4]) > int(chosen[4]) else 'less'}"


def by_kind(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every kind, in the order of the names."""
    return {name: [row for row in rows if kind(row) == name] for name in sorted({kind(row) for row in rows})}


def shares(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The share of every kind."""
    return {name: count / len(rows) for name, count in sorted(Counter(map(kind, rows)).items())}
