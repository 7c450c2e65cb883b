"""Tree search: layers hold what was proposed and how it was valued; values draw the search; pairs need a margin."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from psr.engines.base import Sampling
from psr.engines.local import LocalEngine
from psr.errors import UsageError
from psr.policy.folder import load_policy
from psr.prompts.encoder import Encoder
from psr.records import Problem
from psr.search.judges import JudgeSettings
from psr.search.prm import PRM, PRMJudge
from psr.search.step_search import SearchSettings, step_search
from psr.search.tree_search import SearchedTree, TreeSettings, layer_pairs, tree_from_json, tree_search
from tests.scripted import END, ScriptedEngine, candidate

PROBLEM = Problem("p", "1+2+3")
ONE = JudgeSettings("prm", orders="one")


def script(prompt: str, sampling: Sampling) -> Sequence[str]:
    """Digits: a step is one of 1 to 4; the third ends the solution."""
    last = prompt.count("\n") >= 3
    return [f"{i % 4 + 1}{END if last else chr(10)}" for i in range(sampling.n)]


class Likes:
    """Finds a step the better the greater its digit is, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    async def __call__(self, problem: Problem, steps: Sequence[str], candidates: Sequence[str]) -> list[float]:
        self.asked.append((tuple(steps), tuple(candidates)))
        return [int(text.strip()) / 5 for text in candidates]


def grow(encoder: Encoder, **settings) -> tuple[SearchedTree, Likes, ScriptedEngine]:
    engine, scorer = ScriptedEngine(encoder.tokenizer, script), Likes()
    tree = asyncio.run(tree_search(PROBLEM, engine, scorer, encoder, TreeSettings(**settings)))
    return tree, scorer, engine


@pytest.mark.parametrize("selection", ["puct", "uct"])
def test_layers_are_what_was_proposed_after_their_steps(encoder: Encoder, selection: str):
    tree, _, engine = grow(encoder, iterations=12, width=4, selection=selection)
    first = tree.layers[0]
    assert first.steps == () and first.candidates == ("1", "2", "3", "4") and first.plus == (0.2, 0.4, 0.6, 0.8)
    assert len({layer.steps for layer in tree.layers}) == len(tree.layers), "no prefix is expanded twice"
    for layer in tree.layers:
        assert len(layer.steps) <= 2, "a finished solution is not continued"
        above = next(one for one in tree.layers if one.steps == layer.steps[:-1]) if layer.steps else first
        assert not layer.steps or layer.steps[-1] in above.candidates
    assert tree.weights_version == "M1"
    assert {sampling.temperature for sampling in engine.samplings} == {0.7}


def test_the_search_goes_where_the_values_are(encoder: Encoder):
    tree, _, _ = grow(encoder, iterations=30, width=4, exploration=0.3)
    below = [layer.steps[0] for layer in tree.layers if layer.steps]
    assert below.count("4") > below.count("1")


def test_a_simulation_is_at_most_so_deep(encoder: Encoder):
    for depth, longest in ((1, 0), (2, 1), (3, 2)):
        _, scorer, _ = grow(encoder, iterations=1, width=4, depth=depth)
        assert max(len(steps) for steps, _ in scorer.asked) == longest
        assert len(scorer.asked) == depth


def test_best_and_worst_of_a_layer_are_a_pair_if_the_margin_is_there(encoder: Encoder):
    tree, _, _ = grow(encoder, iterations=3, width=4)
    first, *_ = layer_pairs(tree, 0.5)
    assert (first["chosen"], first["rejected"], first["margin"]) == ("4", "1", 0.6)
    assert first["problem"] == PROBLEM.problem and first["previous_steps"] == []
    assert len(layer_pairs(tree, 0.5)) == len(tree.layers)
    assert layer_pairs(tree, 0.7) == []
    alone, _, _ = grow(encoder, iterations=3, width=1)
    assert layer_pairs(alone, 0.0) == [], "one candidate is no pair"


def test_a_tree_survives_json(encoder: Encoder):
    tree, _, _ = grow(encoder, iterations=4, width=3)
    assert tree_from_json(asdict(tree)) == tree


def test_settings_that_cannot_work_are_named():
    with pytest.raises(UsageError, match=r"search\.iterations is 0"):
        TreeSettings(iterations=0)


# The PRM on a real engine


@pytest.fixture
def prm(llama: Path) -> PRM:
    return PRM(llama, LocalEngine(), "{problem}\n")


def test_the_score_is_the_next_token_probability_of_plus(prm: PRM, llama: Path):
    async def run() -> list[float]:
        await prm.load()
        return await prm(PROBLEM, ["1+2=3\n"], ["3+3=6\n", "3+3=7"])

    scores = asyncio.run(run())
    model, (plus, minus) = load_policy(llama), prm.encoder.labels
    for score, step in zip(scores, ("3+3=6", "3+3=7"), strict=True):
        ids = prm.encoder.tokenizer.encode(f"1+2+3\n1+2=3\n{step}\n")
        with torch.no_grad():
            two = model(torch.tensor([ids])).logits[0, -1][[plus, minus]].softmax(-1)
        assert score == pytest.approx(float(two[0]), abs=1e-4)


def test_step_marks_do_not_reach_the_prm(prm: PRM):
    assert prm.encoder.step("Step 12: 1+2=3\n") == prm.encoder.step("1+2=3")


def test_as_a_judge_the_likelier_step_wins_by_the_margin():
    candidates = [candidate("1"), candidate("3"), candidate("4")]
    close = asyncio.run(PRMJudge(Likes(), ONE, 0.3)(PROBLEM, [], candidates))
    assert [(one.first, one.second, one.winner) for one in close] == [(0, 1, 1), (0, 2, 2), (1, 2, None)]
    both = asyncio.run(PRMJudge(Likes(), JudgeSettings("prm"))(PROBLEM, [], candidates))
    assert len(both) == 6 and {one.winner for one in both if {one.first, one.second} == {1, 2}} == {2}
    few = asyncio.run(
        PRMJudge(Likes(), JudgeSettings("prm", comparisons="adaptive", orders="one"))(PROBLEM, [], candidates)
    )
    assert len(few) < 3 or {one.winner for one in few} == {1, 2}, "it asks as the settings say"
    with pytest.raises(UsageError, match=r"prm\.margin is 1"):
        PRM(Path("x"), LocalEngine(), margin=1.0)


def test_it_plugs_into_the_step_search(encoder: Encoder):
    engine = ScriptedEngine(encoder.tokenizer, script)
    settings = SearchSettings(width=4)
    trajectory = asyncio.run(step_search(PROBLEM, engine, PRMJudge(Likes(), ONE), encoder, settings))
    assert trajectory.solution == "4\n4\n4" and trajectory.finished
