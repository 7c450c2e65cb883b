"""A problem that is too long for the model counts as unsolved, and the others are solved."""

import asyncio
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from psr.engines.base import PromptTooLong, Sampling
from psr.evaluation.solving import solve_by_search, solve_greedy
from psr.prompts.encoder import Encoder
from psr.records import GoldProblem
from psr.search.judges import JudgeSettings, build_judge
from psr.search.step_search import SearchSettings
from tests.scripted import END, ScriptedEngine

PROBLEMS = [GoldProblem("long", "1+3", "4"), GoldProblem("short", "3+4", "7")]


def write(prompt: str, sampling: Sampling) -> Sequence[str]:
    if prompt.startswith("1+3"):
        raise PromptTooLong("no room")
    return ["\\boxed{7}" + END] * sampling.n


def test_a_problem_that_is_too_long_is_unsolved(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    engine = ScriptedEngine(tokenizer, write)
    greedy = asyncio.run(solve_greedy(engine, encoder, PROBLEMS, 20))
    assert [(one.correct, one.finished, one.tokens > 0) for one in greedy] == [
        (False, False, False),
        (True, True, True),
    ]
    judge = build_judge(JudgeSettings(kind="random"), engine, encoder, None)
    correct, trajectories = asyncio.run(solve_by_search(engine, encoder, PROBLEMS, judge, SearchSettings(width=2)))
    assert correct == [False, True] and trajectories[0].nodes == ()
