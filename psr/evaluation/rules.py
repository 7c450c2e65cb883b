r"""What a benchmark counts as right: units, tolerances, several answers, and problems that have no answer.

The rules of OlympiadBench (arXiv 2402.14008), which the other sets only use the simplest part of. Knows problems with
answers and the texts of solutions; the comparison of two values is `psr.evaluation.grading`'s.
"""

import re
from collections.abc import Sequence

from psr.answers import extract_boxed
from psr.evaluation.grading import Case, grade_cases
from psr.records import GoldProblem

LONGEST = 4096
"""Characters of an answer with all its values; the longest gold answer of the usual benchmarks has 204."""

_WRAPPING = re.compile(r"\\(?:text|mathrm|textrm|operatorname)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree")
_AND = re.compile(r"\\(?:text|mathrm|textrm)\s*\{\s*,?\s*(?:and|or)\s*\}|\s(?:and|or)\s")
_ENDING = re.compile(r"(.*?[^a-zA-Z°%/\s])\s*([a-zA-Z°%/]+(?:\^\{?[0-9]\}?)?)\.?", re.DOTALL)
_NAME = re.compile(r"\A(?:\\angle\s*)?[a-zA-Z](?:[a-zA-Z0-9_{}\s']|\([a-z]\))*=(?!.*=)", re.DOTALL)
_SAME_UNITS = {"min": "minute", "hr": "hour", "sec": "second", "degree": "°", "metre": "meter", "kilometer": "km"}
_UNITS = {"second", "minute", "hour", "day", "mm", "cm", "dm", "meter", "km", "km/h", "m/s", "cm^2", "m^2", "°", "%"}
"""Units that nothing else is written like: an answer in another one of them is wrong."""


def grade(problems: Sequence[GoldProblem], texts: Sequence[str]) -> list[bool | None]:
    r"""Whether the last `\boxed{}` of each text answers its problem; None where the problem has no reference answer.

    Blocks until all is graded, two seconds a hard answer at the most: in a coroutine, use `asyncio.to_thread`.
    """
    verdicts = grade_cases([case(problem, text) for problem, text in zip(problems, texts, strict=True)])
    return [right if has_gold(problem) else None for problem, right in zip(problems, verdicts, strict=True)]


def has_gold(problem: GoldProblem) -> bool:
    return bool(problem.answer.strip())


def case(problem: GoldProblem, text: str) -> Case | None:
    """What there is to compare, or None where the text has no answer, or one longer than any right one."""
    answer = extract_boxed(text)
    if answer is None or len(answer) > LONGEST:
        return None
    boxed = extract_boxed(problem.answer)
    gold = problem.answer if boxed is None else boxed
    given, asked = (values(answer), values(gold)) if problem.several else ((answer,), (gold,))
    if problem.unit:
        if any(unit_of(one) in _UNITS - {unit_of(f"1{problem.unit}")} for one in given):
            return None
        given = tuple(without_unit(one, problem.unit) for one in given)
        asked = tuple(without_unit(one, problem.unit) for one in asked)
    return Case(tuple(one.strip() for one in given), tuple(one.strip() for one in asked), problem.tolerance)


def values(text: str) -> tuple[str, ...]:
    r"""The values that an answer lists: "1,2", "(1,2),(3,4)", "$x=1$, $x=2$" (1 and 2), "1 and 2", "\{1, 2\}"."""
    text = text.strip().strip("$").strip()
    for opening, closing in (("\\{", "\\}"), ("\\left\\{", "\\right\\}")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
    found, depth, piece = [], 0, 0
    text = _AND.sub(",", text)
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character in ",;":
            found.append(text[piece:place])
            piece = place + 1
    found.append(text[piece:])
    pieces = (_NAME.sub("", one.strip().strip("$").strip(), count=1) for one in found)
    return tuple(one for one in pieces if one)


def without_unit(answer: str, unit: str) -> str:
    r"""The answer without the unit at its end, if it is that one: "45 minutes", "45\text{ min}", "90^{\circ}"."""
    match = _ENDING.fullmatch(_plain(answer))
    return match[1] if match and unit_of(answer) == unit_of(f"1{unit}") else answer


def unit_of(answer: str) -> str | None:
    """The name that the answer ends with, after a number or a formula; None where there is none."""
    match = _ENDING.fullmatch(_plain(answer))
    if match is None or match[1].endswith("\\"):
        return None
    unit = match[2].replace("{", "").replace("}", "")
    unit = unit.removesuffix("s") if len(unit) > 2 and unit != "m/s" else unit
    return _SAME_UNITS.get(unit, unit)


def _plain(text: str) -> str:
    text = _DEGREES.sub("°", text).replace("\\%", "%").replace("$", "").replace("\\,", " ").replace("~", " ")
    return _WRAPPING.sub(r" \1", text).strip()
