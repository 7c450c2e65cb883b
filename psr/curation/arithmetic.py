"""Procedural problems: chains of additions and subtractions with worked solutions, and an exact verifier of steps.

A problem such as "37a+18b-20" is solved left to right, one operation per step; letters mark the operations, so that a
step names its place as "Step 2:" does. A step states its result at once ("a37+18=55"), like mental arithmetic, and may
forget the carry ("a37+18=45") or count one too many ("a37+18=65"): `solution` writes such imperfect demonstrations. A
judge works more carefully: `explain` computes units and tens separately with the carry ("7+8=15,3+1+1=5=55") before it
compares. `is_right` and `explain` are exact.

Knows texts only: no tokenizer, model, prompt or search.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

from psr.terminal.text import brief

LARGEST = 99
"""Partial results lie in 0..99."""
OPERATION = re.compile(r"[a-z]([+-])(\d+)")
STEP = re.compile(r"([a-z]\d+[+-]\d+)=(-?\d+)(?: \\boxed\{(-?\d+)\})?")


@dataclass(frozen=True)
class Chain:
    """`start` followed by operations ("+", 18), ("-", 9) ...; every partial result lies in 0..99."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        marked = zip(ascii_lowercase, self.operations, strict=False)
        return two_digits(self.start) + "".join(mark + sign + two_digits(n) for mark, (sign, n) in marked)

    @property
    def answer(self) -> int:
        return values(self)[-1]


def two_digits(value: int) -> str:
    """Numbers have two digits throughout, so that a small model finds tens and units at fixed places."""
    return f"{value:02d}"


def apply(value: int, sign: str, operand: int) -> int:
    return value + operand if sign == "+" else value - operand


def in_range(value: int) -> bool:
    return 0 <= value <= LARGEST


def carries(value: int, sign: str, operand: int) -> bool:
    """Whether the units carry over into the tens, or borrow from them."""
    return not 0 <= apply(value % 10, sign, operand % 10) <= 9


def values(chain: Chain) -> list[int]:
    """The running value before the first operation and after each."""
    results = [chain.start]
    for sign, operand in chain.operations:
        results.append(apply(results[-1], sign, operand))
    return results


def parse(problem: str) -> Chain:
    """Parses the text of a problem. Raises ValueError on any other text."""
    if not re.fullmatch(r"\d+([a-z][+-]\d+)+", problem):
        raise ValueError(f"not a chain of additions and subtractions: {brief(problem)}")
    start = re.match(r"\d+", problem)
    assert start is not None
    operations = OPERATION.findall(problem[start.end() :])
    return Chain(int(start.group()), tuple((sign, int(operand)) for sign, operand in operations))


def sample_chain(rng: random.Random, shortest: int, longest: int, hard_share: float) -> Chain:
    """A random chain of `shortest`..`longest` operations.

    Operands are round (10, 20, ..., easy to add in the head), or, with probability `hard_share`, such that there is a
    carry or a borrow.
    """
    start = value = rng.randint(2, LARGEST)
    operations: list[tuple[str, int]] = []
    for _ in range(rng.randint(shortest, longest)):
        possible = [(s, o) for s in "+-" for o in range(2, LARGEST + 1) if in_range(apply(value, s, o))]
        easy = [(s, o) for s, o in possible if o % 10 == 0]
        hard = [(s, o) for s, o in possible if carries(value, s, o)]
        sign, operand = rng.choice(hard if hard and rng.random() < hard_share else easy)
        operations.append((sign, operand))
        value = apply(value, sign, operand)
    return Chain(start, tuple(operations))


def chains(seed: int, shortest: int, longest: int, hard_share: float) -> Iterator[Chain]:
    """An endless stream of chains without a repetition."""
    rng, seen = random.Random(seed), set()
    while True:
        chain = sample_chain(rng, shortest, longest, hard_share)
        if chain not in seen:
            seen.add(chain)
            yield chain


@dataclass(frozen=True)
class Operation:
    """One operation at its place: its mark in the problem, the value so far, sign and operand."""

    mark: str
    value: int
    sign: str
    operand: int
    last: bool

    @property
    def result(self) -> str:
        return two_digits(apply(self.value, self.sign, self.operand))

    @property
    def question(self) -> str:
        return f"{self.mark}{two_digits(self.value)}{self.sign}{two_digits(self.operand)}"


def operations(chain: Chain) -> list[Operation]:
    """The operations of a chain, each with the right value so far."""
    places = zip(ascii_lowercase, values(chain), chain.operations, strict=False)
    length = len(chain.operations)
    return [Operation(m, value, *operation, i + 1 == length) for i, (m, value, operation) in enumerate(places)]


def slip(operation: Operation, rng: random.Random, forgotten_share: float, phantom_share: float) -> int:
    """A result with a typical human error: a carry is forgotten, or one too many is counted."""
    right, carry = int(operation.result), 10 if operation.sign == "+" else -10
    forgotten = forgotten_share if carries(operation.value, operation.sign, operation.operand) else 0.0
    [slipped] = rng.choices(
        [right - carry, right + carry, right], [forgotten, phantom_share, 1 - forgotten - phantom_share]
    )
    return slipped


def working(operation: Operation) -> str:
    """Units first, then tens with the carry or the borrow, then the result."""
    value, sign, operand = operation.value, operation.sign, operation.operand
    tens, units = divmod(value, 10)
    carry = carries(value, sign, operand)
    if sign == "-" and carry:
        units += 10
    first = f"{units}{sign}{operand % 10}={apply(units, sign, operand % 10)}"
    total = apply(tens, sign, operand // 10 + carry)
    second = f"{tens}{sign}{operand // 10}{sign + '1' if carry else ''}={total}"
    return f"{operation.question}:{first},{second}={operation.result}"


def solution(chain: Chain, rng: random.Random, forgotten_share: float = 0.0, phantom_share: float = 0.0) -> list[str]:
    """The steps of a solution; the last one boxes the answer.

    A slip stays, and what follows builds on its result, unless results would leave 0..99.
    """
    steps: list[str] = []
    value = chain.start
    for i, place in enumerate(operations(chain)):
        operation = replace(place, value=value)
        slipped = slip(operation, rng, forgotten_share, phantom_share)
        possible = all(map(in_range, values(Chain(slipped, chain.operations[i + 1 :]))))
        value = slipped if possible else int(operation.result)
        box = f" \\boxed{{{two_digits(value)}}}" if operation.last else ""
        steps.append(f"{operation.question}={two_digits(value)}{box}")
    return steps


def next_operation(problem: str, steps: Sequence[str]) -> Operation | None:
    """The operation of the next step, on the result that the last step states.

    None where there is no such step: the chain is at its end, or the last step states no result.
    """
    chain = parse(problem)
    if len(steps) >= len(chain.operations):
        return None
    following = operations(chain)[len(steps)]
    if not steps:
        return following
    match = STEP.fullmatch(steps[-1].strip())
    return replace(following, value=int(match.group(2))) if match else None


def stated_result(problem: str, steps: Sequence[str], candidate: str) -> str | None:
    """The result that a next step states, or None unless it is the step that comes next: operands and box in place."""
    expected, match = next_operation(problem, steps), STEP.fullmatch(candidate.strip())
    if expected is None or match is None:
        return None
    question, result, box = match.groups()
    return result if question == expected.question and box == (result if expected.last else None) else None


def is_right(problem: str, steps: Sequence[str], candidate: str) -> bool:
    """Exact check of one next step: right operands and result for its place, the answer boxed in the last step only."""
    expected = next_operation(problem, steps)
    return expected is not None and stated_result(problem, steps, candidate) == expected.result


def explain(problem: str, steps: Sequence[str], a: str, b: str) -> str | None:
    """A judge's explanation: the step worked out, the result of each candidate, and which one is right.

    For instance "a37+18:7+8=15,3+1+1=5=55;54A,55B;55B" for the candidates 45 and 55: these results are written units
    first, so that the digit in which candidates mostly differ is next to the label. "?" stands for a candidate that is
    not the next step, and for no candidate. None if there is no next step.
    """
    expected = next_operation(problem, steps)
    if expected is None or not in_range(apply(expected.value, expected.sign, expected.operand)):
        return None  # after a wrong step there may be no next one, or one that leaves 0..99
    stated = [stated_result(problem, steps, candidate) for candidate in (a, b)]
    who = "".join(label for label, result in zip("AB", stated, strict=True) if result == expected.result)
    a, b, right = (result[::-1] if result else "?" for result in (*stated, expected.result))
    return f"{working(expected)};{a}A,{b}B;{right}{who or '?'}"
