r"""What an answer is made of: values side by side, a pair, an interval, a union, a matrix, or one value.

Works on the spelling of `psr.evaluation.notation`. Does not know what is equal.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

from psr.evaluation.notation import GROUP

Kind = Literal["value", "list", "set", "bracket", "union", "matrix"]


@dataclass(frozen=True)
class Shape:
    """An answer taken apart.

    Args:
        kind: "list" is values side by side, "set" those in braces, "bracket" a tuple or an interval.
        parts: a value alone, the values of a list, the entries of a tuple or a matrix (row by row), the ends of an
            interval, the members of a union.
        ends: "()", "[)" and so on of a bracket; the numbers of rows and columns of a matrix.
        name: the variable that an inequality is about.
    """

    kind: Kind
    parts: tuple[str, ...]
    ends: str = ""
    name: str = ""


_OPEN, _CLOSE = "([{", ")]}"
_RELATION = re.compile(r"<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])")
_VARIABLE = r"(?:[a-zA-Z]|\\[a-zA-Z]+)(?:_\{[^{}]*\})?'*"
_NAME = re.compile(rf"(?:{_VARIABLE}|[a-zA-Z](?:_\{{[^{{}}]*\}})?'*\([^()=]*\))")
_MEMBER = re.compile(rf"({_VARIABLE})\\in(?![a-zA-Z])(.+)", re.DOTALL)
_MATRIX = re.compile(r"\\begin\{pmatrix\}((?:(?!\\begin).)*)\\end\{pmatrix\}", re.DOTALL)
_OPTION = re.compile(r'\(?"?([A-J])"?(?:\)[.:]?|[.:])(.+)', re.DOTALL)
_INFINITE = ("\\infty", "-\\infty")


@lru_cache(maxsize=1 << 14)
def shape(text: str) -> Shape:
    """The outermost structure of an answer."""
    if match := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in match[1].removesuffix("\\\\").split("\\\\")]
        if len({len(row) for row in rows}) == 1:
            return Shape("matrix", tuple(entry.strip() for row in rows for entry in row), f"{len(rows)}x{len(rows[0])}")
    if match := _MEMBER.fullmatch(text):
        return shape(match[2])
    parts = split(text, ",;")
    if len(parts) > 1:
        values = tuple(value for part in parts for value in signs(part))
        ranges = [interval(value) for value in values]
        if all(ranges):
            return Shape("union", values)
        return Shape("list", values)
    both = signs(text)
    if len(both) > 1:
        return Shape("list", both)
    members = split(text, "∪")
    if "\\cup" in text and len(members := split(re.sub(r"\\cup(?![a-zA-Z]) ?", "∪", text), "∪")) > 1:
        return Shape("union", tuple(members))
    if text.startswith("\\{") and text.endswith("\\}") and _closes_last(text, 1):
        inner = split(text[2:-2], ",;")
        return Shape("set", tuple(dict.fromkeys(value for part in inner for value in signs(part))))
    if found := interval(text):
        return found
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _closes_last(text, 0):
        inner = split(text[1:-1], ",;")
        if len(inner) > 1:
            return Shape("bracket", tuple(inner), text[0] + text[-1])
        if text[0] + text[-1] == "()":
            return shape(text[1:-1])
    return Shape("value", (text,))


def split(text: str, separators: str) -> list[str]:
    """The parts of a text between separators outside of all brackets, without the empty ones."""
    found, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and character in separators:
            found.append(text[start:place])
            start = place + 1
    found.append(text[start:])
    return [part for part in (one.strip() for one in found) if part]


def ungrouped(text: str) -> str:
    """The text with what was read as the thousands of a number read as a list: "100,200"."""
    return text.replace(GROUP, ",")


def _closes_last(text: str, start: int) -> bool:
    """Whether the bracket at `start` is closed by the end of the text."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in _OPEN) - (text[place] in _CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def signs(text: str) -> tuple[str, ...]:
    r"""Both values of 3\pm 2, all four where it has two of them; \mp is the other sign of the first \pm."""
    pieces = re.split(r"\\pm(?![a-zA-Z]) ?", text)
    if len(pieces) == 1 or len(pieces) > 4:
        return (text,)
    values = []
    for chosen in product("+-", repeat=len(pieces) - 1):
        value = pieces[0] + "".join(sign + piece for sign, piece in zip(chosen, pieces[1:], strict=True))
        value = re.sub(r"\\mp(?![a-zA-Z]) ?", "-" if chosen[0] == "+" else "+", value)
        values.append(re.sub(r"(?<![^=(\[,{])\+", "", value))
    return tuple(values)


@lru_cache(maxsize=1 << 12)
def interval(text: str) -> Shape | None:
    r"""The interval that an inequality describes: of 3<x\le 4 it is (3,4], of x<3 (-\infty,3)."""
    relations = _RELATION.findall(text)
    if not relations or len(relations) > 2:
        return None
    parts = [part.strip() for part in _RELATION.split(text)]
    if not all(parts):
        return None
    if relations[0] in (">", "\\ge"):
        parts, relations = parts[::-1], [{">": "<", "\\ge": "\\le"}.get(one, "?") for one in relations[::-1]]
    if not set(relations) <= {"<", "\\le"}:
        return None
    if len(parts) == 3:
        low, name, high = parts
        ends = ("(" if relations[0] == "<" else "[") + (")" if relations[1] == "<" else "]")
    elif re.fullmatch(_VARIABLE, parts[0]) and parts[0] not in ("\\pi", "\\infty"):
        name, low, high = parts[0], "-\\infty", parts[1]
        ends = "(" + (")" if relations[0] == "<" else "]")
    else:
        low, name, high = parts[0], parts[1], "\\infty"
        ends = ("(" if relations[0] == "<" else "[") + ")"
    if not re.fullmatch(_VARIABLE, name) or re.search(rf"(?<![\\a-zA-Z]){re.escape(name)}(?![a-zA-Z])", low + high):
        return None
    return Shape("bracket", (low, high), ends, name)


def without_name(text: str, spare: str = "") -> tuple[str, str]:
    r"""A value without what it is the value of, and that: "x=5", "f(2)=5", "5=x", "\angle ABC=5", "5\cdot 2=10".

    The left side goes where it is a name, words, or a formula of names or of numbers alone; an equation that has to be
    solved ("x+2=5", "x^2=4") stays as it is. `spare` is a name that is not to be taken for one.
    """
    sides = split(text, "=") if "=" in text else []
    if len(sides) < 2 or text.count("=") != len(sides) - 1:
        return text, ""
    left, right = sides[0], sides[-1]
    if _NAME.fullmatch(right) and not _NAME.fullmatch(left) and len(sides) == 2 and right not in (*_INFINITE, "\\pi"):
        return left, right
    plain = re.sub(r'_\{[^{}]*\}|\^\{-1\}|"[^"]*"|\\(?:frac|sqrt|cdot)', "", left)
    named = re.search("[a-zA-Z]", plain) is not None or '"' in left
    if len(sides) > 2 or _NAME.fullmatch(left) or not named or not re.search("[0-9]", plain):
        return right, left
    return text, ""


def is_name(text: str) -> bool:
    """Whether a left side is a single variable or function."""
    return _NAME.fullmatch(text) is not None


def option(text: str) -> tuple[str, str] | None:
    """The letter and the text of a choice that is given in full: "(A) 5"."""
    match = _OPTION.fullmatch(text)
    return (match[1], match[2]) if match else None
