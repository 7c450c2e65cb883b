"""The figures of a search, worked out by hand on two small trajectories."""

import pytest

from psr.records import Judgement, Problem, StepNode, Trajectory
from psr.search.statistics import longer_chosen, mean, order_agreement, search_summary, tally, total
from tests.scripted import candidate


def node(texts: list[str], judgements: list[tuple[int, int, int | None]], event: str = "kept") -> StepNode:
    """A node of which the first candidate is chosen and the last is rejected."""
    made = tuple(Judgement(*judgement) for judgement in judgements)
    scores = (1,) + (0,) * (len(texts) - 1)
    return StepNode(0, tuple(map(candidate, texts)), made, scores, 0, len(texts) - 1, event)  # type: ignore[arg-type]


AGREEING, OPPOSED, BROKEN = [(0, 1, 0), (1, 0, 0)], [(0, 1, 0), (1, 0, 1)], [(0, 1, None), (1, 0, 0)]
FINISHED = Trajectory(
    Problem("a", ""), (1,), (node(["longer", "short"], AGREEING), node(["aa", "bbb"], OPPOSED)), True, "M1"
)
UNFINISHED = Trajectory(
    Problem("b", ""),
    (1,),
    (node(["xx", "yy"], BROKEN), node(["z", "z", "w"], [], "rolled_back"), node(["u", "u"], [], "tied")),
    False,
    "M1",
)


def test_every_figure_of_the_summary_by_hand():
    summary = search_summary(total(map(tally, [FINISHED, UNFINISHED])), pairs=3)
    assert summary == {
        "too_long": 0,
        "problems": 2,
        "finished": 0.5,
        "pairs": 3,
        "expansions": 5,
        "tied": 1,
        "rolled_back": 1,
        "verdicts": 6,
        "unparsable": pytest.approx(1 / 6),
        "first_wins": pytest.approx(3 / 5),
        "orders_agree": 0.5,
        "distinct_candidates": pytest.approx((2 + 2 + 2 + 2 + 1) / 5),
        "longer_chosen": 0.5,
        "steps_per_solution": 2.0,
        "step_length_tokens": pytest.approx((6 + 2 + 2) / 3),
    }


def test_shares_of_nothing_are_none_and_counts_are_zero():
    summary = search_summary(total([]), 0)
    assert summary["problems"] == summary["expansions"] == summary["verdicts"] == 0
    assert summary["finished"] is summary["unparsable"] is summary["first_wins"] is summary["orders_agree"] is None
    assert mean([]) is None and mean([True, False]) == 0.5


def test_a_search_without_any_candidate_can_be_summed_up():
    empty = StepNode(0, (), (), (), 0, 0, "tied")
    assert (
        search_summary(tally(Trajectory(Problem("a", ""), (1,), (empty,), False, "M1")), 0)["distinct_candidates"] == 0
    )


def test_agreement_is_asked_of_pairs_with_two_verdicts_only():
    assert order_agreement(node(["a", "b"], AGREEING)) == [True]
    assert order_agreement(node(["a", "b"], OPPOSED)) == [False]
    assert order_agreement(node(["a", "b"], BROKEN)) == []
    assert order_agreement(node(["a", "b"], [(0, 1, 0)])) == []


def test_steps_of_equal_length_say_nothing_of_length_bias():
    assert longer_chosen([node(["aa", "b"], []), node(["a", "bb"], []), node(["a", "b"], [])]) == [True, False]
