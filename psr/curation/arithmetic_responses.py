"""Whole responses to arithmetic chains: whether they are correct, their additive score, and which of two is better.

The exact counterpart, for whole responses, of `psr.curation.arithmetic` for single steps. Knows texts only.
"""

from collections.abc import Sequence

from psr.curation.arithmetic import apply, explain, in_range, is_right, next_operation, stated_result, working

FULL_SCORE = 5


def lines(response: str) -> list[str]:
    """The steps of a response, one a line."""
    return [line.strip() for line in response.strip().split("\n")]


def right_steps(problem: str, previous: Sequence[str], response: str) -> list[bool]:
    """Whether each step of a response that continues `previous` is correct, given the results stated before it."""
    steps = lines(response)
    return [is_right(problem, [*previous, *steps[:i]], step) for i, step in enumerate(steps)]


def is_right_response(problem: str, previous: Sequence[str], response: str) -> bool:
    """Exact check of a continuation of `previous`, one step or all the rest: every step of it is correct."""
    return all(right_steps(problem, previous, response))


def score(problem: str, previous: Sequence[str], response: str) -> tuple[int, str] | None:
    """The points of a response, one for each correct step and at most five, and the judge's explanation.

    Every step is worked out, marked a+ or a- after its stated units and tens, and followed by the points so far:
    "a37+18:7+8=15,3+1+1=5=55;54a-0b45-20:5-0=5,4-2=2=25;52b+1" for the steps "a37+18=45" and "b45-20=25". A small model
    can add one to the last number that it wrote, but not count all marks at the end. None where a step has nothing to
    follow.
    """
    steps, marks = lines(response), right_steps(problem, previous, response)
    told, points = [], 0
    for i, step in enumerate(steps):
        before = [*previous, *steps[:i]]
        expected = next_operation(problem, before)
        if expected is None or not in_range(apply(expected.value, expected.sign, expected.operand)):
            return None
        stated = stated_result(problem, before, step)
        points = min(points + marks[i], FULL_SCORE)
        sign = "+" if marks[i] else "-"
        told.append(f"{working(expected)};{stated[::-1] if stated else '?'}{expected.mark}{sign}{points}")
    return points, "".join(told)


def better_and_worse(problem: str, a: str, b: str) -> tuple[str, str] | None:
    """Two whole responses, the better one first.

    It is correct at the first step in which they differ and has more correct steps in all, so that no way of judging
    can prefer the other; None if neither is better in both respects.
    """
    where = first_difference(a, b)
    if where is None:
        return None
    rights = [right_steps(problem, [], text) for text in (a, b)]
    (there_a, there_b), (all_a, all_b) = [right[where] for right in rights], [sum(right) for right in rights]
    if there_a == there_b or all_a == all_b or there_a != (all_a > all_b):
        return None
    return (a, b) if there_a else (b, a)


def explain_responses(problem: str, a: str, b: str) -> str | None:
    """A judge's explanation for two whole responses: that of the first step in which they differ."""
    where = first_difference(a, b)
    return None if where is None else explain(problem, lines(a)[:where], lines(a)[where], lines(b)[where])


def first_difference(a: str, b: str) -> int | None:
    """The number of leading steps that two responses share; None if one has no further step."""
    pairs = zip(lines(a), lines(b), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), None)
