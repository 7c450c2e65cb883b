"""Whole responses to arithmetic chains: which is right, what an additive judge gives them, how two of them compare.

The exact counterpart, for whole responses, of what `psr.data.arithmetic` says of single steps. Knows texts only.
"""

from collections.abc import Sequence

from psr.data.arithmetic import apply, explain, in_range, is_right, next_operation, parse, stated_result, working

FULL_SCORE = 5


def lines(response: str) -> list[str]:
    """The steps of a response, one a line."""
    return [line.strip() for line in response.strip().split("\n")]


def right_steps(problem: str, previous: Sequence[str], response: str) -> list[bool]:
    """For every step of a response that goes on from `previous`: whether it is right, on what was stated before it."""
    steps = lines(response)
    return [is_right(problem, [*previous, *steps[:i]], step) for i, step in enumerate(steps)]


def is_right_response(problem: str, previous: Sequence[str], response: str) -> bool:
    """Exact check of what goes on from `previous`, one step or all the rest: every step of it is right."""
    return all(right_steps(problem, previous, response))


def score(problem: str, previous: Sequence[str], response: str, *, whole: bool) -> tuple[int, str] | None:
    """The points from 0 to 5, and the judge's working: every step worked out, as stated units first, marked a+ or a-.

    Each right step adds its share of the five points, rounded down: five are for a response without a fault, if it is
    `whole` up to the end of the chain. For instance "a37+18:7+8=15,3+1+1=5=55;54a-" for the step "a37+18=45". After the
    steps of a whole response the marks are copied together, ";a-b+c+", so that there is little left to count: a small
    model copies what followed the same letter, and loses count over a hundred characters. None where a step has nothing
    to follow.
    """
    steps, marks = lines(response), right_steps(problem, previous, response)
    told = []
    signs = []
    for i, step in enumerate(steps):
        before = [*previous, *steps[:i]]
        expected = next_operation(problem, before)
        if expected is None or not in_range(apply(expected.value, expected.sign, expected.operand)):
            return None
        stated = stated_result(problem, before, step)
        signs.append(f"{expected.mark}{'+' if marks[i] else '-'}")
        told.append(f"{working(expected)};{stated[::-1] if stated else '?'}{signs[i]}")
    if whole:
        told += [";", *signs]
    asked = len(parse(problem).operations) - len(previous) if whole else 1
    return FULL_SCORE * sum(marks) // max(asked, len(steps)), "".join(told)


def compare(problem: str, a: str, b: str) -> tuple[str, str, str] | None:
    """(right response, wrong response, working in the order a, b) of two whole responses.

    The working is of the first step in which they differ. None unless exactly one of them is right there and the same
    one has more right steps in all, so that no way of judging can prefer the other.
    """
    one, other = lines(a), lines(b)
    where = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), None)
    if where is None:
        return None
    rights = [right_steps(problem, [], text) for text in (a, b)]
    ahead = [right[where] for right in rights]
    count = [sum(right) for right in rights]
    told = explain(problem, one[:where], one[where], other[where])
    if told is None or ahead[0] == ahead[1] or count[0] == count[1] or ahead[0] != (count[0] > count[1]):
        return None
    return (a, b, told) if ahead[0] else (b, a, told)
