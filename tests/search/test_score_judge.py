"""The judge that scores: what it asks, what its scores mean for the search, and whole responses as steps."""

import asyncio
import re

import pytest
from transformers import PreTrainedTokenizerBase

from psr.engines.base import Sampling
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem, step_pairs
from psr.search.judges import JudgeSettings, ScoreJudge, SelfJudge, build_judge, scores
from psr.search.step_search import SearchSettings, step_search
from tests.scripted import END, ScriptedEngine, candidate

PROMPTS = Prompts(
    reason="{problem}\n",
    judge="{problem}\n{steps}A {a}\nB {b}\n",
    score="{problem}\n{steps}? {response}\n",
    score_verdict="[[{score}]]",
    step_marker="",
    step_separator="\n",
)
PROBLEM = Problem("p", "13+14-15")
POINTS = {"13+14=27": 5, "13+14=28": 1, "13+14=29": 1, "13+14=30": None}


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tokenizer, PROMPTS)


def by_points(prompt: str, sampling: Sampling) -> list[str]:
    """A reply with the points of the response that the prompt shows."""
    shown = re.findall(r"\? (.*)\n$", prompt, re.DOTALL)[0]
    points = POINTS[shown]
    return ["7+8=15;" if points is None else f"7+8=15;[[{points}]]"] * sampling.n


def judgements(
    encoder: Encoder, texts: list[str], **settings: object
) -> tuple[ScriptedEngine, tuple[int, ...], list[str]]:
    engine = ScriptedEngine(encoder.tokenizer, by_points)
    candidates = [candidate(text) for text in texts]
    judge = build_judge(JudgeSettings(form="score"), engine, encoder, None)
    given = asyncio.run(judge(PROBLEM, ["1+1=2\n"], candidates))
    return engine, scores(candidates, given), [one.text for one in given]


def test_the_higher_score_wins_and_equal_ones_win_nothing(encoder: Encoder):
    engine, wins, texts = judgements(encoder, ["13+14=28", "13+14=27", "13+14=29", "13+14=27"])
    assert wins == (0, 2, 0, 2)
    assert engine.prompts == [f"13+14-15\n1+1=2\n? {text}\n" for text in ("13+14=28", "13+14=27", "13+14=29")]
    assert texts[0] == "score 1: 7+8=15;[[1]]\nscore 5: 7+8=15;[[5]]"


def test_a_score_that_cannot_be_parsed_wins_and_loses_nothing(encoder: Encoder):
    _, wins, texts = judgements(encoder, ["13+14=30", "13+14=27"])
    assert wins == (0, 0) and texts == ["score none: 7+8=15;\nscore 5: 7+8=15;[[5]]"]


def test_one_distinct_candidate_is_not_scored(encoder: Encoder):
    engine, wins, _ = judgements(encoder, ["13+14=27", "13+14=27"])
    assert engine.prompts == [] and wins == (0, 0)


def test_several_sampled_scores_are_averaged(encoder: Encoder):
    engine = ScriptedEngine(
        encoder.tokenizer,
        lambda prompt, sampling: ["[[3]]", "[[4]]", "1+1=2"] if "=27" in prompt else ["[[3]]", "[[3]]", "[[5]]"],
    )
    settings = JudgeSettings(form="score", score_samples=3, score_temperature=0.7)
    judge = ScoreJudge(engine, encoder, settings)
    [one] = asyncio.run(judge(PROBLEM, [], [candidate("13+14=27"), candidate("13+14=28")]))
    assert one.winner == 1 and one.text.startswith("score 3.5:") and "score 3.67:" in one.text
    assert (engine.samplings[0].n, engine.samplings[0].temperature) == (3, 0.7)


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ValueError, match="score_samples is 3"):
        JudgeSettings(score_samples=3)
    with pytest.raises(ValueError, match="score_samples is 0"):
        JudgeSettings(score_samples=0)


def test_the_form_decides_who_judges(encoder: Encoder):
    engine = ScriptedEngine(encoder.tokenizer, by_points)
    assert isinstance(build_judge(JudgeSettings(), engine, encoder, None), SelfJudge)
    assert isinstance(build_judge(JudgeSettings(form="score"), engine, encoder, None), ScoreJudge)


RESPONSES = ["13+14=27\n27-15=12 \\boxed{12}", "13+14=28\n28-15=13 \\boxed{13}", "13+14=27\n27-15=13 \\boxed{13}"]


def responder(prompt: str, sampling: Sampling) -> list[str]:
    """Whole responses for the problem; for a response 5 points less the place in the list."""
    if "?" not in prompt:
        return [text + END for text in RESPONSES] + ["13+14=27\n27…"]
    shown = re.findall(r"\? (.*)\n$", prompt, re.DOTALL)[0]
    return [f"[[{5 - RESPONSES.index(shown)}]]"]


def test_a_whole_response_is_one_step_of_the_same_search(encoder: Encoder):
    engine = ScriptedEngine(encoder.tokenizer, responder)
    settings = SearchSettings(width=4, granularity="response", max_step_tokens=90)
    judge = build_judge(JudgeSettings(form="score"), engine, encoder, None)
    found = asyncio.run(step_search(PROBLEM, engine, judge, encoder, settings))
    assert engine.samplings[0].stop == () and engine.samplings[0].max_new_tokens == 90
    [node] = found.nodes
    assert found.finished and found.solution == RESPONSES[0]
    assert [one.text for one in node.candidates] == RESPONSES  # the one that was cut off is gone
    [pair] = step_pairs(found)
    assert encoder.text(pair.chosen_ids) == RESPONSES[0] and encoder.text(pair.rejected_ids) == RESPONSES[2]
    assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == encoder.tokenizer.eos_token_id
    assert pair.margin == 2


def test_scores_are_written_and_read_back():
    assert [PROMPTS.parse_score(f"1+1 {PROMPTS.score_text(points)}") for points in range(6)] == list(range(6))
    assert Prompts().parse_score("Score: 2, no: Score: 4.") == 4
    assert Prompts().parse_score("Score: 9") is None and Prompts().parse_score("") is None
    with pytest.raises(ValueError, match=r"prompts\.score lacks \{response\}"):
        Prompts(score="{problem}{steps}")
    filled = Prompts().score_prompt("1+1?", "Step 1: so.\n", "Step 2: \\boxed{2}\n")
    assert "1+1?" in filled and "Step 1: so.\n" in filled and filled.endswith("Step 2: \\boxed{2}\nReview:\n")
