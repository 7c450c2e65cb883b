r"""Ways of writing a reference answer otherwise: those that keep its value, and those that change it.

Each takes an answer as it stands in a benchmark, and returns the rewritten one, or None where it has nothing to do, or
where it would not do what its table says: a zero has no other sign, and (2, 2) no other order. Knows nothing of how psr
compares answers.
"""

import re
from collections.abc import Callable
from fractions import Fraction

Rewrite = Callable[[str], str | None]

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+")
FRACTION = re.compile(r"(-?)\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
PAIR = re.compile(r"(?:\\left)?([(\[])([^()\[\]]*)(?:\\right)?([)\]])")
LIST = re.compile(r"[^\\{}()\[\]\"]+(?:\\frac\{[0-9]+\}\{[0-9]+\}|\\sqrt\{[0-9]+\})?[^\\{}()\[\]\"]*")
WORD = re.compile(r"\\text\{([A-Za-z][a-z]+)\}|([A-Za-z][a-z]+)")
BASE = re.compile(r"([0-9]+)_\{?([0-9]+)\}?")
OPTION = re.compile(r"\\text\{\(?([A-E])\)?\}|\(?([A-E])\)?")
BASES = {
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    6: "six",
    7: "seven",
    8: "eight",
    9: "nine",
    11: "eleven",
    12: "twelve",
}


def number(answer: str) -> str | None:
    return answer if INTEGER.fullmatch(answer) or DECIMAL.fullmatch(answer) else None


def value(answer: str) -> bool:
    """Whether it is a single value that an equation can have on its right."""
    return not re.search(
        r"[=<>,]|\\[lg]eq?|\\in(?![a-z])|text|[a-zA-Z]{4}|\\pm|_|\$|:",
        answer.replace("\\frac", "").replace("\\sqrt", ""),
    )


def on(condition: Callable[[str], object], change: Callable[[str], str | None]) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        new = change(answer) if condition(answer) else None
        return None if new == answer else new

    return rewrite


def swap(pattern: str, new: str | Callable[[re.Match[str]], str]) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        changed = re.sub(pattern, new, answer)
        return None if changed == answer else changed

    return rewrite


def fraction(change: Callable[[str, int, int], str | None]) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        match = FRACTION.fullmatch(answer)
        return change(match[1], int(match[2]), int(match[3])) if match and int(match[3]) else None

    return rewrite


def large(grouping: str) -> Rewrite:
    return on(
        lambda answer: INTEGER.fullmatch(answer) and len(answer.strip("-")) > 3,
        lambda answer: f"{int(answer):,}".replace(",", grouping),
    )


def listed(answer: str) -> list[str] | None:
    """The values of a plain list: no brackets, no words, and commas between values only."""
    if not re.search(", ?", answer) or re.search(r"[()\[\]\"=$]|\\[{}]|text|\\!|\{,\}|[a-zA-Z]{5}|\\pm", answer):
        return None
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", answer):
        return None
    values = re.split(r",\s*(?:\\ )?", answer)
    return [one.strip() for one in values] if all(one.strip() for one in values) else None


def listing(change: Callable[[list[str]], str | None]) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        values = listed(answer)
        new = change(values) if values else None
        return None if new == answer else new

    return rewrite


def pair(change: Callable[[str, list[str], str], str | None]) -> Rewrite:
    """On a tuple or an interval."""

    def rewrite(answer: str) -> str | None:
        match = PAIR.fullmatch(answer.replace("\\left", "").replace("\\right", ""))
        entries = [one.strip() for one in match[2].split(",")] if match else []
        return change(match[1], entries, match[3]) if match and len(entries) > 1 and all(entries) else None

    return rewrite


def infinite(entry: str) -> bool:
    return "infty" in entry


def inequality(opening: str, entries: list[str], closing: str) -> str | None:
    """What is known to be an interval as an inequality: a pair of numbers in round brackets may be a point."""
    if len(entries) != 2 or any(re.search("(?<![a-z\\\\])[a-z](?![a-z])", one) for one in entries):
        return None
    low, high = entries
    if not (infinite(low) or infinite(high) or "[" in opening or "]" in closing) or (infinite(low) and infinite(high)):
        return None
    left, right = "<" if opening == "(" else "\\le ", "<" if closing == ")" else "\\le "
    if infinite(low):
        return f"x{right}{high}"
    if infinite(high):
        return f"x>{low}" if opening == "(" else rf"x\ge {low}"
    return f"{low}{left}x{right}{high}"


def union_of_inequalities(answer: str) -> str | None:
    members = re.split(r"\s*\\cup\s*", answer.replace("\\left", "").replace("\\right", ""))
    if len(members) < 2:
        return None
    parts = [pair(inequality)(member.strip()) for member in members]
    return r" \text{ or } ".join(part for part in parts if part) if all(parts) else None


def mixed(sign: str, top: int, bottom: int, shape: str) -> str | None:
    whole, rest = divmod(top, bottom)
    return sign + shape % (whole, rest, bottom) if whole and rest else None


def finite(sign: str, top: int, bottom: int) -> str | None:
    for places in range(1, 7):
        if top * 10**places % bottom == 0 and top % bottom:
            digits = str(top * 10**places // bottom).rjust(places + 1, "0")
            return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return None


def repeating(sign: str, top: int, bottom: int) -> str | None:
    """A purely periodic decimal with a period of six digits at most."""
    (whole, rest), lowest = divmod(top, bottom), Fraction(top, bottom).denominator
    for period in range(1, 7):
        if rest and (10**period - 1) % lowest == 0:
            return rf"{sign}{whole}.\overline{{{rest * (10**period - 1) // bottom:0{period}d}}}"
    return None


def scientific(answer: str, shape: str) -> str | None:
    digits = answer.lstrip("-").rstrip("0")
    if not INTEGER.fullmatch(answer) or len(answer.lstrip("-")) < 4 or not digits:
        return None
    written = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
    return ("-" if answer[0] == "-" else "") + shape % (written, len(answer.lstrip("-")) - 1)


def superscripts(answer: str) -> str | None:
    table = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return swap(r"\^(?:\{([0-9]+)\}|([0-9]))", lambda found: (found[1] or found[2]).translate(table))(answer)


def word(shape: str) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        match = WORD.fullmatch(answer)
        new = shape % (match[1] or match[2]) if match else None
        return None if new == answer else new

    return rewrite


def base(change: Callable[[str, int], str | None]) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        match = BASE.fullmatch(answer)
        new = change(match[1], int(match[2])) if match else None
        return None if new == answer else new

    return rewrite


def option(shape: str) -> Rewrite:
    def rewrite(answer: str) -> str | None:
        match = OPTION.fullmatch(answer)
        new = shape % (match[1] or match[2]) if match else None
        return None if new == answer else new

    return rewrite


def plus_minus(answer: str) -> str | None:
    if answer.count("\\pm") != 1 or re.search("[(,]", answer):
        return None
    before, after = answer.split("\\pm")
    return f"{before}-{after}, {before + '+' if before.strip() else ''}{after}"


def formula(answer: str) -> bool:
    """A formula without relations, lists or words, that may stand inside of another one."""
    return (
        value(answer)
        and re.search(r"[0-9a-zA-Z]", answer) is not None
        and not re.search(r"\\text|%|\\circ|\\infty|begin|!|\\cup|[()\[\]].*[()\[\]].*/", answer)
        and not re.search(r"[a-zA-Z]{2,}|\.$", re.sub(r"\\[a-zA-Z]+", "", answer))
        and "(" not in answer[:1] + answer[-1:]
    )


KEEPING: dict[str, Rewrite] = {
    "as it is": lambda answer: answer,
    "$...$": on(lambda a: "$" not in a, lambda a: f"${a}$"),
    r"\(...\)": on(lambda a: "$" not in a, lambda a: rf"\({a}\)"),
    r"\displaystyle": lambda a: rf"\displaystyle {a}",
    "{...}": lambda a: f"{{{a}}}",
    "a box in the box": lambda a: rf"\boxed{{{a}}}",
    "a stop": lambda a: f"{a}.",
    "a space before and after": lambda a: f" {a} ",
    r"\, at the end": lambda a: rf"{a}\,",
    r"~ at the start": lambda a: f"~{a}",
    "x = ...": on(lambda a: value(a) and "x" not in a, lambda a: f"x = {a}"),
    "f(2) = ...": on(value, lambda a: f"f(2) = {a}"),
    "= ...": on(value, lambda a: f"= {a}"),
    r"\text{Total} = ...": on(number, lambda a: rf"\text{{Total}} = {a}"),
    r"\mathbf": on(number, lambda a: rf"\mathbf{{{a}}}"),
    r"\approx of a number": on(number, lambda a: rf"\approx {a}"),
    "+5": on(lambda a: number(a) and a[0] != "-", lambda a: f"+{a}"),
    "(5)": on(number, lambda a: f"({a})"),
    "1,234": large(","),
    "1{,}234": large("{,}"),
    r"1\,234": large(r"\,"),
    r"1,\!234": large(r",\!"),
    "x = 1,234": on(large(","), lambda a: f"x = {int(a):,}"),
    "5.0": on(INTEGER.fullmatch, lambda a: f"{a}.0"),
    "5.00": on(INTEGER.fullmatch, lambda a: f"{a}.00"),
    "5.50": on(DECIMAL.fullmatch, lambda a: f"{a}0"),
    ".5": swap(r"^(-?)0\.", r"\1."),
    "1.2e3": lambda a: scientific(a, "%se%d"),
    r"1.2\times10^{3}": lambda a: scientific(a, r"%s\times10^{%d}"),
    r"1.2 \cdot 10^3": lambda a: scientific(a, r"%s \cdot 10^%d"),
    r"\frac{2n}{2}": on(INTEGER.fullmatch, lambda a: rf"\frac{{{2 * int(a)}}}{{2}}"),
    "a sum: n-1+1": on(INTEGER.fullmatch, lambda a: f"{int(a) - 1}+1"),
    "1/2": fraction(lambda s, a, b: f"{s}{a}/{b}"),
    r"\dfrac": swap(r"\\frac", r"\\dfrac"),
    r"\tfrac": swap(r"\\[d]?frac", r"\\tfrac"),
    r"\frac12": fraction(lambda s, a, b: rf"{s}\frac{a}{b}" if a < 10 and b < 10 else None),
    r"\frac{2a}{2b}": fraction(lambda s, a, b: rf"{s}\frac{{{2 * a}}}{{{2 * b}}}"),
    r"\frac{-a}{b}": fraction(lambda s, a, b: rf"\frac{{-{a}}}{{{b}}}" if s else None),
    r"\frac{a}{-b}": fraction(lambda s, a, b: rf"\frac{{{a}}}{{-{b}}}" if s else None),
    r"1\frac{1}{2}": fraction(lambda s, a, b: mixed(s, a, b, r"%d\frac{%d}{%d}")),
    "1 1/2": fraction(lambda s, a, b: mixed(s, a, b, "%d %d/%d")),
    "a fraction as a decimal": fraction(finite),
    r"0.\overline{3}": fraction(repeating),
    r"5\% for 5%, and so on": swap(r"\\%", "%"),
    "percent without its sign": swap(r"\\?%$", ""),
    r"5.0\%": swap(r"^([0-9]+)\\?%$", r"\1.0\\%"),
    r"5\,\%": swap(r"^([0-9.]+)\\?%$", r"\1\\,\\%"),
    r"5\text{ apples}": on(number, lambda a: rf"{a}\text{{ apples}}"),
    "5 apples": on(number, lambda a: f"{a} apples"),
    "5 dollars": on(number, lambda a: f"{a} dollars"),
    r"\$5": on(lambda a: number(a) and a[0] != "-", lambda a: rf"\${a}"),
    "€5": on(lambda a: number(a) and a[0] != "-", lambda a: f"€{a}"),
    r"5~\text{cm}": on(number, lambda a: rf"{a}~\text{{cm}}"),
    r"5 \mathrm{~kg}": on(number, lambda a: rf"{a} \mathrm{{~kg}}"),
    r"5\text{ cm}^2": on(number, lambda a: rf"{a}\text{{ cm}}^2"),
    "5 km/h": on(number, lambda a: f"{a} km/h"),
    r"5^\circ": on(number, lambda a: rf"{a}^\circ"),
    "5°": on(number, lambda a: f"{a}°"),
    "° for a circle": swap(r"\^\{?\\circ\}?", "°"),
    "a unit left away": swap(r"^([0-9.]+)\s*(?:\\text\{[^{}.]*\}|\^\{?\\circ\}?)$", r"\1"),
    "− for a minus": swap("-", "−"),
    "√": swap(r"\\sqrt\{([^{}]*)\}", r"√(\1)"),
    "sqrt(3)": swap(r"\\sqrt\{([^{}]*)\}", r" sqrt(\1)"),
    "π": swap(r"\\pi(?![a-z])\s*", "π"),
    "∞": swap(r"\\infty(?![a-z])\s*", "∞"),
    "x²": superscripts,
    "½": swap(r"^\\[dt]?frac\{1\}\{2\}$", "½"),
    r"x^{2} for x^2": swap(r"\^([0-9a-z])(?![0-9])", r"^{\1}"),
    r"\cdot before a root": swap(r"(?<=[0-9}])\s*(?=\\sqrt|\\pi)", r" \\cdot "),
    r"\left( \right)": pair(lambda o, e, c: rf"\left{o} {', '.join(e)} \right{c}"),
    r"\big( \big)": pair(lambda o, e, c: rf"\big{o}{', '.join(e)}\big{c}"),
    r"(1,\,2)": pair(lambda o, e, c: o + r",\,".join(e) + c),
    r"(1,~2)": pair(lambda o, e, c: o + ",~".join(e) + c),
    "(1,2) without spaces": pair(lambda o, e, c: o + ",".join(e) + c),
    r"1,\;2": listing(lambda values: r",\;".join(values)),
    r"1,\quad 2": listing(lambda values: r",\quad ".join(values)),
    "a list in another order": listing(lambda values: ", ".join(reversed(values))),
    r"1 \text{ and } 2": listing(lambda values: r" \text{ and } ".join(values)),
    "1 or 2": listing(lambda values: " or ".join(values)),
    "1; 2": listing(lambda values: "; ".join(values)),
    r"\{1, 2\}": listing(lambda v: rf"\{{{', '.join(v)}\}}" if len(set(v)) == len(v) else None),
    r"x \in \{1, 2\}": listing(
        lambda v: rf"x \in \{{{', '.join(v)}\}}" if len(set(v)) == len(v) and "x" not in str(v) else None
    ),
    r"x=1\;\text{or}\;x=2": listing(
        lambda v: r"\;\text{or}\;".join(f"x={one}" for one in v) if "x" not in str(v) else None
    ),
    r"both values of \pm": plus_minus,
    "±": swap(r"\\pm\s*", "±"),
    "an interval as an inequality": pair(inequality),
    "a union as inequalities": union_of_inequalities,
    r"\bmatrix": swap("pmatrix", "bmatrix"),
    "(1011)_2": base(lambda digits, b: f"({digits})_{{{b}}}"),
    r"1011_{\text{two}}": base(lambda digits, b: rf"{digits}_{{\text{{{BASES[b]}}}}}" if b in BASES else None),
    "1011_{2}": base(lambda digits, b: f"{digits}_{{{b}}}"),
    r"\textbf{(A)}": option(r"\textbf{(%s)}"),
    r"\text{A}": option(r"\text{%s}"),
    "A.": option("%s."),
    r"\text{(A) }5": option(r"\text{(%s) }5"),
    "a word as a text": word(r"\text{%s}"),
    "a word in bold": word(r"\textbf{%s}"),
    "a word bare": word("%s"),
    "a word with a small letter": on(
        WORD.fullmatch, lambda a: re.sub(r"[A-Z](?=[a-z])", lambda found: found[0].lower(), a)
    ),
    r"\mathrm{i}": on(lambda a: re.fullmatch(r"[-+0-9 i]*", a) and "i" in a, lambda a: a.replace("i", r"\mathrm{i}")),
    r"\frac{2(...)}{2}": on(formula, lambda a: rf"\frac{{2({a})}}{{2}}"),
    r"... + 1 - 1": on(formula, lambda a: f"{a} + 1 - 1"),
    "both sides of a sum": swap(
        r"^([0-9]+)\s*([+-])\s*([0-9]*\\sqrt\{[0-9]+\})$", lambda f: f"{'-' if f[2] == '-' else ''}{f[3]}+{f[1]}"
    ),
    "text as it is, spaced": swap(r"(?<=[0-9])\s*([+-])\s*(?=[0-9\\])", r" \1 "),
}
"""Rewrites that leave the value as it is, by what they write."""


def next_digit(answer: str, place: int) -> str | None:
    """The answer with its first (0) or last (-1) digit one higher."""
    digits = [match.start() for match in re.finditer("[0-9]", answer)]
    if not digits:
        return None
    at = digits[place]
    return answer[:at] + str((int(answer[at]) + 1) % 10) + answer[at + 1 :]


def other_sign(answer: str) -> str | None:
    if (
        not re.search("[1-9]|(?<![a-zA-Z])[a-z](?![a-z])", answer)
        or not value(answer)
        or "infty" in answer
        or "%" in answer
    ):
        return None
    if re.search(r"(?<![\^{(])[+-]", answer[1:]) or "begin" in answer or answer[0] in "([":
        return None
    return answer[1:] if answer.startswith("-") else f"-{answer}"


def other_bracket(opening: str, entries: list[str], closing: str) -> str | None:
    if len(entries) != 2:
        return None
    if not infinite(entries[1]):
        return f"{opening}{', '.join(entries)}{']' if closing == ')' else ')'}"
    return None if infinite(entries[0]) else f"{'[' if opening == '(' else '('}{', '.join(entries)}{closing}"


def whole(entry: str) -> bool:
    return INTEGER.fullmatch(entry) is not None


CHANGING: dict[str, Rewrite] = {
    "the sign": other_sign,
    "the first digit": on(lambda a: not BASE.fullmatch(a), lambda a: next_digit(a, 0)),
    "the last digit": on(
        lambda a: not BASE.fullmatch(a) and not re.search(r"\.[0-9]*0$", a), lambda a: next_digit(a, -1)
    ),
    "a digit more": on(lambda a: number(a) and not a.endswith("0"), lambda a: f"{a}1"),
    "ten times as much": on(lambda a: INTEGER.fullmatch(a) and int(a), lambda a: f"{a}0"),
    "a hundred times as much, in percent": on(lambda a: INTEGER.fullmatch(a) and int(a) > 1, lambda a: rf"{a}00\%"),
    "the point moved": on(
        lambda a: DECIMAL.fullmatch(a) and float(a),
        lambda a: a[: a.index(".")] + a[a.index(".") + 1] + "." + a[a.index(".") + 2 :],
    ),
    "a digit of a small number": swap(
        r"^0\.0[0-9]*?([1-9])$", lambda found: found[0][:-1] + str((int(found[1]) + 1) % 10)
    ),
    "the exponent": swap(r"\^\{?([1-9])\}?(?![0-9])", lambda found: f"^{{{int(found[1]) + 1}}}"),
    "the base": base(lambda digits, b: f"{digits}_{{{b + 1}}}" if len(digits) > 1 else None),
    "a digit in its base": base(lambda d, b: f"{d[:-1]}{(int(d[-1]) + 1) % b}_{b}"),
    "numerator for denominator": fraction(lambda s, a, b: rf"{s}\frac{{{b}}}{{{a}}}" if a != b and a else None),
    "the numerator": fraction(lambda s, a, b: rf"{s}\frac{{{a + 1}}}{{{b}}}"),
    "the denominator": fraction(lambda s, a, b: rf"{s}\frac{{{a}}}{{{b + 1}}}" if a else None),
    "a mixed number's whole": fraction(lambda s, a, b: mixed(s, a + b, b, r"%d\frac{%d}{%d}")),
    "the fraction turned to a product": fraction(lambda s, a, b: f"{s}{a * b}" if b > 1 and a else None),
    "the order of a pair": pair(lambda o, e, c: f"{o}{', '.join(reversed(e))}{c}" if e != e[::-1] else None),
    "an entry of a pair": pair(
        lambda o, e, c: f"{o}{', '.join([*e[:-1], str(int(e[-1]) + 1)])}{c}" if whole(e[-1]) else None
    ),
    "an entry less": pair(lambda o, e, c: f"{o}{', '.join(e[:-1])}{c}" if len(e) > 2 else None),
    "an open for a closed end": pair(other_bracket),
    "braces for brackets": pair(lambda o, e, c: rf"\{{{', '.join(e)}\}}"),
    "an inequality's other side": pair(
        lambda o, e, c: swap("[<>]", lambda f: {"<": ">", ">": "<"}[f[0]])(inequality(o, e, c) or "")
    ),
    "a value less": listing(lambda values: ", ".join(values[:-1])),
    "a value more": listing(lambda values: ", ".join([*values, "98765"])),
    "a value twice": listing(lambda values: ", ".join([*values, values[0]])),
    "a value thrice for one": on(number, lambda a: f"{a}, {a}, {a}"),
    "two values for one": on(INTEGER.fullmatch, lambda a: f"{a} or {int(a) + 1}"),
    "another number named first": on(INTEGER.fullmatch, lambda a: f"not {a}"),
    "a variable beside it": on(number, lambda a: f"{a}m" if a != "0" else None),
    "a variable in text beside it": on(number, lambda a: f"{a}x" if a != "0" else None),
    "another variable": swap(r"(?<![a-zA-Z\\{])n(?![a-zA-Z])", "q"),
    "millions": on(lambda a: INTEGER.fullmatch(a) and int(a), lambda a: f"{a} million"),
    "squared": on(lambda a: INTEGER.fullmatch(a) and abs(int(a)) > 1, lambda a: f"{a}^2"),
    r"\pi left away": swap(r"(?<=[0-9])\s*\\pi$", ""),
    "what is under the root": swap(r"\\sqrt\{([0-9]+)\}", lambda found: rf"\sqrt{{{int(found[1]) + 1}}}"),
    "the root left away": swap(r"\\sqrt\{([2-9]|[1-9][0-9]+)\}", r"\1"),
    "the conjugate": on(
        lambda a: re.fullmatch(r"-?[0-9]+\s*[+-]\s*[0-9]*i", a),
        lambda a: a[0] + a[1:].translate(str.maketrans("+-", "-+")),
    ),
    "one more": on(formula, lambda a: f"{a} + 1"),
    "twice as much": on(lambda a: formula(a) and a != "0", lambda a: rf"2 \cdot ({a})"),
    "another word": word("not %s"),
    "another word in its place": on(WORD.fullmatch, lambda a: r"\text{window}"),
    "another option": on(OPTION.fullmatch, lambda a: rf"\text{{{'A' if 'A' not in a else 'B'}}}"),
    "another option with its text": on(OPTION.fullmatch, lambda a: rf"\textbf{{({'A' if 'A' not in a else 'B'})}}\ 5"),
    "nothing": lambda a: "",
    "infinity": on(lambda a: "infty" not in a, lambda a: r"\infty"),
}
"""Rewrites that change the value, by what they change."""

NAMING_A_UNIT = [
    kind for kind in KEEPING if re.match(r"\\?[$€]?5(?:$|[~ °^]|\\text| \\mathrm)", kind) or kind == "5 apples"
]
UNITS = ["km", "hours", r"\text{ kg}", r"\mathrm{~mm}", "days", r"\$", "apples", r"^\circ", r"\text{ m}^3", "mph"]
"""Of which one replaces the unit that a problem asks for."""
