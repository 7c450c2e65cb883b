"""What makes an answer equal to a reference answer, as far as that needs no algebra, and what to ask where it does.

The answer and the reference answer are spelled alike (`notation`), taken apart (`structure`), and compared by parts: as
texts, as numbers (`numbers`), with their units (`words`). What is left are formulas; of them a question is made
that `psr.evaluation.algebra` answers. Knows neither boxes nor problems nor processes.
"""

import re
from dataclasses import dataclass

from psr.evaluation.notation import canonical
from psr.evaluation.numbers import number, same_in_bases, same_number
from psr.evaluation.questions import Question, all_of, matching
from psr.evaluation.structure import Shape, is_name, option, shape, ungrouped, without_name
from psr.evaluation.words import beside

MAX_DEPTH = 32  # nested brackets; the parser's recursion and its time grow with each level
MAX_DIGITS = 200  # of one number
MAX_EXPONENT = 10_000  # of a power of numbers, and of what a factorial is taken of
MAX_VALUES = 100  # side by side: each is compared with each

_TOWER = re.compile(r"(?:\^\s*[+-]?\s*[0-9]+\s*)+")
_FACTORIAL = re.compile(r"([0-9]+)\s*!")
_WORDS = re.compile(r'[a-zA-Z0-9: ,.\'"-]*"[a-zA-Z0-9: ,.\'"-]*')
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")


@dataclass(frozen=True)
class Rules:
    """What a problem asks for besides the value: a unit, and how far a number may be off."""

    unit: str = ""
    tolerance: float | None = None


def compare(answer: str, gold: str, rules: Rules) -> tuple[Question, str]:
    """The verdict or question on an answer, and what decides it: a word for the reader of the results."""
    if not answer or not gold:
        return False, "empty"
    given, asked = canonical(answer), canonical(gold)
    if given == asked:
        return True, "text"
    if rules.unit and asked and not beside(asked)[1]:
        asked += named_unit(rules.unit)
    if is_excessive(given):
        return False, "excessive"
    return same(given, asked, rules)


def named_unit(unit: str) -> str:
    """A unit as it stands after a value: "$cm^2$", "^{\\circ}", "minutes"."""
    spelled = canonical("1" + unit if unit.startswith("^") else f"1 {unit}").removeprefix("1")
    return spelled if '"' in spelled or spelled == "%" else f'"{spelled}"'


def same(given: str, asked: str, rules: Rules) -> tuple[Question, str]:
    """The verdict or question on two canonical texts, and what decides it."""
    if given == asked:
        return True, "text"
    if (verdict := same_in_bases(without_name(given)[0], without_name(asked)[0])) is not None:
        return verdict, "base"
    if (choice := option(given)) or option(asked):
        return _options(given, asked, choice, rules)
    one, other = shape(given), shape(asked)
    if one.kind == "value" and other.kind == "value":
        return _values(given, asked, rules)
    if one.kind == "set" and len(one.parts) == 1 and other.kind != "set":  # one value in braces
        return same(one.parts[0], asked, rules)
    if other.kind == "set" and len(other.parts) == 1 and one.kind != "set":
        return same(given, other.parts[0], rules)
    if one.kind == "value" and (bare := _bare(given)) != given:
        return same(bare, asked, rules)
    if other.kind == "value" and (bare := _bare(asked)) != asked:
        return same(given, bare, rules)
    if "value" in (one.kind, other.kind):
        regrouped = ungrouped(given)
        if one.kind == "value" and regrouped != given and other.kind in ("list", "set"):
            return same(regrouped, asked, rules)
        regrouped = ungrouped(asked)
        if other.kind == "value" and regrouped != asked and one.kind in ("list", "set"):
            return same(given, regrouped, rules)
        if one.name or other.name:  # an inequality that is not solved
            return _formulas(given, asked)
    return _parts(one, other, rules), "parts"


def _bare(text: str) -> str:
    """Without the name and the words around a value."""
    return beside(without_name(text)[0])[0]


def _options(given: str, asked: str, choice: tuple[str, str] | None, rules: Rules) -> tuple[Question, str]:
    """A choice that is given in full is right by its letter, or, where no letter is asked for, by its text."""
    wanted = option(asked)
    if choice and wanted:
        return choice[0] == wanted[0], "option"
    letter, text = choice or wanted or ("", "")
    plain = asked if choice else given
    if re.fullmatch('"?[A-J]"?', plain):
        return plain.strip('"') == letter, "option"
    return same(*((text, asked) if choice else (given, text)), rules)


def _parts(one: Shape, other: Shape, rules: Rules) -> Question:
    """The question on two structures. Orders count in tuples and intervals, and brackets do."""
    kinds = {one.kind, other.kind}
    if kinds == {"bracket"} or kinds == {"matrix"}:
        if one.ends != other.ends or (one.name and other.name and one.name != other.name):
            return False
        return _in_order(one, other, rules)
    if one.kind == "list" and (other.kind == "matrix" or (other.kind == "bracket" and other.ends == "()")):
        return _in_order(one, other, rules)  # a pair without its brackets
    if kinds == {"bracket", "matrix"} and {one.ends, other.ends} & {"()"} and "x1" in one.ends + other.ends:
        return _in_order(one, other, rules)  # a column is a vector
    if kinds <= {"list", "set", "union"}:
        return _in_any_order(one, other, rules)
    sets = {"union", "bracket", "set"}
    if "value" in kinds and kinds & sets and any(_is_set(some) for some in (one, other)):
        return ["equal", _latex(one), _latex(other)]
    return False


def _is_set(some: Shape) -> bool:
    return (
        some.kind == "value" and re.search(r"\\(?:mathbb|setminus|cap|backslash|emptyset)", some.parts[0]) is not None
    )


def _latex(some: Shape) -> str:
    if some.kind == "value":
        return some.parts[0]
    inner = (r"\cup " if some.kind == "union" else ",").join(some.parts)
    return inner if some.kind == "union" else f"{some.ends[0]}{inner}{some.ends[1]}" if some.ends else rf"\{{{inner}\}}"


def _in_order(one: Shape, other: Shape, rules: Rules) -> Question:
    if len(one.parts) != len(other.parts):
        return False
    return all_of([same(a, b, rules)[0] for a, b in zip(one.parts, other.parts, strict=True)])


def _in_any_order(one: Shape, other: Shape, rules: Rules) -> Question:
    """Each value by another one: "1,1,3" is not "1,3,3"."""
    if len(one.parts) != len(other.parts) or len(one.parts) > MAX_VALUES:
        return False
    if len(one.parts) == 1:
        return same(one.parts[0], other.parts[0], rules)[0]
    return matching([[same(a, b, rules)[0] for a in one.parts] for b in other.parts])


def _values(given: str, asked: str, rules: Rules) -> tuple[Question, str]:
    """Two single values: without names and words they are numbers, words or formulas."""
    (bare, name), (wanted, other_name) = without_name(given), without_name(asked)
    if name and other_name and name != other_name:
        return _formulas(given, asked)
    if other_name and not name and "=" in given:
        return _formulas(given, asked)
    if other_name and not name and not is_name(other_name):
        return _formulas(given, asked)  # an equation is asked for
    if shape(bare).kind != "value" or shape(wanted).kind != "value":
        return same(bare, wanted, rules) if (bare, wanted) != (given, asked) else (False, "parts")
    if _TRIGONOMETRY.search(bare):
        core, unit = bare, None
    else:
        core, unit = beside(bare)
    core_asked, unit_asked = (wanted, None) if _TRIGONOMETRY.search(wanted) else beside(wanted)
    percent = core.endswith("%") or core_asked.endswith("%")
    if (percent and (unit or unit_asked)) or (unit != unit_asked and _other_unit(bare, core, unit, unit_asked, rules)):
        return False, "unit"
    if (core, core_asked) != (given, asked) and (core == core_asked or shape(core).kind != "value"):
        return same(core, core_asked, rules)
    one, other = number(core), number(core_asked)
    if one is not None and other is not None:
        return same_number(one, other, rules.tolerance), "number"
    if _WORDS.fullmatch(core) or _WORDS.fullmatch(core_asked):
        return _plain_words(core) == _plain_words(core_asked), "words"
    return _formulas(core, core_asked)


def _other_unit(bare: str, core: str, unit: str | None, asked: str | None, rules: Rules) -> bool:
    """Whether the answer is in another unit. One that no problem asks for is let pass, unless it is another one."""
    if rules.unit and unit is None:
        return bare != core
    if unit is None or asked is None:
        return bool(rules.unit)
    # "units" stand for any; what they are of, lengths or areas, is said by their power.
    return not ("unit" in (unit.partition("^")[0], asked.partition("^")[0]) and unit[:4] != asked[:4])


def _plain_words(text: str) -> str:
    return text[:1] + re.sub("[\" .,'-]", "", text[1:]).lower()


def _formulas(one: str, other: str) -> tuple[Question, str]:
    one, other = (text.removesuffix("%") for text in (one, other))
    if '"' in one.replace('"degree"', "") or '"' in other.replace('"degree"', ""):
        return False, "words"
    return ["equal", one, other], "algebra"


def is_excessive(answer: str) -> bool:
    """Whether the answer is certain to cost more than it can be worth. What slips through still meets the timeout."""
    depth = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            return True
    if re.search(rf"[0-9]{{{MAX_DIGITS + 1}}}|!\s*!\s*!", answer):
        return True
    # Opening brackets and closing braces say nothing about the size: 9^{9^{9}} and 9^(9^9) both read 9^9^9.
    flat = re.sub(r"[{}(]", " ", answer)
    if any(int(digits) > MAX_EXPONENT for digits in _FACTORIAL.findall(flat)):
        return True
    for tower in _TOWER.findall(flat):
        exponent = 1
        for base in map(int, reversed(re.findall(r"[0-9]+", tower))):
            # The power is at least 2 to this product: computing it first would be what this check is to prevent.
            if (base.bit_length() - 1) * exponent > MAX_EXPONENT.bit_length():
                return True
            exponent = base**exponent
            if exponent > MAX_EXPONENT:
                return True
    return False
