"""Formulas become MathML; nothing else becomes anything but text."""

import pytest

from psr.report.mathematics import LONGEST, to_html


@pytest.mark.parametrize("source", [r"$\frac{1}{2}$", r"\(\frac{1}{2}\)", r"\[\frac{1}{2}\]", r"$$\frac{1}{2}$$"])
def test_every_way_to_write_a_formula(source: str):
    made = to_html(f"so {source} it is")
    assert made.startswith("so <math") and made.endswith("</math> it is") and "<mfrac>" in made
    assert ('display="block"' in made) == (source[:2] in (r"\[", "$$"))


def test_a_box_stands_outside_of_formulas_too():
    assert '<mrow class="boxed"><mrow><mn>48</mn>' in to_html(r"e18+30=48 \boxed{48}")
    assert '<mrow class="boxed">' in to_html(r"$x=\boxed{\frac{1}{\sqrt{2}}}$")


@pytest.mark.parametrize("text", ["pens cost $5 and $10", "$5+$10 is more", r"\$x\$", "a $ b $ c", "no formula"])
def test_money_and_lonely_signs_are_text(text: str):
    assert to_html(text) == text


@pytest.mark.parametrize(
    "latex", [r"\frac{1}{", r"\left( x", "{" * 600, r"\cancel{x}", "x" * (LONGEST + 1), r"\begin{pmatrix} 1"]
)
def test_what_cannot_be_converted_stays_the_text_it_was(latex: str):
    assert to_html(f"a ${latex}$ b") == f'a <code class="latex">${latex}$</code> b'


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        r"$\text{<script>alert(1)</script>}$",
        r"$\href{javascript:alert(1)}{x}$",
        "$x</math><script>alert(1)</script>$",
        r"\boxed{<img src=x onerror=alert(1)>}",
        "$a<b$ and </textarea>",
    ],
)
def test_no_text_brings_markup_of_its_own(text: str):
    made = to_html(text)
    for tag in ("<script", "<img", "<a ", "href=", "</textarea", 'javascript:alert(1)"'):
        assert tag not in made
    assert made.count("<math") == made.count("</math>")
