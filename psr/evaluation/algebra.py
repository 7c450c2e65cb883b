"""Whether two formulas in LaTeX are equal: numerically, to many digits and at several points.

The formulas are read by the parser of math-verify, latex2sympy2_extended. Comparing values instead of simplifying is
both quicker and surer: no computer algebra system finds that cos(π/7) - cos(2π/7) + cos(3π/7) is 1/2 by rewriting it.
Importing this takes a second, and what it is asked may take for ever: it runs in `psr.evaluation.algebra_worker`. Knows
neither boxes nor units nor lists.
"""

import math
import re
from functools import lru_cache
from typing import Any

import sympy  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy.core.evalf import PrecisionExhausted  # type: ignore[import-untyped]
from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]
from sympy.core.relational import Relational  # type: ignore[import-untyped]

DIGITS = 40
"""To which formulas are evaluated; equal ones agree to 25, relative to their size."""
MOST_DIGITS = 12_000
"""Of the difference of two large powers, before they count as equal."""
MOST_TERMS = 5_000
"""Of a sum or product that is added up term by term."""
SIGNIFICANT = 6
"""A decimal with so many significant digits may stand for a number without decimals that it is the rounding of."""

_NEAR = sympy.Float(10, DIGITS) ** -25
_NOTHING = 1e-60
# Where the variables are put: values that satisfy no equation by accident. Formulas in whole numbers (binomials,
# factorials) are met at the first two, which are whole.
_POINTS = [sympy.Rational(value) for value in ("7", "12", "5.3178", "0.7391", "-1.6432", "-4.8127", "11.2751")]
_PARSING = ConversionConfig(lowercase_symbols=False)  # X is not x
_KNOWN = {sympy.Symbol("i"): sympy.I, sympy.Symbol("e"): sympy.E}

Point = dict[Any, Any]


def equal(answer: str, gold: str, tolerance: float | None = None) -> bool:
    """Whether two formulas, equations, inequalities or sets are the same; numbers may differ by the tolerance."""
    one, other = parsed(answer), parsed(gold)
    if one is None or other is None:
        return False
    if isinstance(one, Relational) and isinstance(other, Relational):
        (kind, first), (other_kind, second) = _sides(one), _sides(other)
        return kind == other_kind and _proportional(first, second, positive=kind in ("strict", "weak"))
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        if one.free_symbols != other.free_symbols:  # one of them may cancel: x-x+1
            one, other = sympy.expand(one.doit()), sympy.expand(other.doit())
        if one.free_symbols != other.free_symbols:
            return False
        if one.free_symbols:
            return _equal_everywhere(one, other)
        return _equal_numbers(one, other, tolerance, [_places(answer), _places(gold)])
    if isinstance(one, sympy.Set) and isinstance(other, sympy.Set):
        return bool(sympy.simplify(one) == sympy.simplify(other))
    return False


@lru_cache(maxsize=4096)
def parsed(text: str) -> Any:
    """The formula as sympy has it, with i and e as numbers and f(x) as a variable; None where it cannot be read."""
    try:
        found = latex2sympy(_spelled_out(text), normalization_config=None, conversion_config=_PARSING)
    except RecursionError:
        raise
    except Exception:  # the parser raises bare Exceptions, and whatever its actions run into
        return None
    if not isinstance(found, sympy.Basic):
        return None
    loops = found.atoms(sympy.Sum, sympy.Product, sympy.Integral)
    bound = {symbol for loop in loops for symbol in loop.variables}
    found = found.xreplace({name: value for name, value in _KNOWN.items() if name not in bound})
    return found.xreplace({one: sympy.Symbol(str(one)) for one in found.atoms(AppliedUndef)})


def _spelled_out(text: str) -> str:
    """Without what the parser reads otherwise: decimals become fractions, grouped digits numbers, degrees radians."""
    text = text.replace("’", "").replace('"degree"', r"\cdot \frac{\pi}{180}")
    text = re.sub(r"(?<![0-9.])([0-9]*)\.([0-9]+)(?![0-9.])", _exact, text)
    # A factor before a bracket: the parser takes 2(72) for a mixed number, and i(x) for a function.
    return re.sub(r"(?<=[0-9])\(|(?<=(?<![\\a-zA-Z])i)\(", r"\\cdot (", text)


def _exact(found: re.Match[str]) -> str:
    whole, decimals = found.groups()
    fraction = rf"\frac{{{int((whole or '') + decimals)}}}{{{10 ** len(decimals)}}}"
    return f"({fraction})" if found.string[found.end() : found.end() + 1] == "^" else fraction


def _places(text: str) -> int | None:
    """Of a decimal with enough significant digits to be a rounding of something."""
    match = re.fullmatch(r"-?([0-9]*)\.([0-9]+)", text.replace("’", ""))
    return len(match[2]) if match and len((match[1] + match[2]).lstrip("0")) >= SIGNIFICANT else None


def _equal_numbers(one: Any, other: Any, tolerance: float | None, places: list[int | None]) -> bool:
    one, other = _real_roots(_added_up(one)), _real_roots(_added_up(other))
    first, second = _value(one), _value(other)
    if first is None or second is None:
        return bool(one == other)
    if tolerance is not None:
        return bool(abs(first - second) <= tolerance * (1 + 1e-12))
    if _close(first, second) and not _differ(one, other):
        return True
    return any(abs(first - second) * 2 <= sympy.Float(10, DIGITS) ** -some for some in places if some is not None)


def _equal_everywhere(one: Any, other: Any) -> bool:
    """Equal at every point where both are real, or, where they hardly ever are, at all points where both exist."""
    real: list[bool] = []
    others: list[bool] = []
    for point in _points(one):
        first, second = _at(one, point), _at(other, point)
        if first is None and second is None:
            continue
        if first is None or second is None:
            if all(value > 0 for value in point.values()):
                return False
            continue
        both_real = all(abs(sympy.im(value)) <= _NEAR * (1 + abs(value)) for value in (first, second))
        (real if both_real else others).append(_close(first, second))
    verdicts = real if len(real) >= 2 else real + others
    return len(verdicts) >= 2 and all(verdicts)


def _proportional(one: Any, other: Any, positive: bool) -> bool:
    """Whether two sides are the same but for a constant factor: 2x-4=0 is x-2=0."""
    if one.free_symbols != other.free_symbols or not one.free_symbols:
        return False
    ratios = []
    for point in _points(one):
        first, second = _at(one, point), _at(other, point)
        if first is not None and second is not None and min(abs(first), abs(second)) > 1e-20:
            ratios.append(first / second)
    if len(ratios) < 2 or not all(_close(ratio, ratios[0]) for ratio in ratios):
        return False
    return not positive or bool(ratios[0].is_real and ratios[0] > 0)


def _sides(relation: Any) -> tuple[str, Any]:
    """What kind of relation it is, and its sides as one formula: what is 0, not 0, or positive."""
    difference = relation.lhs - relation.rhs
    if relation.rel_op in ("==", "!="):
        return relation.rel_op, difference
    return (
        "strict" if relation.rel_op in ("<", ">") else "weak"
    ), difference if ">" in relation.rel_op else -difference


def _points(formula: Any) -> list[Point]:
    """Where a formula with variables is compared: two points in whole numbers, the others anywhere."""
    names = sorted(formula.free_symbols, key=str)
    whole = [{name: _POINTS[row] + 3 * i + i * i for i, name in enumerate(names)} for row in (0, 1)]
    count = len(_POINTS)
    rest = [
        {name: _POINTS[(row + 2 * i) % count] + (i // count) * (2 + i) for i, name in enumerate(names)}
        for row in range(2, count)
    ]
    return [*whole, *rest]


def _at(formula: Any, point: Point) -> Any:
    """The value at a point; None where there is none."""
    return _value(_real_roots(_added_up(formula.xreplace(point))))


def _value(formula: Any) -> Any:
    """The number that a formula without variables is, to many digits; None where it is none."""
    value = formula.evalf(DIGITS)
    if value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        return None
    real, imaginary = value.as_real_imag() if value.has(sympy.I) else (value, sympy.Integer(0))
    if not all(part.is_Float or part.is_Rational for part in (real, imaginary)):
        return None
    size = max(abs(real), abs(imaginary))
    if size < _NOTHING:  # nothing, or something very small of which digits are known?
        try:
            return formula.evalf(DIGITS, strict=True)
        except PrecisionExhausted:
            return sympy.Integer(0)
    return real + (imaginary * sympy.I if abs(imaginary) > 1e-35 * size else 0)


def _close(first: Any, second: Any) -> bool:
    """Equal to many digits, relative to their size: 3^{-50} is not 3^{-51}."""
    return bool(abs(first - second) <= _NEAR * max(abs(first), abs(second)))


def _differ(one: Any, other: Any) -> bool:
    """Whether two numbers that agree to many digits still differ, as 2^{2005} and 2^{2005}+1 do."""
    gap = one - other
    if gap.has(sympy.Float):  # of a sum: no more digits are known
        return False
    powers = any(abs(power.exp.p) > 50 for power in gap.atoms(sympy.Pow) if power.exp.is_Rational)
    large = powers or any(abs(number.p) > 1e20 for number in gap.atoms(sympy.Integer))
    try:
        return bool(gap.evalf(2, maxn=MOST_DIGITS if large else 3 * DIGITS, strict=True) != 0)
    except PrecisionExhausted:
        return False


def _real_roots(formula: Any) -> Any:
    """With the real odd roots of negative numbers, as at school, where sympy takes complex ones."""
    real = {
        power: (-1) ** power.exp.p * (-power.base) ** power.exp
        for power in formula.atoms(sympy.Pow)
        if power.exp.is_Rational and power.exp.q > 1 and power.exp.q % 2 and power.base.is_negative
    }
    return formula.xreplace(real) if real else formula


def _added_up(formula: Any) -> Any:
    """With finite sums and products replaced by their values: sympy looks for closed forms, which may take for ever."""
    values = {}
    for loop in formula.atoms(sympy.Sum, sympy.Product):
        index, low, high = (sympy.simplify(part) for part in loop.limits[0])
        if len(loop.limits) > 1 or not (low.is_Integer and high.is_Integer and loop.function.free_symbols <= {index}):
            continue
        if 0 <= high - low <= MOST_TERMS:
            term = sympy.lambdify(index, loop.function, [{"binomial": math.comb}, "sympy"])
            exact = [sympy.sympify(term(sympy.Integer(k))) for k in range(int(low), int(high) + 1)]
            terms = [value if value.is_Rational else value.evalf(DIGITS + 20) for value in exact]
            values[loop] = (sympy.prod if isinstance(loop, sympy.Product) else sum)(terms)
    return formula.xreplace(values) if values else formula
