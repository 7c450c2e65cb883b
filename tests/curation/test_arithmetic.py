"""Procedural problems: every solution that is written verifies, and every step that is changed does not."""

import random
import re
from itertools import islice

import pytest

from psr.curation.arithmetic import (
    LARGEST,
    Chain,
    Operation,
    carries,
    chains,
    explain,
    is_right,
    next_operation,
    operations,
    parse,
    solution,
    values,
    working,
)

PROBLEM = "37a+18b-19"
STEPS = ["a37+18=55", "b55-19=36 \\boxed{36}"]


def some_chains(count: int = 300, seed: int = 0) -> list[Chain]:
    return list(islice(chains(seed, 1, 6, 0.5), count))


def test_the_working_of_a_step_by_hand():
    assert working(Operation("a", 37, "+", 18, last=False)) == "a37+18:7+8=15,3+1+1=5=55"
    assert working(Operation("b", 55, "-", 19, last=True)) == "b55-19:15-9=6,5-1-1=3=36"
    assert working(Operation("c", 49, "-", 7, last=True)) == "c49-07:9-7=2,4-0=4=42"


def test_chains_stay_in_range_and_never_repeat():
    made = some_chains(2000)
    assert len(set(made)) == len({chain.text for chain in made}) == 2000
    for chain in made:
        assert all(0 <= value <= LARGEST for value in values(chain))
        assert chain.answer == sum(int(number) for number in re.findall(r"[+-]?\d+", chain.text))
    assert {len(chain.operations) for chain in made} == set(range(1, 7))


def test_the_share_of_hard_operations_is_what_was_asked_for():
    def hard(share: float) -> float:
        made = [one for chain in islice(chains(0, 3, 5, share), 1000) for one in operations(chain)]
        carried = [carries(one.value, one.sign, one.operand) for one in made]
        assert all(carry or one.operand % 10 == 0 for carry, one in zip(carried, made, strict=True))
        return sum(carried) / len(carried)

    assert hard(0.0) == 0.0
    assert hard(0.2) == pytest.approx(0.2, abs=0.03)
    assert hard(0.9) > 0.8


def test_the_working_of_a_step_adds_up():
    for value in range(LARGEST + 1):
        for operand in range(2, LARGEST + 1):
            for sign in "+-":
                result = value + operand if sign == "+" else value - operand
                if not 0 <= result <= LARGEST:
                    continue
                step = working(Operation("a", value, sign, operand, last=False))
                match = re.fullmatch(r"a\d+[+-]\d+:(\d+[+-]\d)=(\d+),(\d[+-]\d(?:[+-]1)?)=(\d)=(\d+)", step)
                assert match is not None, step
                units, units_result, tens, tens_result, stated = match.groups()
                assert eval(units) == int(units_result)
                assert eval(tens) == int(tens_result)
                assert 10 * int(tens_result) + int(units_result) % 10 == int(stated) == result


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


@pytest.mark.parametrize("text", ["", "37", "37+18", "37a*18", "a37+18", "37a+18b", "37a+18 b-19"])
def test_another_text_is_no_problem(text: str):
    with pytest.raises(ValueError, match="not a chain"):
        parse(text)


def test_every_written_solution_verifies_step_by_step():
    rng = random.Random(0)
    for chain in some_chains():
        steps = solution(chain, rng)
        assert len(steps) == len(chain.operations)
        assert all(is_right(chain.text, steps[:i], step) for i, step in enumerate(steps))
        assert steps[-1].endswith(f" \\boxed{{{chain.answer:02d}}}")
        assert not any("boxed" in step for step in steps[:-1])


def test_a_slip_changes_the_tens_and_the_rest_builds_on_it():
    chain = parse("37a+18b+20")
    assert solution(chain, random.Random(0)) == ["a37+18=55", "b55+20=75 \\boxed{75}"]
    assert solution(chain, random.Random(0), forgotten_share=1.0) == ["a37+18=45", "b45+20=65 \\boxed{65}"]
    assert solution(chain, random.Random(0), phantom_share=1.0) == ["a37+18=65", "b65+20=95 \\boxed{95}"]
    assert solution(parse("55a-19"), random.Random(0), forgotten_share=1.0) == ["a55-19=46 \\boxed{46}"]
    assert solution(parse("55a-19"), random.Random(0), phantom_share=1.0) == ["a55-19=26 \\boxed{26}"]
    assert solution(parse("90a+05"), random.Random(0), phantom_share=1.0) == ["a90+05=95 \\boxed{95}"], "in range"


def test_slips_are_as_frequent_as_was_asked_for_and_results_stay_in_range():
    rng = random.Random(0)
    slips: dict[bool, list[bool]] = {True: [], False: []}
    for chain in some_chains(2000):
        steps = solution(chain, rng, 0.5, 0.1)
        for i, step in enumerate(steps):
            expected = next_operation(chain.text, steps[:i])
            assert expected is not None and 0 <= int(expected.result) <= LARGEST
            carry = carries(expected.value, expected.sign, expected.operand)
            slips[carry].append(not is_right(chain.text, steps[:i], step))
    share = {carry: sum(made) / len(made) for carry, made in slips.items()}
    assert 0.45 < share[True] < 0.6 and 0.05 < share[False] < 0.1, share  # those that would leave 0..99 are not made


def test_a_changed_digit_of_question_or_result_is_rejected():
    rng = random.Random(0)
    for chain in some_chains(100):
        steps = solution(chain, rng)
        for i, step in enumerate(steps):
            place = rng.choice([m.start() for m in re.finditer(r"\d", step)])
            changed = step[:place] + str((int(step[place]) + rng.randint(1, 9)) % 10) + step[place + 1 :]
            assert not is_right(chain.text, steps[:i], changed), (step, changed)


@pytest.mark.parametrize(
    ("steps", "candidate"),
    [
        ([], STEPS[1]),
        (STEPS[:1], STEPS[0]),
        (STEPS, STEPS[1]),
        ([], STEPS[0] + " \\boxed{55}"),
        (STEPS[:1], "b55-19=36"),
        (STEPS[:1], "b55-19=36 \\boxed{35}"),
        ([], "37+18=55"),
        ([], "b37+18=55"),
        ([], "a37+18=055"),
        ([], "a37+18="),
        ([], ""),
        ([], "a37+18:7+8=15,3+1+1=5=55"),
        (["a37+18"], STEPS[1]),
    ],
)
def test_a_step_that_is_wrong_for_its_place_is_rejected(steps: list[str], candidate: str):
    assert not is_right(PROBLEM, steps, candidate)


def test_a_step_is_judged_on_the_result_before_it_even_if_that_is_wrong():
    assert is_right(PROBLEM, ["a37+18=45"], "b45-19=26 \\boxed{26}")
    assert not is_right(PROBLEM, ["a37+18=45"], STEPS[1])


def test_the_next_operation_starts_from_the_last_result():
    assert next_operation(PROBLEM, []) == Operation("a", 37, "+", 18, last=False)
    assert next_operation(PROBLEM, STEPS[:1]) == Operation("b", 55, "-", 19, last=True)
    assert next_operation(PROBLEM, ["a37+18=45"]) == Operation("b", 45, "-", 19, last=True)
    assert next_operation(PROBLEM, STEPS) is None
    assert next_operation(PROBLEM, ["nonsense"]) is None


def test_an_explanation_works_the_step_out_and_says_who_states_the_right_result():
    assert explain(PROBLEM, [], STEPS[0], "a37+18=45") == "a37+18:7+8=15,3+1+1=5=55;55A,54B;55A"
    assert explain(PROBLEM, [], "a37+18=46", STEPS[0]) == "a37+18:7+8=15,3+1+1=5=55;64A,55B;55B"
    assert explain(PROBLEM, STEPS[:1], STEPS[1], "b55+18=73") == "b55-19:15-9=6,5-1-1=3=36;63A,?B;63A"
    assert explain(PROBLEM, [], "a37+18=45", "a37+18=65") == "a37+18:7+8=15,3+1+1=5=55;54A,56B;55?"


def test_nothing_is_explained_where_no_step_comes_next():
    assert explain(PROBLEM, STEPS, STEPS[0], STEPS[1]) is None
    assert explain(PROBLEM, ["nonsense"], STEPS[1], STEPS[0]) is None
    assert explain(PROBLEM, ["a37+18=05"], "b05-19=-14", "b05-19=14") is None


def test_explanations_of_right_and_wrong_steps_are_never_mixed_up():
    rng = random.Random(0)
    for chain in some_chains():
        steps = solution(chain, rng)
        i = rng.randrange(len(steps))
        wrong = re.sub(r"=(\d+)(?= |$)", lambda m: f"={(int(m[1]) + 1) % 100:02d}", steps[i])
        first = explain(chain.text, steps[:i], steps[i], wrong)
        second = explain(chain.text, steps[:i], wrong, steps[i])
        assert first is not None and first.endswith("A")
        assert second is not None and second.endswith("B")
