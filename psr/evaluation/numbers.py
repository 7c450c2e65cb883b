"""Numbers as they are written in answers, exactly: no float is ever made of them.

Knows decimals, fractions, mixed numbers, powers of ten, repeating decimals, percent and bases, in the spelling that
`psr.evaluation.notation` leaves. Knows neither words nor expressions.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from psr.evaluation.notation import GROUP

MAX_DIGITS = 200
"""Of one number; a longer one is compared as a text alone."""
SIGNIFICANT = 6
"""A decimal with so many significant digits may stand for the number that it is the rounding of: 0.333333 for 1/3."""
_MOST_ZEROS = 400  # of a power of ten: more would only cost time

_DIGITS = rf"[0-9]+(?:{GROUP}[0-9]{{3}})*"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_PARTS = re.compile(
    r"(?P<sign>[+-]?)(?:"
    rf"(?P<decimal>{_DECIMAL})(?:\\cdot ?10\^\{{(?P<power>[+-]?[0-9]{{1,4}})\}})?"
    r"|10\^\{(?P<alone>[+-]?[0-9]{1,4})\}"
    r"|(?P<start>[0-9]*\.[0-9]*)(?:\\(?:overline|bar|dot)\{(?P<period>[0-9]+)\}|\((?P<again>[0-9]+)\))"
    rf"|(?:(?P<whole>[0-9]+) ?)?\\frac\{{(?P<top>[+-]?{_DECIMAL})\}}\{{(?P<bottom>[+-]?{_DECIMAL})\}}"
    r"|(?:(?P<plain_whole>[0-9]+) )?(?P<plain_top>[0-9]+)/(?P<plain_bottom>[0-9]+)"
    r")(?P<percent>%?)"
)
_BASE = re.compile(
    r"(?P<negative>-?)\(?(?P<digits>[0-9][0-9A-Za-z]*(?:\.[0-9A-Za-z]+)?|\.[0-9][0-9A-Za-z]*)\)?"
    r'_\{?"?(?:base )?(?P<base>[a-z0-9]+)"?\}?'
)
_BASES = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen"),
)


@dataclass(frozen=True)
class Number:
    """A number as written: its value (of 5%: 5), and the places of a decimal, None of a fraction."""

    value: Fraction
    percent: bool = False
    places: int | None = None


@lru_cache(maxsize=1 << 14)
def number(text: str) -> Number | None:
    """The number that a text is, if it is nothing but one."""
    match = _PARTS.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if match is None:
        return None
    part, sign, percent = match.groupdict(), -1 if match["sign"] == "-" else 1, bool(match["percent"])
    if part["decimal"] is not None or part["alone"] is not None:
        written = (part["decimal"] or "1").replace(GROUP, "")
        power = int(part["power"] or part["alone"] or 0)
        if abs(power) > _MOST_ZEROS:
            return None
        places = len(written.partition(".")[2]) - power
        return Number(sign * _decimal(written) * Fraction(10) ** power, percent, places)
    if part["start"] is not None:
        return Number(sign * _repeating(part["start"], part["period"] or part["again"]), percent)
    whole = int(part["whole"] or part["plain_whole"] or 0)
    top, bottom = _fraction(part)
    if bottom == 0 or (whole and not 0 < top / bottom < 1):
        return None
    return Number(sign * (whole + top / bottom), percent)


def _decimal(written: str) -> Fraction:
    written = written.replace(GROUP, "").removesuffix(".")
    return Fraction("0" + written if written.startswith(".") else written)


def _fraction(part: dict[str, str | None]) -> tuple[Fraction, Fraction]:
    top, bottom = part["top"] or part["plain_top"], part["bottom"] or part["plain_bottom"]
    assert top is not None and bottom is not None
    return _decimal(top), _decimal(bottom)


def _repeating(start: str, period: str) -> Fraction:
    whole, _, decimals = start.partition(".")
    shift = 10 ** len(decimals)
    return Fraction(int((whole + decimals) or "0")) / shift + Fraction(int(period), (10 ** len(period) - 1) * shift)


def same_number(one: Number, other: Number, tolerance: float | None = None) -> bool:
    """Whether two numbers are equal, or within the tolerance that the problem states (absolute, as in OlympiadBench).

    p% is p to those who leave the sign away, and p/100 where that is a share, below 2: 50% is 50 or 0.5, 150% is 1.5,
    and 5000% is not 50. A fraction that is no decimal is met by its rounding to six significant digits or more.
    """
    if tolerance is not None and abs(one.value - other.value) <= Fraction(str(tolerance)):
        return True
    if one.value == other.value or _rounds_to(one, other) or _rounds_to(other, one):
        return True
    if one.percent == other.percent or tolerance is not None:
        return False
    share, whole = (one.value, other.value) if other.percent else (other.value, one.value)
    return abs(share) < 2 and share * 100 == whole


def _rounds_to(decimal: Number, exact: Number) -> bool:
    if decimal.places is None or exact.places is not None or decimal.percent != exact.percent:
        return False
    if decimal.places < 1 or significant_digits(decimal) < SIGNIFICANT:
        return False
    return abs(decimal.value - exact.value) * 2 <= Fraction(1, 10**decimal.places)


def significant_digits(decimal: Number) -> int:
    """Of a number that was written as a decimal: 3 of 0.00120."""
    return len(str(abs(int(decimal.value * 10 ** max(0, decimal.places or 0)))))


def same_in_bases(one: str, other: str) -> bool | None:
    """The verdict where a number with its base as an index is among the two, None where there is none.

    Where only the reference answer (`other`) names its base, the digits alone will do: the problem has named it.
    """
    first, second = _in_base(one), _in_base(other)
    if first is None and second is None:
        return None
    if first is not None and second is not None:
        return first[1] == second[1]
    if second is not None:
        return one.strip("()").upper() == second[0]
    plain = number(other)
    return first is not None and plain is not None and plain.value == first[1]


def _in_base(text: str) -> tuple[str, Fraction] | None:
    """The digits and the value of a number such as 4210_{5}."""
    match = _BASE.fullmatch(text) if "_" in text else None
    if match is None or len(text) > MAX_DIGITS:
        return None
    name = match["base"]
    base = int(name) if name.isdigit() and len(name) < 3 else _BASES.index(name) + 2 if name in _BASES else 0
    digits = match["negative"] + match["digits"].upper()
    digits = digits.replace(".", "0.", 1) if match["digits"].startswith(".") else digits
    whole, _, part = digits.lstrip("-").partition(".")
    values = [int(digit, 36) for digit in whole + part]
    if not 2 <= base <= 36 or max(values) >= base:
        return None
    value = Fraction(0)
    for digit in values:
        value = value * base + digit
    sign = -1 if match["negative"] else 1
    return digits, sign * value / base ** len(part)
