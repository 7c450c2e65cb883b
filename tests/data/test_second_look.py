"""Who judges in the loop, whose steps are rejected, and how the model before softens the labels."""

import asyncio
import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from psr.curation.annotator.settings import AnnotatorError, Endpoint
from psr.data.self_rewarding import SelfRewardingDataModule
from psr.engines.base import Sampling
from psr.engines.usage import Usage, usage_from_json
from psr.errors import UsageError
from psr.files.jsonl import read_json
from psr.prompts.templates import Prompts
from psr.records import StepPair
from psr.search.loop_judge import LoopJudge
from psr.search.pairs import PairSettings
from tests.curation.annotator.endpoint import FakeEndpoint, serving
from tests.data.test_self_rewarding import data_module
from tests.scripted import END, ScriptedEngine

WRITES = {"M1": ("3", "4"), "M2": ("1", "2")}
"""The two candidates of every model, for both steps of a solution."""


def preferred(prompt: str, least: bool) -> str:
    a, b = (int(line[2:]) for line in prompt.strip().split("\n")[-2:])
    return "[[A]]" if (a < b) == least else "[[B]]"


def judge_engine(tokenizer: PreTrainedTokenizerBase, least: bool = False) -> ScriptedEngine:
    """A model that does nothing but judge; it prefers the greater digit, or the lesser one."""
    return ScriptedEngine(tokenizer, lambda prompt, sampling: [preferred(prompt, least)])


@pytest.fixture
def make(tmp_path: Path, llama: Path, prompts: Prompts, tokenizer: PreTrainedTokenizerBase) -> Any:
    """(flipped=, settings) -> data and engine; the policy prefers the lesser digit, models in `flipped` the greater."""

    def made(flipped: Sequence[str] = (), **settings: Any) -> tuple[SelfRewardingDataModule, ScriptedEngine]:
        def script(prompt: str, sampling: Sampling) -> Sequence[str]:
            lines, version = prompt.strip().split("\n"), str(engine.served_version)
            if lines[-1].startswith("B "):
                return [preferred(prompt, version not in flipped)]
            return [step + ("\n" if len(lines) == 1 else END) for step in WRITES[version]]

        data, engine = data_module(tmp_path, llama, prompts, tokenizer, script, **settings)
        return data, engine

    return made


def digits(pairs: list[StepPair], tokenizer: PreTrainedTokenizerBase) -> set[tuple[str, str]]:
    texts = [
        [str(tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in (p.chosen_ids, p.rejected_ids)]
        for p in pairs
    ]
    return {(chosen.strip(), rejected.strip()) for chosen, rejected in texts}


@pytest.mark.parametrize(("model", "loaded"), [("initial", "M1"), ("previous", "M1"), ("current", "M2")])
def test_another_model_judges_in_an_engine_of_its_own(
    make: Any, tokenizer: PreTrainedTokenizerBase, llama: Path, model: str, loaded: str
):
    judge = judge_engine(tokenizer)
    data, engine = make(judge=LoopJudge(model=model, engine=judge))
    if loaded == "M2":
        data.weights = lambda number: llama  # the judge's tokenizer is read from the folder of its weights
    pairs = list(asyncio.run(data.pairs(3)))
    assert digits(pairs, tokenizer) == {("2", "1")}, "the judge's preference, not the policy's"
    assert [version for _, version in judge.loaded] == [loaded]
    assert not any("B " in prompt for prompt in engine.prompts) and all("B " in prompt for prompt in judge.prompts)


def test_the_weights_that_judge(make: Any, llama: Path, tokenizer: PreTrainedTokenizerBase):
    one = LoopJudge(model="previous", engine=judge_engine(tokenizer))
    assert [one.judging(number) for number in (1, 2, 3)] == [1, 1, 2]
    assert LoopJudge().judging(3) == 3
    folder = LoopJudge(model=str(llama), engine=(engine := judge_engine(tokenizer)))
    assert folder.judging(3) is None
    data, _ = make(judge=folder)
    asyncio.run(data.pairs(2))
    assert engine.loaded == [(llama, str(llama))]


def test_what_another_judge_costs_is_counted_apart(make: Any, tokenizer: PreTrainedTokenizerBase):
    judge = judge_engine(tokenizer)
    judge.usage["verdicts"] = Usage(requests=5)  # from before: an engine counts since it was made
    data, engine = make(judge=LoopJudge(model="initial", engine=judge))
    before = data.usage
    engine.usage["candidates"], judge.usage["verdicts"] = Usage(generated_tokens=7), Usage(requests=9)
    assert before["judge"] == Usage(requests=5) and data.usage["judge"] == Usage(requests=9)
    assert data.usage["candidates"] == Usage(generated_tokens=7)
    assert "judge" not in make()[0].usage


def test_a_stronger_model_judges_at_an_endpoint(make: Any, tokenizer: PreTrainedTokenizerBase):
    with serving(FakeEndpoint(answer=lambda prompt: "because " + preferred(prompt, least=False))) as server:
        judge = LoopJudge(engine=Endpoint(url=server.url, model="strong"))
        data, engine = make(judge=judge)
        pairs = list(asyncio.run(data.pairs(2)))
        assert digits(pairs, tokenizer) == {("4", "3")}
        assert not any("B " in prompt for prompt in engine.prompts)
        first, *_ = (json.loads(line) for line in data.run.traces(2).open())
        assert first["nodes"][0]["judgements"][0]["text"].startswith("because [[")
        asked = usage_from_json(read_json(data.run.iteration(2) / "usage.json"))["judge"]
        assert asked.requests == server.asked.total() > 0 and asked.generated_tokens > 0
        data.run.traces(2).unlink()
        asyncio.run(data.pairs(2))
        assert server.asked.total() == asked.requests, "replies that were paid for are kept"


def test_rejected_steps_may_be_those_of_m1(make: Any, tokenizer: PreTrainedTokenizerBase):
    data, engine = make(pairs=PairSettings(rejected="initial"))
    pairs = list(asyncio.run(data.pairs(3)))
    assert digits(pairs, tokenizer) == {("1", "4")}, "chosen of M2's, rejected of M1's: the worst of the two"
    assert [version for _, version in engine.loaded] == ["M2", "M1", "M2"], "searches; writes; compares"
    plain, _ = make()
    assert digits(asyncio.run(plain.pairs(3)), tokenizer) == {("1", "2")}, "the traces are of M2's own search"
    by_place = {(p.problem_id, p.depth): p.prompt_ids for p in asyncio.run(plain.pairs(3))}
    assert {(p.problem_id, p.depth): p.prompt_ids for p in pairs} == by_place
    again, idle = make(pairs=PairSettings(rejected="initial"))
    assert list(asyncio.run(again.pairs(3))) == pairs and not idle.prompts, "nothing is done twice"


def test_a_step_of_m1_that_wins_is_not_rejected(make: Any, tokenizer: PreTrainedTokenizerBase):
    judge = judge_engine(tokenizer)  # the greater digit, so M1's
    data, _ = make(judge=LoopJudge(model="initial", engine=judge), pairs=PairSettings(rejected="initial"))
    with pytest.raises(Exception, match="left no step pair"):
        asyncio.run(data.pairs(3))


@pytest.mark.parametrize(("flipped", "label"), [((), 1.0), (("M1",), 0.0)])
def test_labels_are_as_certain_as_two_models_agree(make: Any, flipped: Sequence[str], label: float):
    data, engine = make(flipped, pairs=PairSettings(soft_labels="consistency"))
    pairs = list(asyncio.run(data.pairs(3)))
    assert {pair.label for pair in pairs} == {label}
    assert read_json(data.run.iteration(3) / "search.json")["label"] == label
    assert [version for _, version in engine.loaded] == ["M2", "M1"]
    again, idle = make(flipped, pairs=PairSettings(soft_labels="consistency"))
    assert list(asyncio.run(again.pairs(3))) == pairs and not idle.prompts


def test_the_labels_of_m1_are_certain(make: Any):
    data, engine = make(pairs=PairSettings(soft_labels="consistency"))
    pairs = list(asyncio.run(data.pairs(2)))
    assert {pair.label for pair in pairs} == {1.0} and read_json(data.run.iteration(2) / "search.json")["label"] is None
    assert [version for _, version in engine.loaded] == ["M1"]


def test_pairs_carry_their_weights_to_the_rows(make: Any):
    data, _ = make(pairs=PairSettings(weight="margin"))
    pairs = asyncio.run(data.pairs(2))
    assert {pair.weight for pair in pairs} == {1.0}, "one of two candidates beats all the others"
    assert pairs.counts is None, "what counts alike is computed as before"
    odd = pairs.pairs.copy()
    odd["weight"][0], odd["label"][0] = 0.25, 0.75
    pairs.pairs = odd
    assert pairs.counts is not None and pairs.counts[:2].tolist() == [[0.25, 0.75], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "initial"}, "judge.engine is not set"),
        ({"model": "initial", "engine": Endpoint("http://x", "m")}, "name its model there"),
        ({"kind": "random", "engine": Endpoint("http://x", "m")}, "only the kind 'self' asks a model"),
        ({"form": "score", "engine": Endpoint("http://x", "m")}, "an endpoint compares and explains"),
        ({"verdicts": "logprob", "engine": Endpoint("http://x", "m")}, "an endpoint compares and explains"),
    ],
)
def test_judges_that_cannot_work_are_refused(settings: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        LoopJudge(**settings)


@pytest.mark.parametrize(
    ("pairs", "judge", "said"),
    [
        (PairSettings(weight="agreement"), LoopJudge(orders="one"), "only comparisons in both orders can agree"),
        (PairSettings(weight="agreement"), LoopJudge(form="score"), "only comparisons in both orders can agree"),
        (PairSettings(soft_labels="consistency"), LoopJudge(kind="random"), "set judge.kind to self"),
    ],
)
def test_pairs_that_the_judge_does_not_allow_are_refused(pairs: PairSettings, judge: LoopJudge, said: str):
    with pytest.raises(UsageError, match=said):
        pairs.check(judge)


def test_an_endpoint_that_does_not_answer_is_one_clear_error(make: Any, caplog: pytest.LogCaptureFixture):
    with serving(FakeEndpoint(answer=str)) as server:
        url = server.url
    alone = Endpoint(url=url, model="strong", retries=0, concurrency=1)  # the errors come one after the other
    data, _ = make(judge=LoopJudge(engine=alone), problems_per_iteration=[10])
    with pytest.raises(AnnotatorError, match="failed 1 times"):
        asyncio.run(data.pairs(2))
    gc.collect()
    assert "never retrieved" not in caplog.text, "of all the requests under way, one error is told"
