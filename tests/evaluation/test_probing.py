"""Two models on the same probe problems: what the judge is shown, who wins, and when that is significant."""

import asyncio

import pytest

from psr.engines.base import PromptTooLong, Sampling
from psr.evaluation.probing import Probe, compare, comparison, divergence, first_difference, outcomes, probe, steps_of
from psr.evaluation.statistics import exact_interval
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Judgement, Problem
from psr.search.judges import JudgeSettings
from tests.scripted import END, PreferenceJudge, ScriptedEngine


def written(text: str, answer: str | None = "1", number: int = 0, sampled: tuple[str | None, ...] = ()) -> Probe:
    return Probe(Problem(f"p{number}", "1+1"), text, len(text), answer, sampled)


def test_the_steps_of_a_solution_are_those_of_a_search(prompts: Prompts):
    assert steps_of("a\nb\nc", prompts) == ["a\n", "b\n", "c"]
    marked = Prompts(step_marker="Step ", step_separator="\n\n")
    text = "Step 1: a\nb\n\nStep 2: c"
    assert steps_of(text, marked) == ["Step 1: a\nb\n\n", "Step 2: c"]
    assert "".join(steps_of(text, marked)) == text


def test_the_judge_is_shown_the_first_steps_that_differ(prompts: Prompts):
    assert first_difference("a\nb\nc", "a\nx\nc", prompts) == (["a\n"], "b\n", "x\n")
    assert first_difference("a\nb", "a\nc\nd", prompts) == (["a\n"], "b", "c\n")
    assert first_difference("a\nb", "a\nb", prompts) is None
    assert first_difference("a\nb", "a\nb\nc", prompts) is None, "one goes on: there is no pair of next steps"


def test_who_wins_a_problem(prompts: Prompts):
    before = [written("a\nb"), written("a"), written("a"), written("long", None), written("long", None)]
    after = [written("a\nbb"), written("a"), written("a", None), written("b"), written("longer", None)]
    judge = PreferenceJudge(len)
    assert asyncio.run(outcomes(before, after, judge, prompts, "step", "compares")) == [1, 0, -1, 1, 1]
    shown = [(steps, candidates) for _, steps, candidates in judge.asked]
    assert shown == [(("a\n",), ("b", "bb")), ((), ("long", "longer"))], "equal, or one without an answer: not asked"
    judge = PreferenceJudge(len)
    asyncio.run(outcomes(before[:1], after[:1], judge, prompts, "whole", "compares"))
    assert judge.asked[0][1:] == ((), ("a\nb", "a\nbb"))


def test_a_verdict_that_the_order_decides_wins_nothing(prompts: Prompts, encoder: Encoder):
    engine = ScriptedEngine(encoder.tokenizer, lambda prompt, sampling: ["[[A]]" + END])
    settings = JudgeSettings(kind="random", orders="one")  # whoever judges the loop's steps: here the model does, twice
    old, new = [written("1+1=2")], [written("1+1=3")]
    found = asyncio.run(compare(engine, encoder, settings, old, new, "step", 0.95, "compares"))
    assert len(engine.prompts) == 2
    assert (found["wins"], found["losses"], found["win_share"], found["worse"]) == (0, 0, None, False)


@pytest.mark.parametrize(
    ("wins", "losses", "worse"), [(0, 5, False), (0, 6, True), (10, 20, False), (9, 22, True), (20, 3, False)]
)
def test_worse_is_what_chance_does_not_explain(encoder: Encoder, wins: int, losses: int, worse: bool):
    won = [1] * wins + [-1] * losses + [0] * 50
    probes = [written("1+1=2", number=i) for i in range(len(won))]
    found = comparison(probes, probes, won, encoder, 0.95)
    assert found["worse"] is worse
    assert found["low"] <= found["win_share"] <= found["high"]
    assert found["win_share"] == pytest.approx(wins / (wins + losses))


def test_the_exact_interval_is_that_of_the_binomial_distribution():
    low, high = exact_interval(0, 6, 0.95)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 6))
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_how_a_model_writes(encoder: Encoder):
    old = [written("1+1=2", "2", sampled=("2", "3")), written("1+1", None, sampled=(None, "2"))]
    new = [written("1+1=2", "2", sampled=("2", "2"))] * 2
    found = comparison(old, new, [0, 1], encoder, 0.95)
    assert found["before"] == {"finished": 0.5, "consistency": 0.25, "tokens": 4.0}
    assert found["after"] == {"finished": 1.0, "consistency": 1.0, "tokens": 5.0}
    assert comparison([written("1")], [written("2")], [0], encoder, 0.95)["after"]["consistency"] is None


def test_the_distance_of_texts():
    assert divergence([[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]) == pytest.approx(0)
    assert divergence([[1, 2]], [[3, 4]]) == pytest.approx(1)
    assert 0 < divergence([[1, 2, 3]], [[1, 2, 4]]) < 1
    assert divergence([[1]], [[1, 2]]) == 0


def test_a_solution_that_is_cut_off_or_has_no_box_has_no_answer(encoder: Encoder):
    replies = {"1+1": r"1+1=2 \boxed{2}" + END, "1+2": r"1+2=3 \boxed{3}…", "1+3": "1+3=4" + END}

    def script(prompt: str, sampling: Sampling) -> list[str]:
        text = replies[prompt.strip()]
        return [text] if sampling.temperature == 0 else [text, r"\boxed{9}" + END]

    problems = [Problem(text, text) for text in replies]
    engine = ScriptedEngine(encoder.tokenizer, script)
    probes = asyncio.run(probe(engine, encoder, problems, 20, Sampling(20, temperature=0.7, n=2), "solves"))
    assert [one.answer for one in probes] == ["2", None, None]
    assert [one.sampled for one in probes] == [("2", "9"), (None, "9"), (None, "9")]
    alone = asyncio.run(probe(engine, encoder, problems, 20, None, "solves"))
    assert all(one.sampled == () for one in alone)


def test_where_there_is_no_room_nobody_wins(encoder: Encoder, prompts: Prompts):
    def script(prompt: str, sampling: Sampling) -> list[str]:
        raise PromptTooLong("no room")

    class Cramped(PreferenceJudge):
        async def __call__(self, *asked: object) -> list[Judgement]:
            raise PromptTooLong("no room")

    engine = ScriptedEngine(encoder.tokenizer, script)
    [unsolved] = asyncio.run(probe(engine, encoder, [Problem("p", "1+1")], 20, None, "solves"))
    assert (unsolved.answer, unsolved.tokens) == (None, 0)
    both = [written("a"), unsolved], [written("b"), unsolved]
    assert asyncio.run(outcomes(*both, Cramped(len), prompts, "step", "compares")) == [0, 0]
