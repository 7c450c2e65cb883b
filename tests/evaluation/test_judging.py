"""How well a policy judges: every figure by hand, and asked as in the search."""

import asyncio
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from psr.encoding import Encoder
from psr.evaluation.judging import JudgeMetric, evaluate_judge
from psr.search.judges import JudgeSettings
from tests.scripted import ScriptedEngine

A, B, NONE = 0, 1, -1
ROW: dict[str, Any] = {"problem": "3+4-5", "previous_steps": ["3+4=7"], "chosen": "7-5=2", "rejected": "7-5=3"}


def figures(*pairs: tuple[int, int]) -> list[float]:
    """Accuracy, unparsable, position bias, consistency of verdicts on pairs shown right step first, then second."""
    metric = JudgeMetric()
    for pair in pairs:
        metric.update(torch.tensor(pair), torch.tensor([A, B]))
    computed = metric.compute()
    names = ("judge_accuracy", "judge_unparsable", "judge_position_bias", "judge_consistency")
    return [float(computed[name]) for name in names]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(A, B)], [1.0, 0.0, 0.0, 1.0]),
        ([(B, A)], [0.0, 0.0, 0.0, 1.0]),
        ([(A, A)], [0.5, 0.0, 0.5, 0.0]),
        ([(B, B)], [0.5, 0.0, -0.5, 0.0]),
        ([(A, NONE)], [0.5, 0.5, 0.5, 0.0]),
        ([(NONE, NONE)], [0.0, 1.0, 0.0, 0.0]),
        ([(A, B), (A, A), (B, A), (NONE, B)], [0.5, 1 / 8, 4 / 7 - 0.5, 0.5]),
    ],
)
def test_figures_by_hand(pairs: list[tuple[int, int]], expected: list[float]):
    assert figures(*pairs) == pytest.approx(expected)


def test_all_pairs_at_once_or_one_by_one_is_the_same():
    pairs = [(A, B), (A, A), (NONE, B)]
    metric = JudgeMetric()
    metric.update(torch.tensor(pairs).flatten(), torch.tensor([A, B] * 3))
    assert [float(value) for value in metric.compute().values()] == pytest.approx(figures(*pairs))


def test_a_policy_is_asked_in_both_orders_as_in_the_search(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: ["[[A]]" if "A 7-5=2\n" in prompt else "[[B]]"])
    got = asyncio.run(evaluate_judge(engine, encoder, [ROW, ROW], JudgeSettings()))
    assert engine.prompts == ["3+4-5\n3+4=7\nA 7-5=2\nB 7-5=3\n", "3+4-5\n3+4=7\nA 7-5=3\nB 7-5=2\n"] * 2
    assert (got["judge_accuracy"], got["judge_consistency"], got["judge_position_bias"]) == (1.0, 1.0, 0.0)


def test_a_policy_that_always_says_a_is_right_half_the_time(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: ["[[A]]"])
    got = asyncio.run(evaluate_judge(engine, encoder, [ROW], JudgeSettings()))
    assert (got["judge_accuracy"], got["judge_position_bias"], got["judge_consistency"]) == (0.5, 0.5, 0.0)


def test_log_probabilities_can_judge_too(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, lambda *_: [], choices=lambda prompt: (-2.0, -1.0))
    got = asyncio.run(evaluate_judge(engine, encoder, [ROW], JudgeSettings(verdicts="logprob")))
    assert (got["judge_accuracy"], got["judge_position_bias"]) == (0.5, -0.5)
