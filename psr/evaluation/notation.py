r"""One way of writing an answer: LaTeX, unicode and plain text that mean the same become the same text.

The rules of `canonical` run in their order; none of them changes a value. What they leave: mathematics without spaces,
words in double quotes (`18"dollar"`), `’` where a comma or a thin space groups digits by thousands (`11’232`), `,` and
`;` only where they separate values. Knows spelling; does not know numbers, units or what is equal.
"""

import re
from functools import lru_cache

from psr.evaluation.words import quoted_words

GROUP = "’"
"""Between the thousands of a number. Not dropped: beside a list, `100,200` may have been meant as one."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
_VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
_SYMBOLS = {
    **{"∞": "\\infty ", "π": "\\pi ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "λ": "\\lambda "},
    **{"×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "∗": "*", "÷": "/", "⁄": "/", "∕": "/"},
    **{"−": "-", "–": "-", "—": "-", "‐": "-", "±": "\\pm ", "∓": "\\mp ", "≈": "\\approx ", "≠": "\\ne "},
    **{"≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "∈": "\\in ", "∪": "\\cup ", "∩": "\\cap "},
    **{"∅": "\\emptyset ", "°": "\\degree ", "º": "\\degree ", "ℝ": "\\mathbb{R}", "…": "\\dots ", "′": "'", "％": "%"},
    **{"€": '"euro"', "£": '"pound"', "¥": '"yen"', "₹": '"rupee"', "¢": '"cent"', "。": ".", "、": ", "},
    **{"\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2003": " ", "\u3000": " ", "\u200b": "", "\ufeff": "", "’": "'"},
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5E) if chr(code) != "％"},
}
_UNICODE = str.maketrans(_SYMBOLS)

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|emph)\s*\{([^{}]*)\}")
_FONT = re.compile(
    r"\\(mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|pmb|operatorname\*?|displaystyle|textstyle)\s*"
    r"\{([^{}]*)\}"
)
_TWICE = re.compile(r"\\\\(?=[a-zA-Z]{2})")  # \\frac, of a text that was escaped once too often
_BOXES = re.compile(r"\\(?:boxed|fbox|underline|ensuremath)\s*(?=\{)")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|lg|exp|gcd|lcm|max|min|mod|det|dim"
_ARGUMENT = r"\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\[a-zA-Z]+|[0-9a-zA-Z])"  # of \frac: a group or one token
_FRACTION = re.compile(r"\\[dtc]?frac(?![a-zA-Z])" + _ARGUMENT + _ARGUMENT)
_ROOT = re.compile(r"\\sqrt(?![a-zA-Z])\s*(\[[^\]]*\])?" + _ARGUMENT)
_PLAIN_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt(?=[({])|√\s*(?=[({])|\\sqrt\s*(?=\()")
_BARE_ROOT = re.compile(r"√\s*([0-9.]+|\\?[a-zA-Z]+)")
_THOUSANDS = re.compile(rf"(?<![\w.,{GROUP}])([1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+)(?!,?[0-9])")

# Each rule: what it finds, what it puts there, in the order in which they run.
_DELIMITERS = [
    (r"^([^$]*)(?<!\\)\$(?=\s*-?[0-9.])([^$]*)$", r"\1\\$\2"),  # "$5": a delimiter does not come alone
    (r"(?<!\\)\$(\s*(?:,|;|and|or)\s*)\$", r"\1 "),  # "$69$,$84$" are two values; the space says so of the comma
    (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", ""),  # a delimiter is no part of the formula
]
_SPACING = [
    (r"\{,\}|,\s*\\!|(?<=[0-9])\\[,!]\s*(?=[0-9]{3}(?![0-9]))", GROUP),  # written where digits are grouped, only
    (rf"(?<![0-9]){GROUP}|{GROUP}(?![0-9]{{3}})", ","),  # and a comma where they are not
    (r"\\!|\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?|\\(?:displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
    (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\\(?:thin|med|thick|en)space(?![a-zA-Z])|\\hspace\{[^{}]*\}|&nbsp;", " "),
]
_NAMES = [
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])", '"degree"'),
    (r'"degree"\s*\\?"?([CF])(?![a-zA-Z])"?', r'"degree \1"'),
    (r"\\\$|\\dollar(?![a-zA-Z])", '"dollar"'),
    (r"\\euro(?![a-zA-Z])", '"euro"'),
    (r"\\pounds(?![a-zA-Z])", '"pound"'),
    (r"\\%", "%"),
    (r"\\(?:leqslant|leqq|leq)(?![a-zA-Z])|<=", r"\\le "),
    (r"\\(?:geqslant|geqq|geq)(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\neq(?![a-zA-Z])", r"\\ne "),
    (r"\\lt(?![a-zA-Z])", "<"),
    (r"\\gt(?![a-zA-Z])", ">"),
    (r"\\(?:times|ast)(?![a-zA-Z])|\*", r"\\cdot "),
    (r"\\div(?![a-zA-Z])", "/"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\\(?:[lr]?vert|mid)(?![a-zA-Z])", "|"),
    (r"\\(?:varnothing|O)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
    (r"\\infin(?![a-zA-Z])", r"\\infty "),
    (r"\\[lc]?dots(?![a-zA-Z])", r"\\dots "),
    (r"\\(?:colon|mathbin|mathrel)(?![a-zA-Z])", ":"),
    (r"\\begin\{[bp]?matrix\}|\\begin\{array\}(?:\{[^{}]*\})?", r"\\begin{pmatrix}"),
    (r"\\end\{(?:[bp]?matrix|array)\}", r"\\end{pmatrix}"),
    (rf"\\(?=(?:{_FUNCTIONS})(?![a-zA-Z]))|(?<![\\a-zA-Z])(?=(?:{_FUNCTIONS})(?:\(|_|\\))", r"\\"),
    (r"(?<![\\a-zA-Z])(?=(?:pi|infty)(?![a-zA-Z]))", r"\\"),  # "2pi"
    (r"(?<![a-zA-Z\\])(?:infinity|inf)(?![a-zA-Z])", r"\\infty "),
]
_SCRIPTS = [
    (
        r"([\^_])\s*(-?[0-9]+(?:\.[0-9]+)?|[a-zA-Z]|\\[a-zA-Z]+)(?!\s*[{\[])",
        r"\1{\2}",
    ),  # x^2 and x^{2}; 2^10 is meant as 2^{10}
    (r"\^\s*\(([^()]*)\)", r"^{\1}"),
    (r"(?<=[0-9])[eE]([+-]?)0*([0-9]+)(?![0-9a-zA-Z])", r"\\cdot 10^{\1\2}"),  # 1e3
]
_ENDS = [
    (r"^(?:\s|=|:|\\approx|\\simeq|\\sim|\\doteq|\\therefore|\\Rightarrow|\\implies|\+(?=[0-9.\\a-zA-Z]))+", ""),
    (r"(?<=[^\s.])[\s.;,:]+$", ""),  # a sentence's stop is not the answer's
]
_TIGHT = [
    (r'"/([hs])(?![a-zA-Z])', r'"/"\1"'),  # km/h
    (r'"\s+"|""', " "),  # neighbouring words are one text
    (r"(?<=[(\[,;=<>|&{])\s*\+(?=\s*[0-9\\a-zA-Z])", ""),  # (+2, +\infty)
    (r"\s+", " "),
    (r"(?<![0-9a-zA-Z]) | (?![0-9a-zA-Z])", ""),
    (r"(?<=[0-9]) (?=[a-zA-Z])", ""),
    (r"(?<![a-zA-Z\\])([a-zA-Z]) (?=[a-zA-Z](?![a-zA-Z]))", r"\1"),  # "x y" is xy, "\pi r" is not \pir
]


def _compiled(rules: list[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), new) for pattern, new in rules]


_FIRST, _SECOND = _compiled([*_DELIMITERS, *_SPACING]), _compiled(_NAMES)
_THIRD, _LAST = _compiled(_SCRIPTS), _compiled([*_ENDS, *_TIGHT])


@lru_cache(maxsize=1 << 14)
def canonical(text: str) -> str:
    """The answer's one spelling; texts of the same spelling have the same value."""
    if "\\begin" not in text:  # where it would end a row
        text = _TWICE.sub(r"\\", text)
    text = _unicode(text)
    text = _apply(_FIRST, text)
    text = _fonts(text)  # before words are looked for: what stands in \text is one
    text = _apply(_SECOND, text)
    text = _arguments(text)  # \frac12: before braces are dropped that only look redundant
    text = _apply(_THIRD, text)
    text = _THOUSANDS.sub(_group_outside_of_brackets, _without_braces(text))
    text = quoted_words(text)
    text = _apply(_LAST, text)
    return _unwrapped(text)


def _apply(rules: list[tuple[re.Pattern[str], str]], text: str) -> str:
    for pattern, new in rules:
        text = pattern.sub(new, text)
    return text


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda found: "_{" + found[0].translate(_SUBSCRIPTS) + "}", text)
    for character, fraction in _VULGAR.items():
        text = text.replace(character, " \\frac{{{}}}{{{}}}".format(*fraction.split("/")))
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    return text.translate(_UNICODE)


def _fonts(text: str) -> str:
    r"""Fonts say nothing, except that letters in \text are words, and letters in \mathrm may be a unit."""
    text = _BOXES.sub("", text)
    for _ in range(4):  # nested ones, from the inside
        fonts = _FONT.sub(_font, _TEXT.sub(_text, text))
        if fonts == text:
            break
        text = fonts
    return text


def _text(found: re.Match[str]) -> str:
    content = re.sub(r"\s*[,;]\s*", ", ", found[1])
    return " " + re.sub(r"(?<![\\a-zA-Z\"])[a-zA-Z][a-zA-Z'.-]*(?: +[a-zA-Z][a-zA-Z'.-]*)*", _quoted, content) + " "


def _quoted(found: re.Match[str]) -> str:
    return f'"{found[0]}"'


def _font(found: re.Match[str]) -> str:
    kind, content = found.groups()
    name = content.strip()
    if re.fullmatch(_FUNCTIONS, name) and not (name == "min" and kind == "mathrm"):
        return f"\\{name} "
    after_number = re.search(r"[0-9}]\s*$", found.string[: found.start()]) is not None
    if kind == "mathrm" and (len(name) > 1 or (after_number and name not in "iejd") or content.startswith(" ")):
        return re.sub(r"[a-zA-Z]+(?: +[a-zA-Z]+)*", _quoted, content)
    return " " + content + " " if name else ""


def _arguments(text: str) -> str:
    text = _bracketed_roots(_PLAIN_ROOT.sub(r"\\sqrt", text))
    return _FRACTION.sub(_braced, _ROOT.sub(_braced, text))


def _braced(found: re.Match[str]) -> str:
    r"""\frac12 as \frac{1}{2}, and so inside its arguments."""
    name = r"\sqrt" if found[0].startswith(r"\sqrt") else r"\frac"
    groups = [one for one in found.groups() if one]
    return name + "".join(_argument(one) for one in groups)


def _argument(group: str) -> str:
    if group[0] == "[":
        return group
    return "{" + (_arguments(group[1:-1]).strip() if group[0] == "{" else group) + "}"


def _bracketed_roots(text: str) -> str:
    r"""sqrt(3) as \sqrt{3}."""
    while (place := text.find(r"\sqrt(")) >= 0:
        depth = 0
        for end in range(place + 5, len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                text = f"{text[:place]}\\sqrt{{{text[place + 6 : end]}}}{text[end + 1 :]}"
                break
        else:
            return text
    return text


def _without_braces(text: str) -> str:
    """Without the braces that are nobody's argument: {a}, x={11}, 3{x}."""
    if "{" not in text:
        return text
    kept, open_ = list(text), []
    for place, character in enumerate(text):
        before = text[place - 1] if place else " "
        if before == "\\" or character not in "{}":
            continue
        if character == "{":
            open_.append(None if before in "^_}]" or before.isalpha() else place)
        elif open_ and (start := open_.pop()) is not None:
            kept[start] = kept[place] = ""
    return "".join(kept)


def _group_outside_of_brackets(found: re.Match[str]) -> str:
    """(1,234) is a pair, and \\{1,234\\} two values, where 1,234 is one number."""
    before = re.sub(r"\\\{", "(", re.sub(r"\\\}", ")", found.string[: found.start()]))
    inside = sum(before.count(one) for one in "([") > sum(before.count(one) for one in ")]")
    return found[0] if inside else found[0].replace(",", GROUP)


def _unwrapped(text: str) -> str:
    """Without brackets around a single value, as in "(5)" and "(A)"; and a single letter is no word."""
    text = re.sub(r'^\(("?[^"(),;\[\]]+"?)\)$', r"\1", text)
    return re.sub(r'^"([a-zA-Z])"$', r"\1", text)
