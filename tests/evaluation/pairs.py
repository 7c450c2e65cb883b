"""Grading pairs of a text and a reference answer, as every command grades solutions of problems."""

from collections.abc import Sequence
from typing import Any

from psr.evaluation.rules import verdicts
from psr.records import GoldProblem


def grade_many(pairs: Sequence[tuple[str, str]], **settings: Any) -> list[bool]:
    """Whether the boxed answer of each text is the reference answer; nothing equals an empty one."""
    problems = [GoldProblem(str(i), "?", gold) for i, (_, gold) in enumerate(pairs)]
    found = verdicts(problems, [text for text, _ in pairs], **settings)
    return [verdict is not None and verdict.right for verdict in found]
