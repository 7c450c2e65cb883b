"""What is left to ask about an answer once it is taken apart: equalities of formulas, and how they make a verdict.

A question is JSON, for it goes to a worker process: a verdict; `["equal", answer, gold]`; `["all", questions]`;
`["match", rows]`, with a row for each value of the reference answer and in it a question for each value of the answer.
Knows neither formulas nor processes.
"""

from collections.abc import Callable, Sequence
from typing import Any

Question = Any


def settle(question: Question, equal: Callable[[str, str], bool]) -> bool:
    """The verdict on a question, by what `equal` says of formulas; it is not asked more than is needed."""
    if isinstance(question, bool):
        return question
    kind, *parts = question
    if kind == "equal":
        return equal(*parts)
    if kind == "all":
        return all(settle(one, equal) for one in parts[0])
    return matched([[settle(one, equal) for one in row] for row in parts[0]])


def all_of(questions: Sequence[Question]) -> Question:
    if any(one is False for one in questions):
        return False
    left = [one for one in questions if one is not True]
    return ["all", left] if left else True


def matching(rows: Sequence[Sequence[Question]]) -> Question:
    """Whether every value of the reference answer is met by a value of its own; a verdict where that is known."""
    if not matched([[one is not False for one in row] for row in rows]):
        return False
    return matched([[one is True for one in row] for row in rows]) or ["match", [list(row) for row in rows]]


def matched(equal: Sequence[Sequence[bool]]) -> bool:
    """Whether every row can have a column of its own where it is True (bipartite matching by augmenting paths).

    The first that fits would not do: within a tolerance, what equals the same value need not be equal.
    """
    owners: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(equal[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in owners or place(owners[column], tried):
                    owners[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(equal)))
