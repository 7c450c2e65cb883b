r"""What is equal: a careful person's verdict on answers in a box, kind by kind, in both directions.

A row is an answer and a reference answer. `psr/evaluation/README.md` says what is lenient on purpose.
"""

import pytest

from benchmarks.rewrites import CHANGING, KEEPING, NAMING_A_UNIT
from psr.evaluation.benchmarks import read_benchmark
from psr.evaluation.notation import canonical
from psr.evaluation.rules import grade, has_gold, verdicts
from psr.records import GoldProblem
from tests.evaluation.pairs import grade_many
from tests.evaluation.test_grading import DATA, box

RIGHT: dict[str, list[tuple[str, str]]] = {
    "numbers": [
        *[("72", "72"), ("36.0", "36"), ("36.", "36"), ("-.5", "-0.5"), ("007", "7"), ("-0", "0"), ("+5", "5")],
        *[("3/4", r"\frac{3}{4}"), (r"\dfrac{3}{4}", "0.75"), (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"\frac12", "0.5")],
        *[("1 1/2", r"\frac{3}{2}"), (r"2\frac{1}{3}", r"\frac{7}{3}"), (r"-1\frac{1}{2}", "-1.5"), ("1½", "1.5")],
        *[(r"0.\overline{3}", r"\frac{1}{3}"), (r"0.1\overline{6}", "1/6"), ("0.(27)", r"\frac{3}{11}")],
        *[("1e3", "1000"), ("1.5E-2", "0.015"), (r"2.3148\times10^{-3}", "0.0023148"), (r"10^{-2}", "0.01")],
        *[("0.333333", r"\frac{1}{3}"), ("1.414214", r"\sqrt{2}"), ("2^10", "1024"), ("5!", "120")],
    ],
    "thousands": [
        *[("1,234", "1234"), ("1234567.5", "1,234,567.5"), (r"10{,}080", r"10,\!080"), (r"11\,232", "11232")],
        *[("x = 11,232", "11232"), ("{11,232}", "11232"), (r"\text{Total} = \$11,232", "11232")],
        *[(r"5,616 \times 2 = 11,232", "11232"), (r"\(58{,}500\)", "58500"), (r"\frac{12}{5,525}", r"\frac{12}{5525}")],
    ],
    "percent": [
        *[("150%", "1.5"), ("10 per cent", "10")],
        *[
            (r"20.0\%", "20"),
            (r"12.5\%", "12.5"),
            (r"50\,\%", "50"),
            (r"20\%", "20"),
            ("50%", r"50\%"),
            ("50 percent", "50"),
        ],
        *[
            (r"50\%", "0.5"),
            ("0.5", r"50\%"),
            ("50", r"50\%"),
            (r"33\frac{1}{3}\%", r"\frac{100}{3}\%"),
            ("7.50%", "7.5"),
        ],
    ],
    "words, units and currencies": [
        *[
            ("16 million", "16000000"),
            ("$2.5 million", "2,500,000"),
            (r"42\text{ (approximately)}", "42"),
            ("15°C", "15"),
            (r"\\frac{1}{2}", "0.5"),
        ],
        *[("18 dollars", "18"), ("18 apples", "18"), (r"6\text{ cm}", "6"), ("6", r"6\text{ cm}"), ("€77", "77")],
        *[
            ("£1,200", "1200"),
            ("$5", "5"),
            ("5", r"\$5"),
            (r"\text{Adam loses \$16.}", "16"),
            ("-$5", "-5"),
            (r"\$-5", "-5"),
        ],
        *[
            (r"3~\text{cm}", "3"),
            (r"3 \mathrm{~cm}^{2}", "3"),
            ("60 km/h", "60"),
            (r"9 \text{ square units}", "9"),
            ("6 m", "6"),
        ],
        *[("145°", "145"), (r"90^\circ", "90"), ("90 degrees", r"90^{\circ}"), (r"20\text{ miles per hour}", "20")],
        *[(r"2\sqrt{3}\text{ cm}", r"\sqrt{12}"), ("5 meters", r"5\text{ m}"), (r"12\text{ ways}", "12 arrangements")],
    ],
    "names": [
        *[("x=5", "5"), ("5", "x=5"), ("f(2)=5", "5"), (r"\angle ABC = 60", "60"), ("5=x", "5"), ("x_1 = 3", "3")],
        *[("y=2x+1", "2x+1"), ("a+b=7", "7"), (r"x \in [0,1]", "[0,1]"), (r"P(A) = \frac{1}{2}", "0.5")],
    ],
    "stops and wrappers": [
        *[(r"\pi.", r"\pi"), ("2.5.", "2.5"), ("C.", "C"), ("x=2.", "2"), (r"\mathbf{1.25}", "1.25"), ("{a}", "a")],
        *[(r"\displaystyle\frac{1}{2}", "0.5"), ("(5)", "5"), (r"\approx 10", "10"), ("= 4", "4"), (r"\boxed{5}", "5")],
    ],
    "unicode": [
        *[
            ("√2", r"\sqrt{2}"),
            ("2√3", r"2\sqrt{3}"),
            ("½", r"\frac{1}{2}"),
            ("x²", "x^2"),
            ("∞", r"\infty"),
            ("2π", r"2\pi"),
        ],
        *[
            ("−3", "-3"),
            ("x ≥ 3", r"[3,\infty)"),
            ("3×10⁴", "30000"),
            ("±2", "2,-2"),
            ("(−∞, 1] ∪ {2}", r"(-\infty,1]\cup\{2\}"),
        ],
    ],
    "several values": [
        *[(r"\{(1,2)\}", "(1,2)"), ("(1,2),(3,4)", "(3,4),(1,2)")],
        *[
            (r"1,\,2", "1,2"),
            (r"x=1\;\text{or}\;x=2", "1,2"),
            ("2, 1", "1,2"),
            (r"7\text{ and }8", "7,8"),
            ("1; 2", "1, 2"),
        ],
        *[
            (r"\pm 2", "-2,2"),
            ("-2,2", r"\pm 2"),
            (r"1 \pm \sqrt{3}", r"1+\sqrt{3}, 1-\sqrt{3}"),
            (r"x\in\{1,2\}", "1,2"),
        ],
        *[("1,000, 2,000", "1,000, 2,000"), ("2,000, 1,000", "1,000, 2,000"), ("100,200", "100, 200")],
        *[(r"\{3, 1, 2\}", r"\{1,2,3\}"), (r"\{1,2\}", "1,2"), (r"\{5\}", "5"), (r"\sqrt{8}, 1", r"1, 2\sqrt{2}")],
    ],
    "tuples, intervals and matrices": [
        *[
            ("(1,~2)", "(1,2)"),
            (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
            ("3,4", "(3,4)"),
            (r"\langle 1,2\rangle", "(1,2)"),
        ],
        *[(r"[0, \infty)", r"[0,+\infty)"), (r"3<x\le 4", "(3,4]"), ("x<3", r"(-\infty,3)"), (r"4 \ge x > 3", "(3,4]")],
        *[
            (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,\infty)"),
            (r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)"),
        ],
        (r"\begin{bmatrix} 0.5 \\ 2 \end{bmatrix}", r"\begin{pmatrix}\frac{1}{2}\\2\end{pmatrix}"),
    ],
    "bases": [
        *[("(1011)_2", "1011_2"), (r"1011_{\text{two}}", "1011_2"), ("1011_{2}", "1011_2"), ("1011", "1011_2")],
        *[("42_{10}", "42"), ("2a_{16}", "2A_{16}")],
    ],
    "options": [
        *[
            (r"\textbf{(A)}\ 5", "5"),
            (r"\textbf{(A)}\ 5", "A"),
            (r"\text{(A)}", "A"),
            ("(B)", r"\text{B}"),
            ("C", "(C)"),
        ],
        *[(r"\text{(D) }\frac{1}{2}", "0.5"), ("A) 5", "A"), ("B. 7", "B")],
    ],
    "texts": [
        *[
            (r"\text{Evelyn}", "Evelyn"),
            ("east", r"\text{East}"),
            ("yes", "Yes"),
            (r"\textbf{no}", "No"),
            ("11:45 p.m.", r"11:45\text{ pm}"),
        ],
        *[(r"\varnothing", r"\emptyset"), (r"\{\}", r"\emptyset"), ("the second rest stop", "The second rest stop.")],
    ],
    "formulas": [
        *[
            (r"2 \sqrt{2}", r"\sqrt{8}"),
            ("(x+1)^2", "x^2+2x+1"),
            ("-1+sqrt(3)", r"-1+\sqrt{3}"),
            (r"2^{20240}", r"2^{20240}"),
        ],
        *[
            ("i(2-i)", "1+2i"),
            ("14.0-1.0i", "14-i"),
            (r"1+2\mathrm{i}", "1+2i"),
            (r"\frac{2(72)}{2}", "72"),
            (r"\sqrt[3]{-8}", "-2"),
        ],
        *[(r"\cos\frac\pi7-\cos\frac{2\pi}7+\cos\frac{3\pi}7", r"\frac12"), (r"\frac{1}{\sqrt n}", r"\sqrt{1/n}")],
        *[
            (r"\sum_{k=0}^{2016}\binom{2016}{k}", "2^{2016}"),
            (r"\tan 75^\circ", r"2+\sqrt{3}"),
            (r"\frac{n!}{2}", "n!/2"),
        ],
        *[
            ("2x-y+3=0", "y=2x+3"),
            (r"2x > 6", "x>3"),
            (r"\ln 2 + \ln x", r"\ln(2x)"),
            ("x-x+1", "1"),
            (r"\sin \pi", "0"),
        ],
    ],
}

WRONG: dict[str, list[tuple[str, str]]] = {
    "numbers": [
        *[
            ("71", "72"),
            ("36.5", "36"),
            ("1 2", "12"),
            ("1/0", "0"),
            ("0.0000673", ".0000672"),
            ("0.333", r"\frac{1}{3}"),
        ],
        *[
            (r"1\frac{1}{2}", r"\frac{1}{2}"),
            (r"0.\overline{3}", "0.3"),
            ("1e3", "1001"),
            (r"\frac{2}{3}", r"\frac{3}{2}"),
        ],
        *[
            (r"\frac{1}{3^{50}}", r"\frac{1}{3^{51}}"),
            (r"2^{2005}+1", "2^{2005}"),
            (r"1-\frac{1}{3^{60}}", r"1-\frac{1}{3^{61}}"),
        ],
    ],
    "thousands": [("12,34", "1234"), ("0,123", "123"), ("1, 234", "1234"), ("(1,234)", "1234"), ("1,2345", "12345")],
    "percent": [
        *[(r"20\%", r"20^\circ"), (r"20\%", r"20\text{ ft}")],
        (r"5000\%", "50"),
        (r"1250\%", "12.5"),
        (r"0.2\%", "20"),
        (r"20\%", "0.02"),
        (r"50\%", r"0.5\%"),
    ],
    "words, units and currencies": [
        *[("$5", "5 cents"), ("42 minutes and 30 seconds", "42"), ("10 or more", "10")],
        *[
            ("6", "6m"),
            ("6m", "6"),
            ("2t", "2s"),
            ("16 million", "16"),
            ("not 72", "72"),
            ("3 dozen", "3"),
            ("minus 5", "5"),
        ],
        *[
            ("5 miles", r"5\text{ km}"),
            (r"\$5", r"5\text{ cents}"),
            (r"5\text{ cm}^2", r"5\text{ cm}^3"),
            ("6 apples", "7"),
        ],
        *[("less than 5", "5"), ("I think 72", "72"), ("11:45 am", "11:45 pm"), ("5 squared", "5")],
    ],
    "names": [("x+2=5", "5"), ("x^2=4", "4"), ("2x=6", "6"), ("x=2", "y=2"), ("7", "x+y=7"), ("2x+1", "y=3x+1")],
    "several values": [
        *[
            ("1,1,1", "1"),
            ("1", "1,1"),
            ("1,2", "1,2,3"),
            ("1,2,4", "1,2,3"),
            (r"3 \text{ or } 72", "72"),
            (r"\pm 2", "2"),
        ],
        *[("1,1,3", "1,3,3"), (r"\{1,2,3\}", "(1,2,3)"), ("(1,2,3)", r"\{1,2,3\}"), ("(1,2)", "1,2")],
    ],
    "tuples, intervals and matrices": [
        *[
            ("(1,2)", "(2,1)"),
            ("[0,1]", "(0,1)"),
            ("[1,2)", "[1,2]"),
            ("2,1", "(1,2)"),
            (r"3\le x\le 4", "(3,4]"),
            ("x>3", r"(-\infty,3)"),
        ],
        *[(r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"), ("y<3", "x<3")],
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "bases": [("4210_6", "4210_5"), ("1011_3", "1011_2"), ("1011", "1010_2"), ("42_7", "42"), ("1012_2", "1011_2")],
    "options": [(r"\textbf{(A)}\ 5", "B"), (r"\textbf{(A)}\ 5", "6"), ("(A)", "(B)"), ("A", "B")],
    "texts": [(r"\text{north}", r"\text{east}"), ("yes", "no"), ("Rug A", "Rug B"), ("-yes", "yes")],
    "formulas": [
        *[
            (r"\sqrt{2}", r"\sqrt{3}"),
            (r"\sqrt{x^2}", "x"),
            (r"\frac{x}{10^{30}}", r"\frac{x}{10^{31}}"),
            ("x+1", "x+2"),
            ("1-2i", "1+2i"),
            ("X+1", "x+1"),
            ("x^2", "x^3"),
        ],
        *[
            (r"\sum_{k=0}^{2016}\binom{2016}{k}", "2^{2017}"),
            (r"2x > 6", "x<3"),
            ("2x-y+4=0", "y=2x+3"),
            ("1.414", r"\sqrt{2}"),
        ],
    ],
    "nothing": [("", "72"), (" ", ""), ("72", ""), (r"\text{}", "5"), ("$", "$5")],
}


@pytest.mark.parametrize("kind", RIGHT)
def test_equal_answers_are_right(kind: str) -> None:
    pairs = RIGHT[kind]
    results = grade_many([(box(answer), gold) for answer, gold in pairs])
    assert [pair for pair, right in zip(pairs, results, strict=True) if not right] == []


@pytest.mark.parametrize("kind", WRONG)
def test_different_answers_are_wrong(kind: str) -> None:
    pairs = WRONG[kind]
    results = grade_many([(box(answer), gold) for answer, gold in pairs])
    assert [pair for pair, right in zip(pairs, results, strict=True) if right] == []


def test_the_reference_answer_may_be_in_a_box() -> None:
    assert grade_many([(box("72"), r"which gives \boxed{72}")]) == [True]


@pytest.mark.parametrize(
    ("texts", "spelled"),
    [
        ((r"\dfrac{1}{2}", r"\tfrac12", r"\frac 1 2", "½", r"{\frac{1}{2}}"), r"\frac{1}{2}"),
        (("1,234", "1{,}234", r"1\,234", r"1,\!234"), "1’234"),
        ((r"(1,\,2)", "( 1, 2 )", r"\left(1,2\right)", "(1,~2)"), "(1,2)"),
        ((r"18\text{ dollars}", "18 dollars", r"18~\mathrm{dollars}", "18 Dollars."), '18"dollars"'),
        ((r"x\leq 3", "x ≤ 3", "x <= 3", r"$x \leqslant 3$"), r"x\le 3"),
    ],
)
def test_one_spelling_for_each_value(texts: tuple[str, ...], spelled: str) -> None:
    assert {canonical(text) for text in texts} == {spelled}


def test_what_decided_is_told() -> None:
    cases = {
        **{"72": "text", "72.0": "number", r"\sqrt{5184}": "algebra", "(72, 1)": "parts", "9^9^9": "excessive"},
        **{"seventy": "words", "72_8": "base", r"\text{(A) }72": "text", "": "empty", "7" * 2000: "too long"},
    }
    found = verdicts([GoldProblem("p", "?", "72")] * len(cases), [box(answer) for answer in cases])
    assert {answer: verdict.rule for answer, verdict in zip(cases, found, strict=True) if verdict} == cases


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the benchmark files in {DATA}")
@pytest.mark.parametrize("keeps", [True, False], ids=["the same value", "another value"])
def test_rewritten_reference_answers(keeps: bool) -> None:
    """Every 37th distinct one, rewritten in all ways; `python -m benchmarks.grading` takes all of them."""
    problems = [one for name in ("math_test", "gaokao2023en") for one in read_benchmark(str(DATA / f"{name}.jsonl"))]
    distinct = list({one.answer: one for one in problems if has_gold(one)}.values())[::37]
    rewrites = KEEPING if keeps else CHANGING
    some = [
        (kind, problem, text)
        for kind, rewrite in rewrites.items()
        for problem in distinct
        if not (problem.unit and kind in NAMING_A_UNIT) and (text := rewrite(problem.answer)) is not None
    ]
    verdict = grade([problem for _, problem, _ in some], [box(text) for *_, text in some])
    assert len(some) > 500
    assert [(kind, text) for (kind, _, text), right in zip(some, verdict, strict=True) if right is not keeps] == []


def test_rewrites_know_what_they_cannot_do() -> None:
    assert CHANGING["the sign"]("0") is None and CHANGING["the order of a pair"]("(2, 2)") is None
    assert CHANGING["the base"]("8_9") is None and KEEPING["0.\\overline{3}"](r"\frac{1}{4}") is None
