"""Extracts the answer from a solution's text. Knows neither problems nor how answers are compared."""

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is text, not structure
_AFTER_MARK = re.compile(r"####[ \t]*([^\n]+)")
_SENTENCE = re.compile(
    r"\b(?:final\s+)?answer(?:\s*\*\*)?\s*(?:is|:|=)(?:\s*\*\*)?\s*:?\s*([^\n]+?)\s*(?:\.(?=\s|$)|\n|$)", re.IGNORECASE
)


def extract_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` or `\fbox{...}`; None when there is none or its braces never close."""
    start = None
    for box in _BOX.finditer(text):
        start = box.end()
    if start is None:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[start : brace.start()]
    return None


def answer_of(text: str) -> str | None:
    r"""The boxed answer, or, where nothing is boxed, the last after "####" or "the answer is"; None without any."""
    if _BOX.search(text):
        return extract_boxed(text)
    for form in (_AFTER_MARK, _SENTENCE):
        if found := form.findall(text):
            return str(found[-1]).strip().strip("*").strip()
    return None
