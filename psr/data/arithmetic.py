"""Procedural problems: chains of additions and subtractions with worked solutions, and an exact verifier of steps.

A problem such as "37+18-9" is solved left to right, one operation a step. People write such a step in two ways, and so
do the solutions here: *terse*, the result alone ("37+18=55"), or *worked*, tens and units apart with the carry
("37+18:7+8=15,3+1+1=5=55"). Both are right; the worked way is easier to get right and takes three times the tokens.

Knows texts only: no tokenizer, model, prompt or search.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LARGEST = 99
"""Partial results lie in 0..99."""
OPERATION = re.compile(r"([+-])(\d+)")
STEP = re.compile(r"(\d+)([+-])(\d+)(?::[^=]*=\d+,[^=]*=\d+)?=(-?\d+)(?: \\boxed\{(-?\d+)\})?")


@dataclass(frozen=True)
class Chain:
    """`start` followed by operations ("+", 18), ("-", 9) ...; every partial result lies in 0..99."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        return str(self.start) + "".join(sign + str(operand) for sign, operand in self.operations)

    @property
    def answer(self) -> int:
        return values(self)[-1]


def apply(value: int, sign: str, operand: int) -> int:
    return value + operand if sign == "+" else value - operand


def values(chain: Chain) -> list[int]:
    """The running value before the first operation and after each."""
    results = [chain.start]
    for sign, operand in chain.operations:
        results.append(apply(results[-1], sign, operand))
    return results


def parse(problem: str) -> Chain:
    """The chain that `problem` writes. Raises ValueError on any other text."""
    if not re.fullmatch(r"\d+([+-]\d+)+", problem):
        raise ValueError(f"not a chain of additions and subtractions: {problem!r}")
    start = re.match(r"\d+", problem)
    assert start is not None
    operations = OPERATION.findall(problem[start.end() :])
    return Chain(int(start.group()), tuple((sign, int(operand)) for sign, operand in operations))


def sample_chain(rng: random.Random, shortest: int, longest: int, large_share: float) -> Chain:
    """A random chain of `shortest`..`longest` operations; operands are 2..9, or 11..99 with probability `large_share`."""
    start = value = rng.randint(2, LARGEST)
    operations: list[tuple[str, int]] = []
    for _ in range(rng.randint(shortest, longest)):
        low, high = (11, LARGEST) if rng.random() < large_share else (2, 9)
        fitting = [(s, o) for s in "+-" for o in range(low, high + 1) if 0 <= apply(value, s, o) <= LARGEST]
        sign, operand = rng.choice(fitting)
        operations.append((sign, operand))
        value = apply(value, sign, operand)
    return Chain(start, tuple(operations))


def chains(seed: int, shortest: int, longest: int, large_share: float) -> Iterator[Chain]:
    """An endless stream of chains without a repetition."""
    rng, seen = random.Random(seed), set()
    while True:
        chain = sample_chain(rng, shortest, longest, large_share)
        if chain not in seen:
            seen.add(chain)
            yield chain


def terse_step(value: int, sign: str, operand: int) -> str:
    return f"{value}{sign}{operand}={apply(value, sign, operand)}"


def worked_step(value: int, sign: str, operand: int) -> str:
    """Units first, then tens with the carry or the borrow, then the result."""
    tens, units = divmod(value, 10)
    other_tens, other_units = divmod(operand, 10)
    carried = units + other_units >= 10 if sign == "+" else units < other_units
    if sign == "-" and carried:
        units += 10
    first = f"{units}{sign}{other_units}={apply(units, sign, other_units)}"
    carry = f"{sign}1" if carried else ""
    second = f"{tens}{sign}{other_tens}{carry}={apply(tens, sign, other_tens) + (int(sign + '1') if carried else 0)}"
    return f"{value}{sign}{operand}:{first},{second}={apply(value, sign, operand)}"


def solution(chain: Chain, rng: random.Random, worked_share: float) -> list[str]:
    """The steps of the solution, each worked with probability `worked_share`; the last one boxes the answer."""
    steps = []
    for value, (sign, operand) in zip(values(chain), chain.operations, strict=False):
        write = worked_step if rng.random() < worked_share else terse_step
        steps.append(write(value, sign, operand))
    steps[-1] += f" \\boxed{{{chain.answer}}}"
    return steps


def next_operation(problem: str, steps: Sequence[str]) -> tuple[int, str, int] | None:
    """(value so far, sign, operand) of the step that comes next, taking the result that the last step states.

    None where there is no such step: the chain is at its end, or the last step states no result.
    """
    chain = parse(problem)
    if len(steps) >= len(chain.operations):
        return None
    if not steps:
        return (chain.start, *chain.operations[0])
    match = STEP.fullmatch(steps[-1].strip())
    return (int(match.group(4)), *chain.operations[len(steps)]) if match else None


def is_right(problem: str, steps: Sequence[str], candidate: str) -> bool:
    """Exact check of one next step: right operands and result for its place, the answer boxed in the last step only."""
    expected, match = next_operation(problem, steps), STEP.fullmatch(candidate.strip())
    if expected is None or match is None:
        return False
    value, sign, operand = expected
    result = str(apply(value, sign, operand))
    last = len(steps) + 1 == len(parse(problem).operations)
    stated = (match.group(1), match.group(2), match.group(3), match.group(4))
    return stated == (str(value), sign, str(operand), result) and match.group(5) == (result if last else None)


def explain(problem: str, steps: Sequence[str], a: str, b: str) -> str | None:
    """A judge's working: the step worked out, then each candidate compared with it. None where nothing comes next."""
    expected = next_operation(problem, steps)
    if expected is None or expected[0] < 0:
        return None
    marks = ["same" if is_right(problem, steps, candidate) else "differs" for candidate in (a, b)]
    return f"{worked_step(*expected)};A {marks[0]},B {marks[1]};"
