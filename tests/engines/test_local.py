"""The in-process engine against transformers itself, and that a batch is nobody's business but the engine's."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from psr.engines.base import Completion, Engine, Origin, Sampling
from psr.engines.local import LocalEngine
from psr.engines.sampling import nucleus_sample
from psr.engines.usage import Usage
from psr.policy.folder import export_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.prompts.encoder import Encoder
from psr.search.sharing import PrefixTree
from tests.conftest import CONTEXT, TINY
from tests.engines.serving import SAMPLED, T, serve


def transformers_model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def next_logits(model: PreTrainedModel, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    """The logits before every token of the completion, by one forward: (tokens, vocabulary)."""
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]


@contextmanager
def counted_forwards() -> Iterator[list[tuple[int, int]]]:
    """The shape (sequences, tokens) of every forward of a model's body."""
    shapes: list[tuple[int, int]] = []

    def count(module: torch.nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, BaseModelOutputWithPast):
            shapes.append(tuple(output.last_hidden_state.shape[:2]))  # type: ignore[arg-type]

    handle = register_module_forward_hook(count)
    try:
        yield shapes
    finally:
        handle.remove()


def forwards_of(folder: Path, ask: Callable[[LocalEngine], Awaitable[T]], **options: Any) -> tuple[T, list[Any]]:
    """What `ask` gets from an engine, and the forwards that it takes; those of loading do not count."""

    async def counting(engine: LocalEngine) -> tuple[T, list[Any]]:
        with counted_forwards() as shapes:
            return await ask(engine), shapes

    return serve(folder, counting, **options)


def uncached(model: PreTrainedModel, prompt: tuple[int, ...], sampling: Sampling, index: int, eos: int) -> Completion:
    """The completion as a forward over the whole sequence for every token makes it: what any cache has to equal."""
    uniforms = np.random.default_rng((sampling.seed, index)).random(min(sampling.max_new_tokens, CONTEXT - len(prompt)))
    ids: list[int] = []
    total = 0.0
    while len(ids) < len(uniforms) and eos not in ids:
        logits = next_logits(model, prompt, (*ids, 0))[-1:]
        logprobs = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
        drawn = nucleus_sample(logprobs, torch.tensor([sampling.top_p]), torch.tensor([uniforms[len(ids)]]).float())
        token = int(drawn if sampling.temperature else logprobs.argmax())
        ids.append(token)
        total += float(logprobs[0, token])
    return Completion(tuple(ids), "", "eos" if eos in ids else "length", total, "M1")


def test_greedy_is_transformers_generate_token_by_token(policy: Path, posed: list[tuple[int, ...]]):
    got = serve(policy, lambda engine: engine.generate(posed, Sampling(max_new_tokens=30)))
    model = transformers_model(policy)
    for prompt, [completion] in zip(posed, got, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        expected = model.generate(ids, attention_mask=mask, max_new_tokens=30, do_sample=False)[0, len(prompt) :]
        assert completion.token_ids == tuple(expected.tolist())
        assert completion.weights_version == "M1"


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logprob_is_that_of_a_full_forward_at_the_sampling_temperature(
    policy: Path, posed: list[tuple[int, ...]], temperature: float
):
    sampling = Sampling(max_new_tokens=12, temperature=temperature, n=2, seed=1)
    got = serve(policy, lambda engine: engine.generate(posed, sampling))
    model = transformers_model(policy)
    for prompt, completions in zip(posed, got, strict=True):
        for one in completions:
            logprobs = (next_logits(model, prompt, one.token_ids) / (temperature or 1.0)).log_softmax(-1)
            expected = logprobs.gather(1, torch.tensor(one.token_ids)[:, None]).sum()
            assert one.logprob == pytest.approx(expected.item(), abs=1e-3)


def test_what_is_sampled_does_not_depend_on_the_batch(policy: Path, posed: list[tuple[int, ...]]):
    alone = serve(policy, lambda engine: engine.generate(posed[1:2], SAMPLED))

    async def in_company(engine: LocalEngine) -> list[list[list[Completion]]]:
        others = [engine.generate([prompt], Sampling(25, 1.0, n=4, seed=i)) for i, prompt in enumerate(posed)]
        greedy = engine.generate(posed, Sampling(5))
        return await asyncio.gather(*others, greedy, engine.generate(posed[1:2], SAMPLED))

    for options in ({}, {"max_batch": 3}):
        company = serve(policy, in_company, **options)[-1]
        assert [one.token_ids for one in company[0]] == [one.token_ids for one in alone[0]]
        assert [one.logprob for one in company[0]] == pytest.approx([one.logprob for one in alone[0]], abs=1e-3)


def test_replies_come_in_the_order_of_the_prompts_with_n_each(qwen2: Path, posed: list[tuple[int, ...]]):
    got = serve(qwen2, lambda engine: engine.generate(posed, SAMPLED))
    assert [len(completions) for completions in got] == [3] * len(posed)
    for prompt, completions in zip(posed, got, strict=True):
        again = serve(qwen2, lambda engine, p=prompt: engine.generate([p], SAMPLED))[0]
        assert [one.token_ids for one in completions] == [one.token_ids for one in again]


def test_the_seed_fixes_what_is_sampled_and_each_of_n_is_another(qwen2: Path, posed: list[tuple[int, ...]]):
    def tokens(seed: int) -> list[tuple[int, ...]]:
        sampling = Sampling(max_new_tokens=12, temperature=1.0, n=4, seed=seed)
        return [one.token_ids for one in serve(qwen2, lambda engine: engine.generate(posed[:1], sampling))[0]]

    assert tokens(0) == tokens(0)
    assert len({*tokens(0), *tokens(1)}) == 8


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_tokens_are_drawn_from_the_tempered_nucleus(
    qwen2: Path, posed: list[tuple[int, ...]], temperature: float, top_p: float
):
    count = 3000
    sampling = Sampling(max_new_tokens=1, temperature=temperature, top_p=top_p, n=count, seed=3)
    [completions] = serve(qwen2, lambda engine: engine.generate(posed[1:2], sampling), max_batch=count)
    drawn = Counter(one.token_ids[0] for one in completions)
    probs = (next_logits(transformers_model(qwen2), posed[1], (0,))[0] / temperature).softmax(-1)
    ordered = sorted(enumerate(probs.tolist()), key=lambda item: -item[1])
    nucleus: dict[int, float] = {}
    for token, p in ordered:
        if sum(nucleus.values()) < top_p:
            nucleus[token] = p
    assert set(drawn) <= set(nucleus)
    assert len(nucleus) > 2 and (top_p == 1.0 or len(nucleus) < len(ordered) / 2)
    for token, p in nucleus.items():
        share = p / sum(nucleus.values())
        assert drawn[token] / count == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / count) + 1e-3)


@pytest.mark.parametrize("spread", [0.01, 0.5])
def test_a_large_vocabulary_is_drawn_from_the_same_nucleus(tmp_path: Path, spread: float):
    """Nuclei of nearly all and of few of the tokens of a vocabulary that is too large to be sorted whole."""
    large = build_tokenizer()
    large.add_tokens([f"<{i}>" for i in range(3000)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export_policy(new_policy("qwen2", {**TINY, "initializer_range": spread}, large), large, tmp_path / "large")
    count, prompt = 1500, (11, 12, 13)
    wide = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.95, n=count, seed=1)

    async def ask(engine: LocalEngine) -> list[list[list[Completion]]]:
        narrow = replace(wide, top_p=0.2, n=20)
        return await asyncio.gather(engine.generate([prompt], wide), engine.generate([prompt], narrow))

    [[completions], [narrow]] = serve(tmp_path / "large", ask, max_batch=2 * count)
    probs = next_logits(transformers_model(tmp_path / "large"), prompt, (0,))[0].softmax(-1)
    ordered, order = probs.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    for top_p, drawn in ((0.95, completions), (0.2, narrow)):
        assert {one.token_ids[0] for one in drawn} <= set(order[before < top_p + 1e-6].tolist())
    ranks = order.argsort()[torch.tensor([one.token_ids[0] for one in completions])]
    for top in (50, 1024, 2000):
        share = min(1.0, ordered[:top].sum().item() / 0.95)
        assert (ranks < top).float().mean().item() == pytest.approx(share, abs=0.06)


def test_a_tiny_nucleus_is_greedy(qwen2: Path, posed: list[tuple[int, ...]]):
    greedy = serve(qwen2, lambda engine: engine.generate(posed, Sampling(10)))
    nucleus = serve(qwen2, lambda engine: engine.generate(posed, Sampling(10, temperature=1.0, top_p=1e-6)))
    assert [one.token_ids for [one] in nucleus] == [one.token_ids for [one] in greedy]


def test_a_completion_ends_at_eos_a_stop_text_or_its_length(qwen2: Path, encoder: Encoder):
    stops = ("+", "=[", "9:")
    sampling = Sampling(max_new_tokens=20, temperature=1.5, n=400, seed=2, stop=stops)
    [completions] = serve(qwen2, lambda engine: engine.generate([encoder.reason("3+4")], sampling))
    eos = encoder.tokenizer.eos_token_id
    reasons = Counter(one.finish_reason for one in completions)
    assert min(reasons[reason] for reason in ("eos", "stop", "length")) > 5
    for one in completions:
        before = encoder.text(one.token_ids[:-1])
        assert eos not in one.token_ids[:-1]
        assert not any(stop in before for stop in stops)
        assert one.text == encoder.text(one.token_ids)
        if one.finish_reason == "eos":
            assert one.token_ids[-1] == eos
        elif one.finish_reason == "stop":
            assert any(stop in one.text for stop in stops)
        else:
            assert len(one.token_ids) == 20
    across = [one for one in completions if any(stop in one.text for stop in stops[1:])]
    assert across, "no completion ended in a stop text of two tokens: the test proves too little"


def test_what_requests_cost_is_counted_by_kind(qwen2: Path, posed: list[tuple[int, ...]]):
    async def ask(engine: LocalEngine) -> tuple[Any, Any]:
        assert engine.usage == {}
        got = await engine.generate(posed, SAMPLED, Origin("p", "candidates"))
        await engine.choice_logprobs([*posed, posed[0]], [3], Origin("p", "verdicts"))
        return dict(engine.usage), sum(len(one.token_ids) for completions in got for one in completions)

    usage, made = serve(qwen2, ask)
    length = sum(map(len, posed))
    candidates, verdicts = usage["candidates"], usage["verdicts"]
    assert set(usage) == {"candidates", "verdicts"}
    # Of the prompts, each distinct beginning is computed once; of one that is known already, the last token.
    tree = PrefixTree()
    computed = sum(len(prompt) - min(tree.add(prompt), len(prompt) - 1) for prompt in posed)
    assert computed < length
    assert replace(candidates, seconds=0.0) == Usage(3 * len(posed), 3 * length, 3 * length - computed, made)
    assert replace(verdicts, seconds=0.0) == Usage(
        len(posed) + 1,
        length + len(posed[0]),
        length + len(posed[0]) - len(posed),
        0,
    )
    assert 0 < candidates.seconds / candidates.requests < 60


def test_choice_logprobs_are_those_of_a_full_forward(policy: Path, posed: list[tuple[int, ...]]):
    choices = [4, 30, 7]
    for options in ({}, {"max_batch": 2}):
        got = serve(policy, lambda engine: engine.choice_logprobs(posed, choices), **options)
        model = transformers_model(policy)
        for prompt, logprobs in zip(posed, got, strict=True):
            expected = next_logits(model, prompt, (0,))[0].log_softmax(-1)[choices]
            assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_scoring_and_generating_at_the_same_time_leave_each_other_alone(qwen2: Path, posed: list[tuple[int, ...]]):
    async def ask(engine: LocalEngine) -> tuple[Any, Any, Any, Any]:
        together = await asyncio.gather(engine.generate(posed, SAMPLED), engine.choice_logprobs(posed, [3, 4]))
        return (
            *together,
            await engine.generate(posed, SAMPLED),
            await engine.choice_logprobs(posed, [3, 4]),
        )

    generated, scored, generated_alone, scored_alone = serve(qwen2, ask)
    assert [one.token_ids for row in generated for one in row] == [
        one.token_ids for row in generated_alone for one in row
    ]
    assert torch.allclose(torch.tensor(scored), torch.tensor(scored_alone), atol=1e-5)


def test_concurrent_requests_are_decoded_together(qwen2: Path, encoder: Encoder):
    rng = random.Random(0)
    problems = [encoder.reason(f"{rng.randrange(99)}+{rng.randrange(99)}") for _ in range(60)]
    sampling = Sampling(max_new_tokens=8, temperature=1.0)

    async def one(engine: LocalEngine, prompt: tuple[int, ...], pauses: int) -> None:
        for _ in range(pauses):  # coroutines do not all arrive in the same turn of the loop
            await asyncio.sleep(0)
        await engine.generate([prompt], sampling)
        await engine.generate([prompt], sampling)

    async def ask(engine: LocalEngine) -> None:
        await asyncio.gather(*(one(engine, prompt, i % 4) for i, prompt in enumerate(problems)))

    _, shapes = forwards_of(qwen2, ask)
    # 8 tokens twice, and as those who are done early do not wait for the others, some forwards more for their prompts.
    assert len(shapes) <= 2 * 8 + 8
    assert max(rows for rows, tokens in shapes if tokens == 1) >= len(problems) / 2


def test_completions_of_a_prompt_are_computed_once_until_they_differ(qwen2: Path, posed: list[tuple[int, ...]]):
    n, eos = 6, build_tokenizer().eos_token_id
    sampling = replace(SAMPLED, n=n, temperature=0.5)
    [completions], shapes = forwards_of(qwen2, lambda engine: engine.generate(posed[1:2], sampling))
    made = [one.token_ids for one in completions]
    prompt, *decoding = shapes
    assert prompt == (1, len(posed[1]))
    for length, shape in enumerate(decoding, start=1):
        going = {ids[:length] for ids in made if len(ids) > length and eos not in ids[:length]}
        assert shape == (len(going), 1)
    assert len({ids[:1] for ids in made}) < n, "all differ at once: the test proves too little"


def test_max_batch_bounds_what_is_decoded_together(qwen2: Path, posed: list[tuple[int, ...]]):
    sampling = replace(SAMPLED, temperature=3.0)
    _, shapes = forwards_of(qwen2, lambda engine: engine.generate(posed, sampling), max_batch=4)
    assert 3 <= max(rows for rows, tokens in shapes if tokens == 1) <= 4


@pytest.mark.parametrize("options", [{}, {"max_batch": 3}, {"cache_gib": 1.2e-4}], ids=["large", "narrow", "evicting"])
def test_a_search_with_shared_prefixes_gets_what_it_would_get_without_a_cache(
    qwen2: Path, encoder: Encoder, options: dict[str, Any]
):
    """Candidates, steps further on, prompts that share candidates, as in a search: tokens, log-probabilities, seeds."""
    model, eos = transformers_model(qwen2), encoder.tokenizer.eos_token_id
    made: list[tuple[tuple[int, ...], Sampling, list[Completion]]] = []
    scored: list[tuple[tuple[int, ...], list[float]]] = []

    async def search(engine: LocalEngine, problem: str, seed: int) -> None:
        prompt = encoder.reason(problem)
        for depth in range(2):
            sampling = Sampling(6, 0.8, 0.9, n=3, seed=10 * seed + depth)
            [candidates] = await engine.generate([prompt], sampling, Origin(problem))
            made.append((prompt, sampling, candidates))
            texts = [one.token_ids for one in candidates if one.token_ids[-1] != eos]
            judged = [(*prompt, *a, 5, *b, 5) for a in texts for b in texts if a != b]
            greedy = Sampling(6)
            for question, [one] in zip(judged, await engine.generate(judged, greedy, Origin(problem)), strict=True):
                made.append((question, greedy, [one]))
            scored.extend(zip(judged, await engine.choice_logprobs(judged, [3, 4], Origin(problem)), strict=True))
            if not texts:
                return
            prompt = (*prompt, *texts[-1])

    async def ask(engine: LocalEngine) -> None:
        await asyncio.gather(*(search(engine, problem, i) for i, problem in enumerate(["3+4-5", "3+4", "17+8"])))

    serve(qwen2, ask, **options)
    assert len(made) > 12 and len(scored) > 8
    for prompt, sampling, completions in made:
        for index, one in enumerate(completions):
            expected = uncached(model, prompt, sampling, index, eos)
            assert one.token_ids == expected.token_ids
            assert one.finish_reason == expected.finish_reason
            assert one.logprob == pytest.approx(expected.logprob, abs=1e-3)
    for prompt, logprobs in scored:
        exact = next_logits(model, prompt, (0,))[0].log_softmax(-1)[[3, 4]]
        assert logprobs == pytest.approx(exact.tolist(), abs=1e-4)


def test_bfloat16_generates_and_scores(policy: Path, posed: list[tuple[int, ...]]):
    async def ask(engine: LocalEngine) -> tuple[Any, Any]:
        return await engine.generate(posed, SAMPLED), await engine.choice_logprobs(posed, [4, 5])

    generated, scored = serve(policy, ask, dtype="bfloat16")
    exact = serve(policy, lambda engine: engine.choice_logprobs(posed, [4, 5]))
    assert all(one.token_ids and math.isfinite(one.logprob) for row in generated for one in row)
    assert torch.allclose(torch.tensor(scored), torch.tensor(exact), atol=0.3)


def test_it_is_an_engine():
    assert isinstance(LocalEngine(), Engine)
