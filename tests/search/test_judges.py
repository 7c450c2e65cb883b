"""Judges: what is asked, what verdicts are worth (equations 1-2), and that no judge needs more than texts."""

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from psr.engines.base import Sampling
from psr.engines.local import LocalEngine
from psr.errors import UsageError
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Judgement, Problem
from psr.search.judges import (
    JudgeSettings,
    RandomJudge,
    SelfJudge,
    VerifierJudge,
    build_judge,
    scores,
    verdicts,
)
from tests.scripted import END, ScriptedEngine, adds_up, candidate

PROBLEM = Problem("p", "3+4-5")


def candidates(*texts: str) -> tuple[Candidate, ...]:
    return tuple(candidate(text) for text in texts)


def both(i: int, j: int, winner: int | None, swapped: int | None) -> list[Judgement]:
    """The verdicts of a pair asked in both orders."""
    return [Judgement(i, j, winner), Judgement(j, i, swapped)]


def test_score_is_the_number_of_candidates_beaten():
    judgements = both(0, 1, 0, 0) + both(0, 2, 0, 0) + both(1, 2, 2, 2)
    assert scores(candidates("a", "b", "c"), judgements) == (2, 0, 1)


def test_a_cycle_gives_everyone_the_same_score():
    judgements = both(0, 1, 0, 0) + both(1, 2, 1, 1) + both(0, 2, 2, 2)
    assert scores(candidates("a", "b", "c"), judgements) == (1, 1, 1)


def test_orders_that_disagree_give_no_win():
    assert scores(candidates("a", "b"), both(0, 1, 0, 1)) == (0, 0)


def test_one_unparsable_order_gives_no_win_to_either():
    assert scores(candidates("a", "b"), both(0, 1, 0, None)) == (0, 0)
    assert scores(candidates("a", "b"), both(0, 1, None, 0)) == (0, 0)
    assert scores(candidates("a", "b"), both(0, 1, None, None)) == (0, 0)


def test_asked_in_one_order_a_single_verdict_counts():
    assert scores(candidates("a", "b"), [Judgement(0, 1, 1)]) == (0, 1)
    assert scores(candidates("a", "b"), [Judgement(0, 1, None)]) == (0, 0)


def test_duplicates_share_verdicts_and_do_not_beat_each_other():
    assert scores(candidates("a", "b", "a", "b", "b"), both(0, 1, 0, 0)) == (3, 0, 3, 0, 0)
    assert scores(candidates("a", "b", "a"), both(0, 1, 1, 1)) == (0, 2, 0)
    assert scores(candidates("a", "a"), []) == (0, 0)


def test_nothing_to_score():
    assert scores((), []) == ()
    assert scores(candidates("a"), []) == (0,)


def questions(some: tuple[Candidate, ...], orders: Literal["both", "one"]) -> set[tuple[int, int]]:
    asked = [(j.first, j.second) for j in ask(RandomJudge(JudgeSettings(orders=orders)), some)]
    assert len(set(asked)) == len(asked)
    return set(asked)


def test_every_pair_of_distinct_texts_is_compared_in_the_orders_asked_for():
    four = candidates("a", "b", "a", "c")
    assert questions(four, "one") == {(0, 1), (0, 3), (1, 3)}
    assert questions(four, "both") == {(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)}
    assert questions(candidates("a", "a"), "both") == set()
    assert len(questions(candidates(*"abcdef"), "both")) == 30


def ask(judge: object, four: tuple[Candidate, ...], steps: tuple[str, ...] = (), problem: Problem = PROBLEM):
    return asyncio.run(judge(problem, steps, four))  # type: ignore[operator]


def prefers(better: str, label_of_neither: str = ""):
    """A scripted judge that names the side that shows `better`."""

    def script(prompt: str, sampling: Sampling) -> list[str]:
        a, b = (line[2:] for line in prompt.strip().split("\n")[-2:])
        verdict = "[[A]]" if a == better else "[[B]]" if b == better else label_of_neither
        return ["5 " + verdict]

    return script


def test_self_judge_asks_with_the_steps_so_far_and_maps_labels_to_candidates(
    tokenizer: PreTrainedTokenizerBase, encoder: Encoder
):
    engine = ScriptedEngine(tokenizer, prefers("7-5=2"))
    judge = SelfJudge(engine, encoder, JudgeSettings())
    judgements = ask(judge, candidates("7-5=3\n", "7-5=2\n"), ("3+4=7\n",))
    assert engine.prompts == ["3+4-5\n3+4=7\nA 7-5=3\nB 7-5=2\n", "3+4-5\n3+4=7\nA 7-5=2\nB 7-5=3\n"]
    assert [(j.first, j.second, j.winner) for j in judgements] == [(0, 1, 1), (1, 0, 1)]
    assert [j.text for j in judgements] == ["5 [[B]]", "5 [[A]]"]


def test_self_judge_decodes_greedily_and_stops_at_a_verdict(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, prefers("1"))
    ask(SelfJudge(engine, encoder, JudgeSettings(max_tokens=33)), candidates("1", "2"))
    assert {(s.temperature, s.n, s.max_new_tokens, s.stop) for s in engine.samplings} == {
        (0.0, 1, 33, ("[[A]]", "[[B]]"))
    }


def test_an_unparsable_verdict_has_no_winner_and_keeps_its_text(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: ["5" + END])
    judgements = ask(SelfJudge(engine, encoder, JudgeSettings()), candidates("1", "2"))
    assert [(j.winner, j.text) for j in judgements] == [(None, "5"), (None, "5")]


def test_a_judge_that_always_says_a_gives_nobody_a_win_in_both_orders(
    tokenizer: PreTrainedTokenizerBase, encoder: Encoder
):
    three = candidates("1", "2", "3")
    engine = ScriptedEngine(tokenizer, lambda prompt, sampling: ["[[A]]"])
    assert scores(three, ask(SelfJudge(engine, encoder, JudgeSettings()), three)) == (0, 0, 0)
    assert scores(three, ask(SelfJudge(engine, encoder, JudgeSettings(orders="one")), three)) == (2, 1, 0)


def test_equal_candidates_cost_no_question(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, prefers("1"))
    assert ask(SelfJudge(engine, encoder, JudgeSettings()), candidates("1", "1", "1")) == []
    assert engine.prompts == []


def test_logprob_verdicts_compare_the_two_tokens_after_the_shared_part(
    tokenizer: PreTrainedTokenizerBase, encoder: Encoder
):
    engine = ScriptedEngine(
        tokenizer, prefers("1"), choices=lambda prompt: (-1.0, -2.0) if "A 1\n" in prompt else (-3.0, -0.5)
    )
    judgements = ask(SelfJudge(engine, encoder, JudgeSettings(verdicts="logprob")), candidates("1", "2"))
    assert engine.prompts == ["3+4-5\nA 1\nB 2\n[[", "3+4-5\nA 2\nB 1\n[["]
    assert [j.winner for j in judgements] == [0, 0]


def test_logprob_verdicts_of_a_real_model_are_its_log_softmax(encoder: Encoder, policy: Path):
    asked = [encoder.judge("3+4", "", "3+4=7", "3+4=8"), encoder.judge("13+4-5", "13+4=17\n", "17-5=12", "17-5=2")]
    engine = LocalEngine()

    async def replies() -> list[tuple[str | None, str]]:
        await engine.load_weights(policy, "M1")
        return await verdicts(engine, encoder, asked, JudgeSettings(verdicts="logprob"))

    got = asyncio.run(replies())
    model = AutoModelForCausalLM.from_pretrained(str(policy), dtype=torch.float32)
    shared, (a, b) = encoder.verdict_choices()
    for prompt, (label, text) in zip(asked, got, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *shared]])).logits[0, -1].log_softmax(-1)
        assert label == ("A" if logprobs[a] > logprobs[b] else "B")
        assert text == f"log p(A) = {logprobs[a]:.3f}, log p(B) = {logprobs[b]:.3f}"


def test_random_judge_is_fixed_by_seed_problem_and_texts():
    six = candidates(*"abcdef")
    one = ask(RandomJudge(JudgeSettings(seed=1)), six, ("x",))
    assert one == ask(RandomJudge(JudgeSettings(seed=1)), six, ("x",))
    winners = [j.winner for j in one]
    assert winners != [j.winner for j in ask(RandomJudge(JudgeSettings(seed=2)), six, ("x",))]
    assert winners != [j.winner for j in ask(RandomJudge(JudgeSettings(seed=1)), six, ("y",))]
    assert winners != [j.winner for j in ask(RandomJudge(JudgeSettings(seed=1)), six, ("x",), Problem("q", "3+4-5"))]


def test_random_judge_prefers_neither_a_side_nor_an_order():
    judge = RandomJudge(JudgeSettings())
    asked = [ask(judge, candidates("a", "b"), (), Problem(str(i), "")) for i in range(800)]
    margin = 4 * math.sqrt(0.25 / 800)
    first = sum(j[0].winner == 0 for j in asked) / 800
    agree = sum(j[0].winner == j[1].winner for j in asked) / 800
    assert abs(first - 0.5) < margin
    assert abs(agree - 0.5) < margin


CHAIN = Problem("p", "13+14-15")


def test_verifier_judge_prefers_right_to_wrong_and_nothing_else():
    four = candidates("13+14=27\n", "13+14=28\n", "13+14:3+4=7,1+1=2=27\n", "13+14=17\n")
    judgements = ask(VerifierJudge(adds_up, JudgeSettings(orders="both")), four, (), CHAIN)
    assert Counter(j.winner for j in judgements) == {0: 4, 2: 4, None: 4}
    assert scores(four, judgements) == (2, 0, 2, 0)


def test_verifier_judge_looks_at_the_steps_so_far():
    judge = VerifierJudge(adds_up, JudgeSettings(orders="one"))
    two = candidates("27-15=12", "28-15=13")
    assert [j.winner for j in ask(judge, two, ("13+14=27\n",), CHAIN)] == [0]
    assert [j.winner for j in ask(judge, two, ("13+14=28\n",), CHAIN)] == [1]


def test_settings_choose_the_judge(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, prefers("1"))
    assert isinstance(build_judge(JudgeSettings("self"), engine, encoder, None), SelfJudge)
    assert isinstance(build_judge(JudgeSettings("random"), engine, encoder, None), RandomJudge)
    assert isinstance(build_judge(JudgeSettings("verifier"), engine, encoder, adds_up), VerifierJudge)
    with pytest.raises(UsageError, match=r"judge\.kind is 'verifier'"):
        build_judge(JudgeSettings("verifier"), engine, encoder, None)
