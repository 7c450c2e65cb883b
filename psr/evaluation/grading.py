"""Grades answers: the easy ones here, and those that need algebra in worker processes, whatever they contain.

A hostile answer (9^9^9) can occupy a computer algebra system for ever, and only a process can be stopped. What is equal
is decided in `psr.evaluation.comparing` and `psr.evaluation.algebra`. Knows nothing of boxes, problems or engines.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from psr.evaluation.comparing import MAX_DIGITS, Rules, compare
from psr.evaluation.grading_workers import Reply, asked
from psr.evaluation.questions import Question

MAX_LENGTH = 1024  # characters of an answer; the longest gold answer of the usual benchmarks has 204

_NONE = Rules()


@dataclass(frozen=True)
class Case:
    """An answer against a reference answer, both out of their boxes.

    Args:
        answer: as it was given.
        gold: as it stands with the problem.
        rules: the unit and the tolerance that the problem states.
    """

    answer: str
    gold: str
    rules: Rules = _NONE


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and what decided it.

    Args:
        right: whether it is.
        rule: "text" (the same in one spelling), "number", "base", "unit", "option", "words", "parts" (of a list, tuple,
            interval, matrix), "algebra"; of what is wrong without being compared "no answer", "empty", "too long",
            "excessive" (`9^9^9`) and "too slow" (stopped, or it ended its worker).
    """

    right: bool
    rule: str


def grade_cases(cases: Sequence[Case | None], *, timeout: float = 2.0, workers: int = 2) -> list[Verdict]:
    """The verdicts on cases, in their order; None is an answer that is missing.

    May be called from any thread, also several at once, and blocks until everything is graded: in a coroutine, use
    `asyncio.to_thread`.

    Args:
        cases: what to grade.
        timeout: seconds of processor time that one case may take in a worker; what needs longer is wrong.
        workers: the most worker processes alive at a time; they start when first needed and stay until exit.

    Raises:
        ValueError: `timeout` is not positive and finite, or `workers` is below 1.
        RuntimeError: a worker process cannot start, for instance because math-verify is not installed.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    verdicts = [_quick(case) for case in cases]
    left: dict[Case, list[int]] = {}  # samples of one problem repeat answers: each is compared once
    for index, (case, verdict) in enumerate(zip(cases, verdicts, strict=True)):
        if case is not None and verdict is None:
            left.setdefault(case, []).append(index)
    for case, verdict in zip(left, _compared(list(left), timeout, workers), strict=True):
        for index in left[case]:
            verdicts[index] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


_NO_ANSWER, _TEXT = Verdict(False, "no answer"), Verdict(True, "text")
_NUMBER = {right: Verdict(right, "number") for right in (True, False)}
_PLAIN = re.compile(r"(?:\\?\$)?(-?)(?:\\?\$)?([0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.([0-9]*))?\$?")


def _quick(case: Case | None) -> Verdict | None:
    """The verdict on what most answers are, the same text or two plain numbers; None where more has to be done."""
    if case is None:
        return _NO_ANSWER
    answer, gold = case.answer.strip(), case.gold.strip()
    if answer == gold and answer:
        return _TEXT
    if case.rules != _NONE:
        return None
    one, other = _plain(answer), _plain(gold)
    return None if one is None or other is None else _NUMBER[one == other]


@lru_cache(maxsize=1 << 14)
def _plain(text: str) -> tuple[str, str, str] | None:
    """Sign, digits and decimals of a plain number, without zeros that say nothing."""
    match = _PLAIN.fullmatch(text) if len(text) < MAX_DIGITS else None
    if match is None:
        return None
    whole, decimals = match[2].replace(",", "").lstrip("0"), (match[3] or "").rstrip("0")
    return (match[1] if whole or decimals else "", whole, decimals)


def _compared(cases: Sequence[Case], timeout: float, workers: int) -> list[Verdict]:
    """Spelled, taken apart, and compared, by algebra where that is called for."""
    verdicts: dict[Case, Verdict] = {}
    hard: dict[Case, Question] = {}
    for case in cases:
        answer, gold = case.answer.strip(), case.gold.strip()
        question, rule = (False, "too long") if len(answer) > MAX_LENGTH else compare(answer, gold, case.rules)
        verdicts[case] = Verdict(question is True, rule)
        if not isinstance(question, bool):
            hard[case] = question
    if hard:
        with ThreadPoolExecutor(min(workers, len(hard)), thread_name_prefix="grading") as threads:
            replies = threads.map(lambda case: asked(hard[case], case.rules.tolerance, timeout, workers), hard)
            for case, reply in zip(hard, replies, strict=True):
                verdicts[case] = Verdict(reply is Reply.YES, "too slow" if reply is Reply.NONE else "algebra")
    return list(verdicts.values())
