r"""Text with LaTeX as HTML with MathML; formulas that cannot be converted remain as text.

Models write $...$, $$...$$, \(...\), \[...\], and \boxed{...} outside of any of them. All text is escaped. The
converter's output is copied element by element against a list of harmless ones, so that a formula cannot bring links,
scripts or event handlers onto the page.
"""

import re
from functools import lru_cache
from html import escape, unescape
from xml.etree.ElementTree import Element, SubElement, tostring

from latex2mathml.converter import convert_to_element

LONGEST = 2000
"""Most characters of a formula; longer ones are hardly formulas, and the converter recurses."""

FORMULA = re.compile(
    r"""\$\$(?P<block>.+?)\$\$
      | \\\[(?P<bracket>.+?)\\\]
      | \\\((?P<inline>.+?)\\\)
      | (?<![\\\w$])\$(?P<dollar>[^\s$](?:[^$\n]*?[^\s$\\])?)\$(?![\d\w])   # as in pandoc: "$5 and $10" is money
      | (?P<boxed>\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})""",
    re.VERBOSE | re.DOTALL,
)
ELEMENTS = {
    *("mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "msup", "msub", "msubsup", "mfrac", "msqrt", "mroot"),
    *("mover", "munder", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom"),
    *("mmultiscripts", "mprescripts", "none"),
}
ATTRIBUTES = {
    *("mathvariant", "stretchy", "fence", "form", "separator", "lspace", "rspace", "accent", "accentunder"),
    *("displaystyle", "scriptlevel", "linethickness", "columnalign", "rowspacing", "columnspacing", "width", "height"),
    *("depth", "minsize", "maxsize", "movablelimits", "largeop", "symmetric", "columnlines", "rowlines"),
}


def to_html(text: str) -> str:
    """`text` escaped, its formulas as MathML."""
    parts, end = [], 0
    for found in FORMULA.finditer(text):
        kind = str(found.lastgroup)
        parts += [escape(text[end : found.start()]), formula(found[kind], kind in ("block", "bracket"), found[0])]
        end = found.end()
    return "".join([*parts, escape(text[end:])])


@lru_cache(maxsize=10_000)
def formula(latex: str, block: bool, source: str) -> str:
    """One formula as MathML; `source`, escaped, if it cannot be converted."""
    math = Element("math", {"display": "block" if block else "inline"})
    try:
        if len(latex) > LONGEST:
            raise ValueError(f"{len(latex)} characters")
        copy_children(convert_to_element(latex), math)
        return tostring(math, encoding="unicode", short_empty_elements=False)
    except Exception:  # the converter raises anything on odd input, and no formula may end a report
        return f'<code class="latex">{escape(source)}</code>'


def copy_children(source: Element, target: Element) -> None:
    """Copy what is below `source` into `target`. Raises ValueError for an element that is not known to be harmless."""
    target.text = unescape(source.text or "")  # the converter writes "+" as "&#x0002B;"
    for child in source:
        if child.tag == "menclose" and child.get("notation") == "box":  # which browsers leave to styles
            copy = SubElement(target, "mrow", {"class": "boxed"})
        elif child.tag in ELEMENTS:
            kept = {name: value for name, value in child.attrib.items() if name in ATTRIBUTES}
            copy = SubElement(target, child.tag, kept)
        else:
            raise ValueError(f"unexpected element {child.tag}")
        copy_children(child, copy)
