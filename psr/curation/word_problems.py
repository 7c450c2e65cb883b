r"""Word problems: steps rated, and judgements explained, by the equations of worked solutions.

A worked solution such as GSM8K's states its equations in prose ("Natalia sold 48/2 = 24 clips in May"). `WorkedSteps`
reads them, and rates a step that somebody else wrote for the same problem: right if its equations hold and its result
is one that the worked solution reaches and that no step so far has reached; wrong if an equation does not hold, if it
boxes another answer, or if its result leads nowhere; otherwise undecided, since there are more ways than one to solve a
problem. Knows texts and numbers only: no tokenizer, model, prompt or search.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from psr.answers import extract_boxed
from psr.files.kinds import Worked
from psr.files.rows import read_rows

NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
TOKEN = re.compile(
    rf"(?P<number>{NUMBER})(?P<percent>%?)|(?P<sign>[-+*/()]|(?<=[\s\d)])x(?=[\s\d($]))|(?P<word>[^\W\d]+)"
)
RESULT = re.compile(
    rf"\s*(?P<side>-?\s*\$?(?:{NUMBER})(?:\s*[-+*/]\s*\$?(?:{NUMBER}))*)(?P<percent>%?)"
    # "18 000", "3x", "24 slices - 15 slices"
    r"(?P<other>\s*\(|\s+\d|\s?[^\W\da](?![^\W\d])|(?:\s*+[^\W\d]++)*+\s*[-+*/]\s*[$(]*\d)?"
)
"""What stands after "=": a number or an expression of numbers; `other` is what shows that more belongs to it.
Possessive, since a long run of words without an operation would otherwise be divided in every possible way."""
PER_UNIT = re.compile(r"/\s*[^\W\d]{2,}")
LIKE = str.maketrans({"−": "-", "–": "-", "×": "*", "÷": "/", "·": "*"})
OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST = 200
"""Characters of an expression that is evaluated."""


@dataclass(frozen=True)
class Equation:
    """`left` = `stated`, as a step writes it; `value` is what `left` comes to, `decimals` those of `stated`."""

    left: str
    value: Fraction
    stated: Fraction
    decimals: int

    @property
    def holds(self) -> bool:
        """Whether both sides are the same number, or `stated` is the other rounded to as many decimals."""
        tolerance = Fraction(1, 2 * 10**self.decimals) if self.decimals else 0
        return abs(self.value - self.stated) <= tolerance

    def __str__(self) -> str:
        return f"{self.left}={written(self.stated)}"


def equations(text: str) -> list[Equation]:
    """The equations between numbers that a text states, in order: two in "a = b = c", and none across lines.

    Units between a number and an operation are passed over ("3 books + 4 books = 7 books"). An equation with unknowns,
    or that cannot be read, is left out.
    """
    plain = PER_UNIT.sub("", re.sub(r"\\boxed\{[^}]*\}", "", text).translate(LIKE))
    found = []
    for before, after in (pair for line in plain.split("\n") for pair in pairwise(line.split("="))):
        left, right = expression_at_end(before), RESULT.match(after)
        value = None if left is None else evaluate(left)
        if left is None or value is None or right is None or right["other"]:
            continue
        stated = evaluate(right["side"].replace("$", "").replace(",", "").replace(" ", ""))
        if stated is None or re.fullmatch(NUMBER, left):  # "x = 5" and "5 = 5" compute nothing
            continue
        decimals = len(right["side"].partition(".")[2])
        if right["percent"] and value != stated:  # both "1/4 = 25%" and "1/4 * 100 = 25%" are written
            stated, decimals = stated / 100, decimals + 2
        found.append(Equation(left, value, stated, decimals))
    return found


def expression_at_end(text: str) -> str | None:
    """The longest expression that a text ends in, without units and spaces ("48/2"), or None."""
    taken: list[str] = []
    wants_operand, depth = True, 0
    for token in reversed(list(TOKEN.finditer(text))):
        word, sign = token["word"], "*" if token["sign"] == "x" else token["sign"]
        if word and len(word) == 1:
            return None  # an unknown
        if word and not wants_operand:
            break
        if word:
            continue  # the unit of the number before it
        if wants_operand == (sign in {"+", "-", "*", "/", "("}) or (sign == "(" and not depth):
            if sign != "(" and not wants_operand:
                return None  # "100 000 * 2" and "95(.2)"
            break
        depth += {")": 1, "(": -1}.get(sign, 0)
        wants_operand = sign in {"+", "-", "*", "/", ")"}
        number = (token["number"] or "").replace(",", "")
        taken.append(sign or (f"({number}/100)" if token["percent"] else number))
    while taken and taken[-1] in {"+", "-"}:  # a dash of the sentence, or a sign: neither belongs to the operation
        taken.pop()
    return "".join(reversed(taken)) or None


def evaluate(expression: str) -> Fraction | None:
    """The value of a sum, difference, product or quotient of decimal numbers, exactly; None of anything else."""
    if len(expression) > LONGEST:
        return None
    # Leading zeros are an error in Python, and no number here is octal.
    try:
        tree = ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", expression), mode="eval")
        return _value(tree.body, expression)
    except (SyntaxError, ZeroDivisionError, ValueError, RecursionError):
        return None


def _value(node: ast.expr, source: str) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left, source), _value(node.right, source))
    raise ValueError(f"no arithmetic: {source}")


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def numbers(text: str) -> set[Fraction]:
    return {_number(match) for match in re.findall(NUMBER, text)}


def written(value: Fraction) -> str:
    """A number as a solution writes it: whole, with up to four decimals, or as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = f"{float(value):.4f}".rstrip("0")
    return decimal if Fraction(decimal) == value else f"{value.numerator}/{value.denominator}"


@dataclass(frozen=True)
class WorkedSteps:
    """Rates and explains steps of the problems that worked solutions are given for, by the problem's text."""

    solutions: dict[str, tuple[list[Equation], Fraction | None]]

    @classmethod
    def read(cls, path: Path) -> "WorkedSteps":
        """The worked solutions of a JSONL file, with `answer`. Raises DataError as `read_rows`."""
        rows = read_rows(path, Worked, needs=["answer"])
        return cls({row["problem"]: (equations(row["solution"]), answer_value(row["answer"])) for row in rows})

    def rate(self, problem: str, steps: Sequence[str], candidate: str) -> bool | None:
        """Whether a next step is right, or None: undecided, unknown problem, or after a step that is not right."""
        if problem not in self.solutions:
            return None
        for i, step in enumerate(steps):
            if not self._one(problem, steps[:i], step):
                return None  # what follows from a mistake is neither right nor this step's fault
        return self._one(problem, steps, candidate)

    def _one(self, problem: str, steps: Sequence[str], candidate: str) -> bool | None:
        worked, answer = self.solutions[problem]
        stated, box = equations(candidate), extract_boxed(candidate)
        if not all(equation.holds for equation in stated):
            return False
        if box is not None and answer is not None and answer_value(box) != answer:
            return False
        if not stated:
            return None
        reached = {equation.stated for step in steps for equation in equations(step)}
        goals = {equation.stated for equation in worked} | ({answer} if answer is not None else set())
        result = stated[-1].stated
        if result in goals - reached:
            return True
        if result in reached | goals:  # said before: no mistake, and no progress
            return None
        known = numbers(problem) | goals | reached
        return None if any(value in goals - reached for value in _one_operation(result, known)) else False

    def explain(self, problem: str, steps: Sequence[str], a: str, b: str) -> str | None:
        """A judge's explanation: the step worked out, what each candidate computes, and which one is right.

        For instance "48/2=24. A: 48/2=24, yes. B: 48*2=96, yes. A is right. "; after an equation that does not hold
        comes what its left side comes to. None unless exactly one of the two is right.
        """
        rated = [self._one(problem, steps, candidate) for candidate in (a, b)]
        if rated.count(True) != 1:
            return None
        label, right = ("A", a) if rated[0] else ("B", b)
        result = equations(right)[-1]
        worked = next((one for one in self.solutions[problem][0] if one.stated == result.stated and one.holds), result)
        told = [f"{name}: {checked(equations(text))}" for name, text in (("A", a), ("B", b))]
        return f"{worked}. {told[0]}. {told[1]}. {label} is right. "


def checked(found: Sequence[Equation]) -> str:
    """The equations of a step, each with whether it holds; otherwise what is right."""
    told = (f"{one}, " + ("yes" if one.holds else f"no, {written(one.value)}") for one in found)
    return "; ".join(told) or "no equation"


def answer_value(text: str) -> Fraction | None:
    """An answer as a number, without units; None of any other text."""
    found = re.fullmatch(rf"\s*\$?\s*(-?)\$?({NUMBER})\s*(?:%|[^\W\d]*)\.?\s*", text)
    return None if found is None else _number(found[2]) * (-1 if found[1] else 1)


def _one_operation(value: Fraction, known: set[Fraction]) -> Iterator[Fraction]:
    """What one operation makes of a value and a known number, in either order."""
    for other in known:
        yield from (value + other, value - other, other - value, value * other)
        yield from (one / two for one, two in ((value, other), (other, value)) if two)
