"""Decides whether a solution's boxed answer equals the gold answer, whatever the solution contains.

Plain text and numbers are compared right here; everything else goes to math-verify inside worker processes, because a
hostile answer (9^9^9) can occupy a computer algebra system for ever and only a process can be stopped. The module knows
nothing of problems, prompts or engines.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction

from psr.answers import extract_boxed
from psr.evaluation.grading_workers import matched, verified

MAX_LENGTH = 512  # characters of an answer; the longest gold answer of the usual benchmarks has 204
MAX_DEPTH = 32  # nested brackets; the parser's recursion and its time grow with each level
MAX_DIGITS = 200  # of one number
MAX_EXPONENT = 10_000  # of a power of numbers, and of what a factorial is taken of

_SPACING = re.compile(r"(?<!\\)\\(?:[!,;:]|left(?![a-zA-Z])|right(?![a-zA-Z]))")
_LOOSE_SPACE = re.compile(r"(?<![\w,]) | (?!\w)")  # "1 2" is not "12", and "1, 234" is a list where "1,234" is a number
_DECIMAL = re.compile(r"(?:\\?\$)?([+-]?)(?:\\?\$)?([0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|(?=\.[0-9]))(\.[0-9]*)?\$?")
_FRACTION = re.compile(r"\$?([+-]?)(?:\\frac\{(-?[0-9]+)\}\{(-?[0-9]+)\}|([0-9]+)/([0-9]+))\$?")
_TOWER = re.compile(r"(?:\^\s*[+-]?\s*[0-9]+\s*)+")
_FACTORIAL = re.compile(r"([0-9]+)\s*!")


def grade_many(pairs: Sequence[tuple[str, str]], *, timeout: float = 2.0, workers: int = 2) -> list[bool]:
    r"""Grades (prediction text, gold answer) pairs; the results are in the order of the pairs.

    Only the last `\boxed{}` of a prediction counts, and a prediction without one is wrong. The gold answer is bare
    ("72", "\frac{1}{2}") or in a box itself; nothing equals an empty gold answer. May be called from any thread, also
    several at once, and blocks until everything is graded: in a coroutine, use `asyncio.to_thread`.

    Args:
        pairs: what to grade
        timeout: seconds of wall time that one pair may take in a worker; a pair that needs longer is wrong
        workers: the most worker processes alive at a time; they start when first needed and stay until exit

    Raises:
        ValueError: `timeout` is not positive and finite, or `workers` is below 1.
        RuntimeError: a worker process cannot start, for instance because math-verify is not installed.
    """
    answers = [extract_boxed(prediction) for prediction, _ in pairs]
    golds = [extract_boxed(gold) for _, gold in pairs]
    truths = [gold if boxed is None else boxed for (_, gold), boxed in zip(pairs, golds, strict=True)]
    cases = [
        None if answer is None else Case((answer.strip(),), (truth.strip(),))
        for answer, truth in zip(answers, truths, strict=True)
    ]
    return grade_cases(cases, timeout=timeout, workers=workers)


@dataclass(frozen=True)
class Case:
    """Values that were given against the values asked for: right if they are the same in some order.

    Args:
        answers: as they stand in the box, without it.
        golds: each to be met by one of the answers.
        tolerance: numbers may differ by so much.
    """

    answers: tuple[str, ...]
    golds: tuple[str, ...]
    tolerance: float | None = None


def grade_cases(cases: Sequence[Case | None], *, timeout: float = 2.0, workers: int = 2) -> list[bool]:
    """As `grade_many`, for answers that are out of their boxes already; None is an answer that is missing."""
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    results = [False] * len(cases)
    hard: dict[Case, list[int]] = {}  # samples of one problem repeat answers: each is verified once
    for index, case in enumerate(cases):
        verdict = False if case is None else _settled(case)
        if case is not None and verdict is None:
            hard.setdefault(case, []).append(index)
        else:
            results[index] = bool(verdict)
    if hard:
        with ThreadPoolExecutor(min(workers, len(hard)), thread_name_prefix="grading") as threads:
            verdicts = threads.map(lambda case: verified(asdict(case), timeout=timeout, workers=workers), hard)
            for indices, verdict in zip(hard.values(), verdicts, strict=True):
                for index in indices:
                    results[index] = verdict
    return results


def _settled(case: Case) -> bool | None:
    """The verdict on a case where it needs no algebra; None where math-verify has to decide."""
    if len(case.answers) != len(case.golds):
        return False
    table = [[_compare(answer, gold, case.tolerance) for answer in case.answers] for gold in case.golds]
    if any(all(verdict is False for verdict in row) for row in table):
        return False
    return matched([[verdict is True for verdict in row] for row in table]) or None


def _compare(answer: str, gold: str, tolerance: float | None = None) -> bool | None:
    """The verdict on one value where it needs no algebra; None where math-verify has to decide."""
    if not answer or not gold or len(answer) > MAX_LENGTH:
        return False
    answer, gold = _normalize(answer), _normalize(gold)
    if answer == gold:
        return True
    left, right = _number(answer), _number(gold)
    if left is not None and right is not None:
        if left == right or (tolerance is not None and abs(left - right) <= Fraction(str(tolerance))):
            return True
        # Different integers cannot be rescued by rounding (which makes 0.333333 equal 1/3), and without a comma they
        # cannot be lists: the common wrong answer of a word problem never reaches a worker.
        if tolerance is not None or (left.denominator == right.denominator == 1 and "," not in answer + gold):
            return False
    return False if _is_excessive(answer) else None


def _normalize(text: str) -> str:
    text = _SPACING.sub("", text).replace("{,}", ",").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _LOOSE_SPACE.sub("", " ".join(text.split()))


def _number(text: str) -> Fraction | None:
    if len(text) > MAX_DIGITS:
        return None
    if match := _DECIMAL.fullmatch(text):
        sign, whole, decimals = match.groups(default="")
        return Fraction(f"{sign}{whole.replace(',', '') or '0'}{decimals.rstrip('.')}")
    if match := _FRACTION.fullmatch(text):
        sign, top, bottom, plain_top, plain_bottom = match.groups(default="")
        denominator = int(bottom or plain_bottom)
        return Fraction(int(sign + "1") * int(top or plain_top), denominator) if denominator else None
    return None


def _is_excessive(answer: str) -> bool:
    """Whether the answer is certain to cost more than it can be worth. What slips through still meets the timeout."""
    depth = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            return True
    if re.search(rf"[0-9]{{{MAX_DIGITS + 1}}}|!\s*!\s*!", answer):
        return True
    # Opening brackets and closing braces say nothing about the size: 9^{9^{9}} and 9^(9^9) both read 9^9^9.
    flat = re.sub(r"[{}(]", " ", answer)
    if any(int(digits) > MAX_EXPONENT for digits in _FACTORIAL.findall(flat)):
        return True
    for tower in _TOWER.findall(flat):
        exponent = 1
        for base in map(int, reversed(re.findall(r"[0-9]+", tower))):
            # The power is at least 2 to this product: computing it first would be what this check is to prevent.
            if (base.bit_length() - 1) * exponent > MAX_EXPONENT.bit_length():
                return True
            exponent = base**exponent
            if exponent > MAX_EXPONENT:
                return True
    return False
