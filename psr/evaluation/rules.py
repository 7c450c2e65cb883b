r"""What counts as the answer of a text, and what a benchmark counts as right: the one grader of every command.

The rules of OlympiadBench (arXiv 2402.14008), which the other sets only use the simplest part of: a unit, a tolerance,
problems that have no answer. Knows problems with answers and the texts of solutions; the comparison of two values is
`psr.evaluation.grading`'s.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from psr.answers import answer_of, extract_boxed
from psr.evaluation.comparing import Rules
from psr.evaluation.grading import Case, Verdict, grade_cases
from psr.records import GoldProblem


def grade(problems: Sequence[GoldProblem], texts: Sequence[str]) -> list[bool | None]:
    r"""Whether the last `\boxed{}` of each text answers its problem; None where the problem has no reference answer.

    Blocks until all is graded, two seconds a hard answer at the most: in a coroutine, use `asyncio.to_thread`.
    """
    return [None if verdict is None else verdict.right for verdict in verdicts(problems, texts)]


def verdicts(
    problems: Sequence[GoldProblem],
    texts: Sequence[str],
    *,
    without_box: bool = False,
    timeout: float = 2.0,
    workers: int = 2,
) -> list[Verdict | None]:
    """As `grade`, with what decided.

    Args:
        problems: with their reference answers, bare ("72") or in a box themselves.
        texts: the solutions.
        without_box: also take "#### 42" and "the answer is 42" for answers, where a text has no box.
        timeout: as for `grade_cases`.
        workers: as for `grade_cases`.
    """
    cases = [case(problem, text, without_box) for problem, text in zip(problems, texts, strict=True)]
    graded = grade_cases(cases, timeout=timeout, workers=workers)
    return [verdict if has_gold(problem) else None for problem, verdict in zip(problems, graded, strict=True)]


def has_gold(problem: GoldProblem) -> bool:
    return bool(problem.answer.strip())


def case(problem: GoldProblem, text: str, without_box: bool = False) -> Case | None:
    """What there is to compare, or None where the text has no answer."""
    answer = answer_of(text) if without_box else extract_boxed(text)
    if answer is None:
        return None
    boxed = extract_boxed(problem.answer)
    gold = problem.answer if boxed is None else boxed
    if problem.several and not re.search(r",\s", gold):
        gold = gold.replace(",", ", ")  # of several values, 100,200 is two
    return Case(answer, gold, _rules(problem.unit, problem.tolerance))


@lru_cache(maxsize=256)
def _rules(unit: str, tolerance: float | None) -> Rules:
    return Rules(unit, tolerance)
