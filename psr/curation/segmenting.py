r"""Worked solutions cut into steps by rule, and checks that a segmentation of any origin did not alter the text.

A step is one line of text: line breaks inside it become spaces. Formulas are never cut. Knows texts only.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from psr.answers import extract_boxed
from psr.prompts.templates import STEP_MARK

# Inline formulas follow pandoc's rule, which tells them from amounts of money: no space inside the dollar signs, and no
# digit after the closing one.
FORMULA = re.compile(
    r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\\begin\{(\w+\*?)\}.+?\\end\{\1\}|(?<![\\$])\$(?=[^\s$])[^$\n]*(?<=[^\s\\$])\$(?!\d)",
    re.DOTALL,
)
DISPLAY = re.compile(r"\$\$.+?\$\$|\\\[.+?\\\]|\\begin\{(\w+\*?)\}.+?\\end\{\1\}", re.DOTALL)
SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9$\\])|\n\s*\n|(?<=[^\s,:;=+*/(-])[ \t]*\n(?=[A-Z])")
FORMULA_END = re.compile(r"\.\s*(?:\\\]|\$\$?|\\end\{\w+\*?\})\s*(?=[A-Z$])")
ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:(?i:mr|mrs|ms|dr|st|vs|e\.g|i\.e|cf|approx|fig|eq)|[A-Z])\.$|^\s*\d{1,2}\.$", re.M
)


def by_lines(solution: str) -> list[str]:
    """One step per line; a displayed formula keeps its lines together."""
    return _cut(solution, DISPLAY, [match.span() for match in re.finditer("\n", solution)])


def by_sentences(solution: str) -> list[str]:
    """One step per sentence or paragraph; a line also ends where the next begins with a capital, as some authors write
    no full stops.

    Dots inside formulas, numbers, initials and abbreviations end no sentence; a formula that itself ends in one does.
    """
    ends = [
        match.span()
        for match in SENTENCE_END.finditer(solution)
        if match[0].isspace() or not ABBREVIATION.search(solution[: match.start() + 1])
    ]
    ends += [(match.end(), match.end()) for match in FORMULA_END.finditer(solution)]
    return _cut(solution, FORMULA, sorted(ends))


def _cut(text: str, whole: re.Pattern[str], cuts: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces between the cuts (start, end) that do not lie inside a match of `whole`.

    White space is joined and step marks are dropped, since the step format has its own.
    """
    kept = [match.span() for match in whole.finditer(text)]
    ends = [end for start, end in cuts if not any(low <= start < high for low, high in kept)]
    pieces = (text[low:high] for low, high in zip([0, *ends], [*ends, len(text)], strict=True))
    return [step for piece in pieces if (step := " ".join(STEP_MARK.sub("", piece).split()))]


def parse_steps(reply: str) -> list[str]:
    """The steps, without their marks, of a text in the format "Step 1: ... Step 2: ...".

    Empty where there is no mark, or other text before the first.
    """
    before, *steps = STEP_MARK.split(reply)
    return [] if before.strip() else [" ".join(step.split()) for step in steps if step.strip()]


def similarity(solution: str, steps: Sequence[str]) -> float:
    """Similarity of solution and joined steps apart from white space and step marks, from 0.0 to 1.0 (equal)."""
    one, other = ("".join(STEP_MARK.sub("", text).split()) for text in (solution, "\n".join(steps)))
    return 1.0 if one == other else SequenceMatcher(None, one, other, autojunk=False).ratio()


def keeps_box(solution: str, steps: Sequence[str]) -> bool:
    """Whether solution and steps have the same last boxed answer, apart from white space."""
    one, other = (extract_boxed(text) for text in (solution, "\n".join(steps)))
    return one is None or (other is not None and one.split() == other.split())


def with_box(steps: Sequence[str], answer: str | None) -> list[str]:
    """The steps, with the answer boxed in the last one if that has no box yet, as in GSM8K."""
    steps = list(steps) or [""]
    if answer is not None and "\\boxed{" not in steps[-1]:
        steps[-1] = f"{steps[-1]} \\boxed{{{answer}}}"
    return steps
