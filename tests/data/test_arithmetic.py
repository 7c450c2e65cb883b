"""Procedural problems: every solution that is written verifies, and every step that is changed does not."""

import random
import re
from itertools import islice

import pytest

from psr.data.arithmetic import (
    LARGEST,
    Chain,
    chains,
    explain,
    is_right,
    next_operation,
    parse,
    solution,
    terse_step,
    values,
    worked_step,
)

PROBLEM = "37+18-19"
TERSE = ["37+18=55", "55-19=36 \\boxed{36}"]
WORKED = ["37+18:7+8=15,3+1+1=5=55", "55-19:15-9=6,5-1-1=3=36 \\boxed{36}"]


def some_chains(count: int = 300, seed: int = 0) -> list[Chain]:
    return list(islice(chains(seed, 1, 6, 0.5), count))


def test_the_two_ways_to_write_a_step():
    assert terse_step(37, "+", 18) == "37+18=55"
    assert worked_step(37, "+", 18) == "37+18:7+8=15,3+1+1=5=55"
    assert worked_step(31, "+", 18) == "31+18:1+8=9,3+1=4=49"
    assert worked_step(55, "-", 19) == "55-19:15-9=6,5-1-1=3=36"
    assert worked_step(59, "-", 18) == "59-18:9-8=1,5-1=4=41"


def test_the_working_of_a_step_adds_up():
    for value in range(LARGEST + 1):
        for operand in range(2, LARGEST + 1):
            for sign in "+-":
                result = value + operand if sign == "+" else value - operand
                if not 0 <= result <= LARGEST:
                    continue
                step = worked_step(value, sign, operand)
                match = re.fullmatch(r"\d+[+-]\d+:(\d+[+-]\d)=(\d+),(\d[+-]\d(?:[+-]1)?)=(\d)=(\d+)", step)
                assert match is not None, step
                units, units_result, tens, tens_result, stated = match.groups()
                assert eval(units) == int(units_result)
                assert eval(tens) == int(tens_result)
                assert 10 * int(tens_result) + int(units_result) % 10 == int(stated) == result


def test_chains_stay_in_range_and_never_repeat():
    made = some_chains(2000)
    assert len(set(made)) == len({chain.text for chain in made}) == 2000
    for chain in made:
        assert all(0 <= value <= LARGEST for value in values(chain))
        assert 1 <= len(chain.operations) <= 6
        assert all(2 <= operand <= LARGEST for _, operand in chain.operations)
        assert chain.answer == sum(int(number) for number in re.findall(r"[+-]?\d+", chain.text))
    assert {len(chain.operations) for chain in made} == set(range(1, 7))


def test_the_seed_fixes_the_stream():
    assert some_chains(seed=1) == some_chains(seed=1)
    assert some_chains(seed=1) != some_chains(seed=2)


def test_slices_of_one_stream_are_disjoint():
    stream = chains(0, 3, 5, 0.5)
    parts = [{chain.text for chain in islice(stream, 400)} for _ in range(4)]
    assert len(set.union(*parts)) == 1600


def test_a_problem_text_is_parsed_back():
    for chain in some_chains():
        assert parse(chain.text) == chain
    for text in ("", "5", "3+", "+3", "3*4", "3+4=7", "3+4\n", "3 + 4"):
        with pytest.raises(ValueError, match="not a chain"):
            parse(text)


@pytest.mark.parametrize("worked_share", [0.0, 0.5, 1.0])
def test_every_written_solution_verifies_step_by_step(worked_share: float):
    rng = random.Random(3)
    for chain in some_chains():
        steps = solution(chain, rng, worked_share)
        assert len(steps) == len(chain.operations)
        boxed = re.search(r" \\boxed\{(\d+)\}$", steps[-1])
        assert boxed is not None and int(boxed.group(1)) == chain.answer
        assert not any("boxed" in step for step in steps[:-1])
        for i, step in enumerate(steps):
            assert is_right(chain.text, steps[:i], step), (chain.text, steps[:i], step)
            assert is_right(chain.text, [s + "\n" for s in steps[:i]], step + "\n")
            assert (":" in step) == (worked_share == 1.0) or worked_share == 0.5


def test_a_changed_digit_anywhere_that_counts_is_rejected():
    rng = random.Random(4)
    for chain in some_chains(150):
        steps = solution(chain, rng, 0.0)
        for i, step in enumerate(steps):
            for position, character in enumerate(step):
                if character.isdigit():
                    other = rng.choice([digit for digit in "0123456789" if digit != character])
                    changed = step[:position] + other + step[position + 1 :]
                    assert not is_right(chain.text, steps[:i], changed), (chain.text, steps[:i], changed)


@pytest.mark.parametrize(
    ("steps", "candidate"),
    [
        ([], "37+18=56"),  # wrong result
        ([], "37+19=56"),  # wrong operand, right sum
        ([], "37-18=19"),  # wrong sign
        ([], "18+37=55"),  # other order
        ([], "37+18=055"),
        ([], "37+18=55 \\boxed{55}"),  # boxed too early
        ([], "37+18=55-19=36"),
        ([], "37+18:7+8=15,3+1+1=5=54"),  # right working, wrong result
        ([], TERSE[1]),  # a step skipped
        ([], ""),
        ([], "37+18"),
        (TERSE[:1], "55-19=36"),  # not boxed
        (TERSE[:1], "55-19=36 \\boxed{37}"),  # another answer boxed
        (TERSE[:1], "55-19=37 \\boxed{37}"),
        (TERSE[:1], "55-19=36 \\boxed{36} \\boxed{36}"),
        (TERSE[:1], TERSE[0]),  # said again
        (TERSE, "36+11=47 \\boxed{47}"),  # beyond the end
        (["nonsense"], TERSE[1]),  # nothing to go on from
    ],
)
def test_a_step_that_is_wrong_for_its_place_is_rejected(steps: list[str], candidate: str):
    assert not is_right(PROBLEM, steps, candidate)


def test_a_step_is_judged_on_the_result_before_it_even_if_that_is_wrong():
    assert is_right(PROBLEM, ["37+18=54"], "54-19=35 \\boxed{35}")
    assert not is_right(PROBLEM, ["37+18=54"], TERSE[1])


def test_the_next_operation_starts_from_the_last_result():
    assert next_operation(PROBLEM, []) == (37, "+", 18)
    assert next_operation(PROBLEM, WORKED[:1]) == next_operation(PROBLEM, TERSE[:1]) == (55, "-", 19)
    assert next_operation(PROBLEM, TERSE) is None
    assert next_operation(PROBLEM, ["37+18"]) is None


def marks(problem: str, steps: list[str], a: str, b: str) -> tuple[str, str, str]:
    """The working in an explanation, and what it says of either side."""
    text = explain(problem, steps, a, b)
    assert text is not None
    match = re.fullmatch(r"(.*);A(.*),B(.*);", text)
    assert match is not None, text
    working, of_a, of_b = match.groups()
    return working, of_a, of_b


def test_an_explanation_works_the_step_out_and_marks_each_side():
    good, bad = TERSE[0], "37+18=45"
    working, right, wrong = marks(PROBLEM, [], good, bad)
    assert working == WORKED[0]
    assert right != wrong
    assert marks(PROBLEM, [], bad, good) == (working, wrong, right)
    assert marks(PROBLEM, [], good, WORKED[0]) == (working, right, right), "both ways to write it are right"
    assert marks(PROBLEM, TERSE[:1], TERSE[1], "")[0] == WORKED[1].partition(" ")[0]
    assert explain(PROBLEM, TERSE, good, bad) is None


def test_explanations_of_right_and_wrong_steps_are_never_mixed_up():
    rng = random.Random(5)
    for chain in some_chains(100):
        steps = solution(chain, rng, 0.5)
        for i, step in enumerate(steps):
            result = values(chain)[i + 1]
            missed = step.replace(f"={result:02d}", f"={(result + 10) % 100:02d}")
            unboxed = step.partition(" ")[0] if i + 1 == len(steps) else step + " \\boxed{11}"
            for wrong in (missed, unboxed, "nonsense"):
                assert not is_right(chain.text, steps[:i], wrong)
                _, right, other = marks(chain.text, steps[:i], step, wrong)
                assert right != other
                assert marks(chain.text, steps[:i], wrong, step)[1:] == (other, right)
