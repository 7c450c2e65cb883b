"""Words in answers: units, currencies, names, and whatever else stands beside a value.

Knows English words and units. Does not know LaTeX (of that, `psr.evaluation.notation` has taken care) or numbers.
"""

import re
from functools import lru_cache
from itertools import pairwise

_SYNONYMS = {
    "meter": "m metre meters metres",
    "centimeter": "cm cms centimetre centimeters centimetres",
    "millimeter": "mm millimetre millimeters millimetres",
    "decimeter": "dm decimetre decimeters decimetres",
    "kilometer": "km kms kilometre kilometers kilometres",
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yds yards",
    "mile": "mi miles",
    "second": "s sec secs seconds",
    "minute": "min mins minutes",
    "hour": "h hr hrs hours",
    "day": "days",
    "week": "weeks wk wks",
    "month": "months",
    "year": "yr yrs years",
    "gram": "g grams",
    "kilogram": "kg kgs kilograms kilo kilos",
    "milligram": "mg milligrams",
    "pound": "lb lbs pounds",
    "ounce": "oz ounces",
    "ton": "tons tonne tonnes",
    "liter": "l L litre liters litres",
    "milliliter": "ml mL millilitre milliliters millilitres",
    "gallon": "gal gallons",
    "quart": "qt quarts",
    "pint": "pt pints",
    "degree": "deg degs degrees",
    "degree c": "celsius",
    "degree f": "fahrenheit",
    "radian": "rad rads radians",
    "dollar": "usd dollars",
    "cent": "cents",
    "euro": "eur euros",
    "yen": "yens",
    "rupee": "rs rupees",
    "unit": "units",
    "mile/hour": "mph",
    "kilometer/hour": "kph kmh",
}
UNITS = {name: unit for unit, names in _SYNONYMS.items() for name in [unit, *names.split()]}
"""Units of measurement by all their names: an answer in another one than the reference answer's is wrong."""

# A word that changes the number beside it is not taken off with the others.
_CHANGED_BY = """
    no not nor less fewer more greater least most than under over above below minus negative positive plus times point
    half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths eighth eighths tenth tenths
    hundred hundreds thousand thousands million millions billion billions trillion dozen dozens k mil bn
    twice double triple squared cubed square-root root factorial percent pi power except without neither either or and
    between from to up down through until if odd even prime base mod modulo remainder infinity undefined unknown
    impossible am pm
"""
_CHANGING = set(_CHANGED_BY.split())
_CHANGES = re.compile(r"(?<![a-z])(?:" + "|".join(sorted(_CHANGING)) + r")(?![a-z])")

_RUN = re.compile(r'"[^"]*"|(?<![\\a-zA-Z{_])[a-zA-Z]{2,}(?:[\'-][a-zA-Z]+)*(?![a-zA-Z]*\})')
_SHORT = {"to", "or", "an", "no", "is", "of", "am", "pm", "at", "by", "if", "he", "it", "us", "up", "my", "as", "on"}
_LONE = re.compile(r"(?<=[0-9]) +(m|g|s|h|L|l)(?=\s*[.,]?\s*$)")
_QUOTED = r'"[^"]*"(?:\^\{-?[0-9]\})?'
_SUFFIX = re.compile(rf"(?:{_QUOTED}|/|\\cdot(?=\")|\((?=\")|(?<=\")\)|(?<=\")\.)+$")
_PREFIX = re.compile(r'^(?:"[^"]*"[:=]?)+(?=.)')


_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALED = re.compile(r'(?<=[0-9])"(hundred|thousand|million|billion|trillion)(?: ([a-z][^"]*))?"$')


def quoted_words(text: str) -> str:
    """The text with its words in quotes, one spelling for each, and "and" and "or" between values as commas."""
    if not any(map(str.isalpha, text)):
        return text
    text = _LONE.sub(r'"\1"', text) if len(re.findall(r"(?<!\\)[a-zA-Z]+", text)) == 1 else text
    text = _RUN.sub(lambda found: _quote(found[0]), text)
    text = re.sub(r'"\s+"', " ", text)
    return re.sub(r'"([^"]*)"', _spelled, text)


def _quote(run: str) -> str:
    if run.startswith('"') or not is_word(run):
        return run
    return f'"{run}"'


@lru_cache(maxsize=1 << 12)
def is_word(run: str) -> bool:
    """Whether letters side by side are a word, not a product of variables or a name of points."""
    lower = run.lower()
    if len(run) > 2 and lower in _CHANGING and lower != "mod":
        return True
    if lower in UNITS or lower in _SHORT:
        return run not in ("mi", "pt", "in", "rs", "h", "s", "g", "l", "L", "m") or run == "in"
    letters = re.sub("[^a-z]", "", lower)
    in_order = all(a < b for a, b in pairwise(letters))
    variables = len(letters) < 3 or not set(letters) & set("aeiouy") or (in_order and len(letters) < 5)
    return not variables and (lower == run or run.istitle() or len(run) > 3 or "'" in run)


def _spelled(found: re.Match[str]) -> str:
    """Case, dots and articles make no difference to a word; "and" and "or" separate values."""
    words = " ".join(found[1].replace(".", "").replace("\\", " ").split())
    if len(words) > 1:
        words = " ".join(word if len(word) == 1 and word not in "aA" else word.lower() for word in words.split())
        words = re.sub(r"^(?:the|a|an) (?=.)", "", words)
    if words in ("percent", "per cent", "pct"):
        return "%"
    if words in ("and", "or"):
        return ","
    if words == "none":
        return '"none"'
    pieces = re.split(r"\s*\b(?:and|or)\b\s*", words)
    return ",".join(f'"{piece}"' if piece else "" for piece in pieces)


def beside(text: str) -> tuple[str, str | None]:
    """A value without the words before and after it, and its unit by one name, None where no known one is named.

    A text whose words change the value ("16 million", "not 72"), or of words alone, stays as it is.
    """
    if '"' not in text:
        return text, None
    text = _SCALED.sub(_power_of_ten, text)
    after = _SUFFIX.search(text)
    after_words = after[0] if after else ""
    core = text[: len(text) - len(after_words)]
    before = _PREFIX.match(core)
    before_words = before[0] if before else ""
    core = core[len(before_words) :]
    if not core.strip("+-") or '"' in core or changes(before_words) or changes(after_words):
        if re.fullmatch(r'-?"[a-z]+"[^"]+', text) and unit_of(before_words.lstrip("-")):
            return text, None
        return _signed_currency(text)
    unit = unit_of(after_words) or unit_of(before_words)
    if core.startswith("(") and core.endswith(")") and core.count("(") == 1 and "," not in core:
        core = core[1:-1]
    return core, unit


def _power_of_ten(found: re.Match[str]) -> str:
    """16 million is a number."""
    return rf"\cdot 10^{{{_SCALES[found[1]]}}}" + (f'"{found[2]}"' if found[2] else "")


def _signed_currency(text: str) -> tuple[str, str | None]:
    """-$5 is $-5."""
    if match := re.fullmatch(r'-("[a-z]+")([0-9.’]+)', text):
        return f"-{match[2]}", unit_of(match[1])
    return text, None


def changes(words: str) -> bool:
    """Whether one of the words says more about the number than what it counts."""
    return _CHANGES.search(words.lower()) is not None


@lru_cache(maxsize=1 << 12)
def unit_of(words: str) -> str | None:
    """The unit that words name: `"cm"^{2}`, `"square cm"`, `"miles per hour"`, `"m"/"s"`; None if they name none."""
    text = words.replace("\\cdot", " ")
    if re.search(r"[()]", text):
        text = text.strip("()")
    over = [_simple_unit(part) for part in re.split(r'/|\bper\b|"\s*/\s*"', text)]
    if not over or any(one is None for one in over):
        return None
    return "/".join(str(one) for one in over)


def _simple_unit(text: str) -> str | None:
    power = re.search(r"\^\{(-?[0-9])\}", text)
    exponent = power[1] if power else "1"
    words = re.sub(r"\^\{-?[0-9]\}", "", text).replace('"', " ").split()
    if words and words[0] in ("square", "sq", "cubic", "cu") and len(words) > 1:
        exponent, words = ("2" if words[0] in ("square", "sq") else "3"), words[1:]
    name = UNITS.get(" ".join(words)) or (UNITS.get(words[0]) if len(words) == 1 else None)
    if name is None:
        return None
    return name if exponent == "1" else f"{name}^{exponent}"
