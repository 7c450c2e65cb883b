"""How pairs count: weights by margin and by agreement, and how far two judges rank the same candidates alike."""

from dataclasses import replace

import pytest

from psr.records import Judgement, Problem, StepNode, Trajectory, step_pairs
from psr.search.pairs import WEIGHTS, consistency
from tests.scripted import candidate


def node(texts: str, scores: tuple[int, ...], judgements: tuple[Judgement, ...] = ()) -> StepNode:
    candidates = tuple(candidate(text) for text in texts)
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    return StepNode(0, candidates, judgements, scores, best, worst, "kept")


def test_the_weight_of_a_pair():
    # a beats b in both orders; a and c: one order each way
    judgements = (Judgement(0, 1, 0), Judgement(1, 0, 0), Judgement(0, 2, 0), Judgement(2, 0, 2))
    one = node("abc", (1, 0, 0), judgements)
    assert WEIGHTS["none"](one) == 1
    assert WEIGHTS["margin"](one) == 1 / 2, "the best of three can win two"
    assert WEIGHTS["agreement"](one) == 1 / 2
    assert WEIGHTS["margin"](node("abc", (2, 1, 0))) == 1
    trajectory = Trajectory(Problem("p", "1+1"), (1,), (one,), True, "M1")
    [pair] = step_pairs(trajectory, weight=WEIGHTS["margin"])
    assert (pair.weight, pair.label) == (0.5, 1.0)


def test_how_far_two_judges_rank_alike():
    one = node("abca", (3, 1, 0, 3))  # a twice: counts once
    same, turned = replace(one, scores=(2, 1, 0, 2)), replace(one, scores=(0, 1, 2, 0))
    blind = replace(one, scores=(0, 0, 0, 0))
    assert consistency([(one, same)]) == pytest.approx(1)
    assert consistency([(one, turned)]) == pytest.approx(0)
    assert consistency([(one, blind)]) == 0.5
    assert consistency([(one, same), (one, blind)]) == pytest.approx(0.75)
    assert consistency([]) is None
