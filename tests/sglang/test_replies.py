"""What a real server answers, against the in-process engine in float32 on the same weights.

Tolerances: greedy token ids are equal; log-probabilities differ by at most 1e-4, since the two add up in other orders.
"""

import asyncio
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from psr.engines.base import Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.engines.sglang import SGLangEngine
from psr.prompts.encoder import Encoder
from psr.search.judges import JudgeSettings, verdicts
from tests.sglang.conftest import both

TOLERANCE = 1e-4


def problems(count: int) -> list[str]:
    rng = random.Random(0)
    return [
        "".join(f"{rng.choice('+-')}{rng.randrange(10, 99)}" for _ in range(rng.randint(2, 5))) for _ in range(count)
    ]


@pytest.fixture
def asked(encoder: Encoder) -> list[tuple[int, ...]]:
    return [encoder.reason(problem) for problem in problems(24)]


@pytest.fixture
def judged(encoder: Encoder) -> list[tuple[int, ...]]:
    return [encoder.judge(problem, "a1+2=3\n", "b3+4=7", "b3+4=8") for problem in problems(24)]


def test_greedy_tokens_texts_and_logprobs_are_the_in_process_engines(
    engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    served, local = both(policies[0], engine, lambda one: one.generate(asked, Sampling(max_new_tokens=60)))
    for [one], [other] in zip(served, local, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.text, one.finish_reason, one.weights_version) == (other.text, other.finish_reason, "M1")
        assert one.logprob == pytest.approx(other.logprob, abs=TOLERANCE * len(one.token_ids))
    assert len({one.token_ids for [one] in served}) > 12, "the prompts hardly matter: the test proves too little"


def test_verdict_logprobs_are_the_in_process_engines(
    engine: SGLangEngine, policies: tuple[Path, Path], judged: list[tuple[int, ...]], encoder: Encoder
):
    shared, choices = encoder.verdict_choices()
    prompts = [prompt + shared for prompt in judged]
    served, local = both(policies[0], engine, lambda one: one.choice_logprobs(prompts, choices))
    assert torch.allclose(torch.tensor(served), torch.tensor(local), atol=TOLERANCE)
    assert torch.tensor(served).std() > 0.1


@pytest.mark.parametrize("path", ["explain", "logprob"])
def test_verdicts_are_the_in_process_engines_on_both_paths(
    path: str, engine: SGLangEngine, policies: tuple[Path, Path], judged: list[tuple[int, ...]], encoder: Encoder
):
    settings = JudgeSettings(verdicts=path, max_tokens=40)  # type: ignore[arg-type]

    async def labels(one: Engine) -> list[tuple[str | None, str]]:
        found = await verdicts(one, encoder, judged, settings, "p")
        return found if path == "explain" else [(label, "") for label, _ in found]

    served, local = both(policies[0], engine, labels)
    assert served == local


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_candidates_are_drawn_from_the_tempered_nucleus_with_their_logprob(
    temperature: float, engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    count, top_p = 600, 0.8
    sampling = Sampling(1, temperature, top_p, n=count)
    [completions] = asyncio.run(engine.generate(asked[:1], sampling, Origin("p", "candidates")))
    model = AutoModelForCausalLM.from_pretrained(str(policies[0]), dtype=torch.float32)
    with torch.no_grad():
        logprobs = (model(torch.tensor([asked[0]])).logits[0, -1] / temperature).log_softmax(-1)
    ordered, order = logprobs.exp().sort(descending=True)
    kept = int((ordered.cumsum(0) - ordered < top_p).sum())
    drawn = Counter(one.token_ids[0] for one in completions)
    assert len(completions) == count and 2 < kept < len(order) / 2
    assert set(drawn) <= set(order[:kept].tolist())
    for token, p in zip(order[:kept].tolist(), ordered[:kept].tolist(), strict=True):
        share = p / ordered[:kept].sum().item()
        assert drawn[token] / count == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / count) + 1e-3)
    for one in completions[:20]:
        assert one.logprob == pytest.approx(logprobs[one.token_ids[0]].item(), abs=TOLERANCE)


def test_n_candidates_come_for_every_prompt_in_its_order(engine: SGLangEngine, asked: list[tuple[int, ...]]):
    replies = asyncio.run(engine.generate(asked, Sampling(12, 1.0, n=6)))
    assert [len(completions) for completions in replies] == [6] * len(asked)
    assert all(len({one.token_ids for one in completions}) > 3 for completions in replies)
    greedy = asyncio.run(engine.generate(asked, Sampling(12)))
    alone = [asyncio.run(engine.generate([prompt], Sampling(12)))[0] for prompt in asked[:5]]
    assert [one.token_ids for [one] in alone] == [one.token_ids for [one] in greedy[:5]]


@pytest.mark.parametrize("stops", [("\n",), ("3", "-"), ("=1", "b2", "++", "[["), ("\n", "7:")])
def test_stop_texts_end_a_completion_where_the_in_process_engine_ends_it(
    stops: tuple[str, ...], engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    sampling = Sampling(max_new_tokens=50, stop=stops)
    served, local = both(policies[0], engine, lambda one: one.generate(asked, sampling))
    for [one], [other] in zip(served, local, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)


def test_the_cache_is_used_and_its_hits_are_counted(engine: SGLangEngine, asked: list[tuple[int, ...]]):
    origin = Origin("p", "verdicts")
    asyncio.run(engine.choice_logprobs(asked[:1], [5], origin))
    assert engine.usage["verdicts"].cached_tokens == 0
    asyncio.run(engine.choice_logprobs(asked[:1], [5], origin))
    usage = engine.usage["verdicts"]
    length = len(asked[0])
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens) == (2, 2 * length, length - 1)


def test_a_bad_request_shows_the_servers_message_at_once(engine: SGLangEngine):
    sampling = Sampling(4, 1.0)
    object.__setattr__(
        sampling, "top_p", 7.0
    )  # past our own bounds, which refuse all that this server is known to refuse
    with pytest.raises(EngineError, match=r"refuses the request \(status 400\).*top_p must be in"):
        asyncio.run(engine.generate([(5, 6)], sampling))


def test_a_prompt_without_room_is_refused_and_a_long_one_is_answered(engine: SGLangEngine):
    with pytest.raises(PromptTooLong, match=r"prompt of 250 tokens .* 249 .* context of 256 tokens"):
        asyncio.run(engine.generate([(5,) * 250], Sampling(4)))
    [[one]] = asyncio.run(engine.generate([(5,) * 249], Sampling(50)))
    assert 0 < len(one.token_ids) <= 7
