"""Steps of word problems, rated and explained by the equations of worked solutions."""

import time
from fractions import Fraction
from pathlib import Path

import pytest

from psr.curation.word_problems import WorkedSteps, equations, written
from psr.files.jsonl import write_jsonl

PROBLEM = "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?"
MAY = "In May she sold 48/2 = 24 clips."
SOLUTION = f"{MAY}\nAltogether 48 + 24 = 72 clips."


@pytest.fixture
def worked(tmp_path: Path) -> WorkedSteps:
    file = tmp_path / "worked.jsonl"
    write_jsonl(file, [{"id": "1", "problem": PROBLEM, "solution": SOLUTION, "answer": "72"}])
    return WorkedSteps.read(file)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("In May she sold 48/2 = 24 clips.", ["48/2=24"]),
        ("3 books + 4 books = 7 books", ["3+4=7"]),
        ("It costs $1,200 * 2 = $2,400 + $100 = $2,500.", ["1200*2=2500", "2400+100=2500"]),
        ("20% of 50 is .2 x 50 = 10", [".2*50=10"]),
        ("1/4 = 25%", ["1/4=0.25"]),
        ("x = 5, and 2x + 3 = 13", []),
        ("Trash is 400/2=200\n5*10=50", ["400/2=200", "5*10=50"]),
        ("10 / 0 = 5", []),
    ],
)
def test_equations_are_read_without_their_units(text: str, read: list[str]):
    assert [str(equation) for equation in equations(text)] == read


def test_a_quotient_may_be_rounded_to_the_decimals_that_are_written():
    assert [e.holds for e in equations("10/3 = 3.33 and 10/3 = 3.34 and 10/3 = 3")] == [True, False, False]
    assert written(Fraction(1, 3)) == "1/3"


@pytest.mark.parametrize(
    ("steps", "candidate", "rating"),
    [
        ([], MAY, True),
        ([MAY], "Altogether 48 + 24 = 72 clips. \\boxed{72}", True),
        ([], "In May she sold 48/2 = 26 clips.", False),
        ([MAY], "Altogether 48 + 24 = 72 clips. \\boxed{73}", False),
        ([MAY], "Altogether 24 * 24 = 576 clips.", False),
        ([], "She sold half as many in May.", None),
        ([MAY], "Again, 48/2 = 24.", None),
        (["In May she sold 48*2 = 96 clips."], "Altogether 48 + 24 = 72 clips.", None),
    ],
)
def test_steps_are_right_wrong_or_undecided(worked: WorkedSteps, steps: list[str], candidate: str, rating: bool | None):
    assert worked.rate(PROBLEM, steps, candidate) is rating


def test_a_problem_without_a_worked_solution_is_undecided(worked: WorkedSteps):
    assert worked.rate("Another?", [], MAY) is None


def test_an_explanation_works_the_step_out_in_both_orders(worked: WorkedSteps):
    wrong = "In May she sold 48/2 = 26 clips."
    assert worked.explain(PROBLEM, [], MAY, wrong) == "48/2=24. A: 48/2=24, yes. B: 48/2=26, no, 24. A is right. "
    assert worked.explain(PROBLEM, [], wrong, MAY) == "48/2=24. A: 48/2=26, no, 24. B: 48/2=24, yes. B is right. "
    assert worked.explain(PROBLEM, [], MAY, MAY) is None


def test_many_words_after_an_equation_are_read_in_no_time():
    started = time.monotonic()
    assert len(equations("3 + 4 = 7 " + "considerations of everything " * 200)) == 1
    assert time.monotonic() - started < 1
