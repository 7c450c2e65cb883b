"""How well a policy judges: every figure by hand, and asked as in the search."""

import asyncio
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from psr.engines.base import Sampling
from psr.engines.local import LocalEngine
from psr.evaluation.judge_metric import JudgeMetric
from psr.evaluation.judging import evaluate_judge, judge_shots, judged, judged_where_it_fits, length_bias
from psr.evaluation.scoring_study import study
from psr.prompts.encoder import Encoder
from psr.prompts.judged import written
from psr.prompts.templates import Prompts
from psr.search.judges import JudgeSettings
from tests.engines.serving import serve
from tests.scripted import ScriptedEngine

A, B, NONE = 0, 1, -1
SCORED = {"score": "{problem}\n{steps}? {response}\n", "score_verdict": "[[{score}]]"}
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


def test_a_judge_that_scores_is_right_where_the_better_side_has_more_points(
    tokenizer: PreTrainedTokenizerBase, prompts: Prompts
):
    encoder = Encoder(
        tokenizer, replace(prompts, score="{problem}\n{steps}? {response}\n", score_verdict="[[{score}]]")
    )
    points = {"7-5=2": "[[4]]", "7-5=3": "[[1]]", "7-5=4": "[[4]]", "7-5=5": "none"}
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: [points[prompt.rstrip().rpartition(" ")[2]]])
    rows = [{**ROW, "rejected": rejected} for rejected in ("7-5=3", "7-5=4", "7-5=5")] + [
        {**ROW, "chosen": "7-5=3", "rejected": "7-5=2"}
    ]
    settings = JudgeSettings(form="score")
    assert asyncio.run(judged(engine, encoder, rows, settings)) == [A, B, NONE, NONE, NONE, NONE, B, A]
    got = asyncio.run(evaluate_judge(engine, encoder, rows, settings))
    assert (got["judge_accuracy"], got["judge_unparsable"], got["judge_position_bias"]) == (0.25, 0.5, 0.0)


def test_whole_responses_are_judged_as_they_would_be_written(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: ["[[A]]"])
    row = {**ROW, "previous_steps": [], "granularity": "response", "chosen": "3+4=7\n7-5=2", "rejected": "3+4=8\n8-5=3"}
    asyncio.run(judged(engine, encoder, [row], JudgeSettings()))
    assert engine.prompts[0] == "3+4-5\nA 3+4=7\n7-5=2\nB 3+4=8\n8-5=3\n"
    marked = Prompts()
    assert written(row, "chosen", marked) == "Step 1: 3+4=7\nStep 2: 7-5=2"
    assert written(ROW, "chosen", marked) == "Step 2: 7-5=2"


def test_length_bias_is_what_the_longer_side_gets_too_often(encoder: Encoder):
    longer_right = {**ROW, "chosen": "7-5=2 \\boxed{2}"}
    longer_wrong = {**ROW, "rejected": "7-5=3 \\boxed{3}"}
    rows = [longer_right, longer_wrong, ROW]  # the last has no longer side
    assert length_bias([A, B, A, B, A, B], rows, encoder) == 0  # all right
    assert length_bias([A, B, B, A, A, B], rows, encoder) == 0.5  # the longer one always
    assert length_bias([B, A, A, B, A, B], rows, encoder) == -0.5  # the shorter one always
    assert length_bias([A, NONE, NONE, A, A, B], rows, encoder) == 0.5  # one right, one wrong for its length
    assert length_bias([A, B], [ROW], encoder) is None


def test_shots_come_before_the_question(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    rows = [{**ROW, "explanations": {"chosen_first": "2A", "rejected_first": "2B"}}] * 2
    shown = replace(encoder, shots=judge_shots(rows, encoder, 2))
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: ["[[A]]"])
    asyncio.run(judged(engine, shown, [ROW], JudgeSettings()))
    first, second = "3+4-5\n3+4=7\nA 7-5=2\nB 7-5=3\n", "3+4-5\n3+4=7\nA 7-5=3\nB 7-5=2\n"
    assert engine.prompts[0] == f"{first}2A[[A]]\n\n{second}2B[[B]]\n\n{first}"
    assert shown.reason("3+4") == encoder.reason("3+4")


def test_a_pair_that_is_too_long_is_named_and_has_no_verdict(
    llama: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
):
    long = {**ROW, "id": "long one", "previous_steps": ["3+4=7"] * 30}
    rows = [ROW, long, {**ROW, "rejected": "7-5=4"}, {**long, "id": "other"}]
    for settings in (JudgeSettings(verdicts="logprob"), JudgeSettings(max_tokens=6)):

        async def ask(engine: LocalEngine, settings: JudgeSettings = settings) -> None:
            given, too_long = await judged_where_it_fits(engine, encoder, rows, settings)
            assert given[2:4] == given[6:] == [NONE, NONE] and too_long == ["long one", "other"]
            assert given[:2] + given[4:6] == await judged(engine, encoder, rows[::2], settings)
            figures = await evaluate_judge(engine, encoder, rows, settings)
            assert figures["judge_too_long"] == 2 and figures["judge_unparsable"] >= 0.5
            assert (await evaluate_judge(engine, encoder, rows[::2], settings))["judge_too_long"] == 0
            pairwise, scoring = await study(engine, encoder, rows, settings)
            assert (pairwise["too_long"], pairwise["questions"], scoring["questions"]) == (2, 8, 16)

        serve(llama, ask)
    assert "2 of 4 judge pairs are too long and count as without a verdict: 'long one', 'other'" in caplog.text


def test_shots_are_turns_of_a_chat(bpe: PreTrainedTokenizerFast):
    bpe = copy.deepcopy(bpe)
    bpe.chat_template = "{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}<assistant>"
    encoder = Encoder(bpe, Prompts(judge="{problem}{steps}{a}{b}", chat=True), shots=(("1+1 ?", "[[A]]"),))
    asked = encoder.text(encoder.judge("2+2", "", "4", "5"))
    assert asked == "<user>1+1 ?<assistant>[[A]]<user>2+245<assistant>"


def test_both_forms_are_compared_on_the_same_pairs(tokenizer: PreTrainedTokenizerBase, prompts: Prompts):
    encoder = Encoder(
        tokenizer, replace(prompts, score="{problem}\n{steps}? {response}\n", score_verdict="[[{score}]]")
    )

    def script(prompt: str, sampling: Sampling) -> list[str]:
        if "?" not in prompt:
            return ["[[A]]"] if "7-5=4" in prompt else ["[[A]]" if "A 7-5=2" in prompt else "[[B]]"]
        if prompt.rstrip().endswith("7-5=2"):
            return ["[[4]]"]
        return ["[[3]]" if sampling.seed == 0 or "7-5=4" in prompt else "none"]

    engine = ScriptedEngine(tokenizer, script)
    rows = [ROW, {**ROW, "rejected": "7-5=4"}]
    pairwise, scoring = asyncio.run(study(engine, encoder, rows, JudgeSettings()))
    assert (pairwise["form"], pairwise["consistency"], pairwise["agreement"], pairwise["tied"]) == (
        "pairwise",
        0.5,
        0.5,
        0.5,
    )
    assert (scoring["form"], scoring["consistency"], scoring["agreement"], scoring["tied"]) == ("score", 0.5, 1.0, 0.0)
    assert (scoring["unparsable"], scoring["questions"], pairwise["questions"]) == (1 / 8, 8, 4)
    assert {sampling.temperature for sampling in engine.samplings} == {0.0, 0.7}
