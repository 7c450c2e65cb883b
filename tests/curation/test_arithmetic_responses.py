"""Whole responses to arithmetic chains: points and comparisons agree with the exact check of every step."""

import random
from itertools import islice

import pytest

from psr.curation import arithmetic
from psr.curation.arithmetic_responses import (
    FULL_SCORE,
    better_and_worse,
    explain_responses,
    is_right_response,
    right_steps,
    score,
)
from psr.curation.response_judging import response_pairs, scored_responses, scored_steps
from psr.records import Problem

CHAIN = "37a+18b-20c+30"
RIGHT = "a37+18=55\nb55-20=35\nc35+30=65 \\boxed{65}"
SLIP = "a37+18=45\nb45-20=25\nc25+30=55 \\boxed{55}"
TWO_SLIPS = "a37+18=45\nb45-20=35\nc35+30=65 \\boxed{65}"


def sampled(seed: int, count: int) -> list[tuple[Problem, list[str]]]:
    """Problems with six imperfect solutions each."""
    rng = random.Random(seed)
    chains = islice(arithmetic.chains(seed, 3, 5, 0.4), count)
    return [
        (Problem(str(i), chain.text), ["\n".join(arithmetic.solution(chain, rng, 0.5, 0.2)) for _ in range(6)])
        for i, chain in enumerate(chains)
    ]


def test_every_step_is_checked_on_what_was_stated_before():
    assert right_steps(CHAIN, [], RIGHT) == [True, True, True]
    assert right_steps(CHAIN, [], SLIP) == [False, True, True]
    assert right_steps(CHAIN, ["a37+18=55"], "b55-20=35") == [True]
    assert is_right_response(CHAIN, [], RIGHT) and not is_right_response(CHAIN, [], SLIP)
    assert not is_right_response(CHAIN, [], "gibberish\n\n")


def test_marks_are_added_up_one_by_one():
    told = score(CHAIN, [], SLIP)
    assert told is not None and told[0] == 2
    assert told[1].startswith("a37+18:7+8=15,3+1+1=5=55;54a-0b45-20:") and told[1].endswith(";55c+2")


@pytest.mark.parametrize(("response", "points"), [(RIGHT, 3), (SLIP, 2), (TWO_SLIPS, 1), ("a37+18=55", 1)])
def test_each_right_step_adds_a_point(response: str, points: int):
    told = score(CHAIN, [], response)
    assert told is not None and told[0] == points


def test_there_are_five_points_at_most():
    steps = [f"{mark}{10 + 10 * n}+10={20 + 10 * n}" for n, mark in enumerate("abcdef")]
    told = score("10a+10b+10c+10d+10e+10f+10", [], "\n".join(steps) + " \\boxed{70}")
    assert told is not None and told[0] == FULL_SCORE and told[1].endswith(";07f+5")


def test_a_step_alone_has_one_point_or_none():
    assert score(CHAIN, [], "a37+18=55") == (1, "a37+18:7+8=15,3+1+1=5=55;55a+1")
    assert score(CHAIN, [], "a37+18=45") == (0, "a37+18:7+8=15,3+1+1=5=55;54a-0")
    assert score(CHAIN, [], "nonsense") == (0, "a37+18:7+8=15,3+1+1=5=55;?a-0")
    assert score(CHAIN, ["a37+18=55"], "b55-20=35") == (1, "b55-20:5-0=5,5-2=3=35;53b+1")


def test_the_better_response_is_right_where_they_first_differ():
    assert better_and_worse(CHAIN, RIGHT, SLIP) == better_and_worse(CHAIN, SLIP, RIGHT) == (RIGHT, SLIP)
    assert explain_responses(CHAIN, RIGHT, SLIP) == arithmetic.explain(CHAIN, [], "a37+18=55", "a37+18=45")
    assert better_and_worse(CHAIN, RIGHT, RIGHT) is None and explain_responses(CHAIN, RIGHT, RIGHT) is None
    told = arithmetic.explain(CHAIN, ["a37+18=45"], "b45-20=25", "b45-20=35")
    assert explain_responses(CHAIN, SLIP, TWO_SLIPS) == told
    assert better_and_worse(CHAIN, SLIP, TWO_SLIPS) == (SLIP, TWO_SLIPS)


def test_rows_carry_the_verifiers_labels():
    rng, seen = random.Random(0), set()
    for problem, responses in sampled(3, 40):
        for row in response_pairs(problem, responses, rng, 3):
            good, bad = (sum(right_steps(row["problem"], [], row[side])) for side in ("chosen", "rejected"))
            assert good > bad and row["granularity"] == "response" and row["previous_steps"] == []
            assert set(row["explanations"]) == {"chosen_first", "rejected_first"}
            assert row["explanations"]["chosen_first"].endswith("A")
            assert row["explanations"]["rejected_first"].endswith("B")
        for row in scored_responses(problem, responses, rng, 2):
            rights = right_steps(row["problem"], [], row["response"])
            assert row["score"] == sum(rights)
            assert row["explanation"].count("+") >= sum(rights)
            seen.add(row["score"])
        for row in scored_steps(problem, responses, rng, 2):
            right = arithmetic.is_right(row["problem"], row["previous_steps"], row["response"])
            assert row["score"] == right
    assert len(seen) > 3


def test_what_is_drawn_depends_on_the_seed_alone():
    [(problem, responses)] = sampled(5, 1)
    first, again = (scored_steps(problem, responses, random.Random(1), 3) for _ in range(2))
    assert first == again and len(first) == 3
