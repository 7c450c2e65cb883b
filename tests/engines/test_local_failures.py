"""The in-process engine where something is wrong: weights, prompts, settings, requests that fail or are given up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from psr.engines.base import Completion, EngineError, PromptTooLong, Sampling
from psr.engines.local import LocalEngine
from psr.policy.folder import export_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from tests.conftest import CONTEXT, PolicyMaker
from tests.engines.serving import SAMPLED, serve


def test_a_cache_too_small_for_one_sequence_is_refused(qwen2: Path):
    with pytest.raises(EngineError, match=r"engine\.cache_gib is 1e-05: one sequence of the model's 96 tokens needs"):
        serve(qwen2, lambda engine: engine.health(), cache_gib=1e-5)


def test_new_weights_answer_otherwise_and_under_their_version(make_policy: PolicyMaker, posed: list[tuple[int, ...]]):
    async def ask(engine: LocalEngine) -> list[list[Completion]]:
        replies = []
        for version, seed in (("M1", 0), ("M2", 1), ("M3", 0)):
            await engine.load_weights(make_policy("qwen2", seed), version)
            assert await engine.health() == engine.served_version == version
            replies.append([one for [one] in await engine.generate(posed, Sampling(12))])
        return replies

    first, second, third = asyncio.run(ask(LocalEngine()))
    assert [{one.weights_version for one in replies} for replies in (first, second, third)] == [{"M1"}, {"M2"}, {"M3"}]
    assert [one.token_ids for one in first] == [one.token_ids for one in third]
    assert all(one.token_ids != other.token_ids for one, other in zip(first, second, strict=True))


def test_without_weights_every_request_says_so(qwen2: Path, posed: list[tuple[int, ...]]):
    async def ask(engine: LocalEngine) -> None:
        for request in (
            engine.generate(posed, SAMPLED),
            engine.choice_logprobs(posed, [1]),
            engine.health(),
        ):
            with pytest.raises(EngineError, match="no weights yet: call load_weights"):
                await request

    engine = LocalEngine()
    assert engine.served_version is None
    asyncio.run(ask(engine))

    async def closed(engine: LocalEngine) -> None:
        await engine.close()
        await ask(engine)

    serve(qwen2, closed)


def test_a_prompt_without_room_is_refused_with_the_numbers(qwen2: Path):
    async def ask(engine: LocalEngine) -> list[list[Completion]]:
        with pytest.raises(PromptTooLong, match=f"prompt of {CONTEXT} tokens .* context of {CONTEXT} tokens"):
            await engine.generate([(5,), (5,) * CONTEXT], Sampling(4))
        with pytest.raises(PromptTooLong, match=f"{CONTEXT + 7} tokens"):
            await engine.choice_logprobs([(5,) * (CONTEXT + 7)], [1])
        return await engine.generate([(5,) * (CONTEXT - 3)], Sampling(50, temperature=1.0, n=20))

    [completions] = serve(qwen2, ask)
    assert max(len(one.token_ids) for one in completions) == 3
    assert {one.finish_reason for one in completions if len(one.token_ids) < 3} <= {"eos"}


def test_an_exception_reaches_everyone_who_waits_and_the_engine_goes_on(qwen2: Path, posed: list[tuple[int, ...]]):
    outside_of_the_vocabulary = (10_000,)

    async def ask(engine: LocalEngine) -> list[Any]:
        broken = engine.generate([outside_of_the_vocabulary], Sampling(4))
        others = [engine.generate([prompt], Sampling(4)) for prompt in posed]
        errors = await asyncio.gather(broken, *others, return_exceptions=True)
        return [errors, await engine.generate(posed, Sampling(4))]

    errors, after = serve(qwen2, ask)
    assert len(errors) == len(posed) + 1
    assert all(isinstance(error, IndexError) for error in errors)
    assert len(after) == len(posed)


def test_a_failed_run_leaves_the_engine_usable(qwen2: Path, posed: list[tuple[int, ...]]):
    """An error elsewhere cancels the waiting coroutines; a later event loop loads weights and asks again."""
    engine = LocalEngine()

    async def failing() -> None:
        await engine.load_weights(qwen2, "M1")
        waiting = asyncio.ensure_future(engine.generate(posed, Sampling(4)))
        await asyncio.sleep(0)
        waiting.cancel()
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        asyncio.run(failing())

    async def again() -> list[list[Completion]]:
        await engine.load_weights(qwen2, "M2")
        return await engine.generate(posed, Sampling(4))

    assert len(asyncio.run(again())) == len(posed)


def test_weights_cannot_change_under_a_request(qwen2: Path, posed: list[tuple[int, ...]]):
    async def ask(engine: LocalEngine) -> None:
        waiting = asyncio.ensure_future(engine.generate(posed, Sampling(4)))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="while requests are waiting"):
            await engine.load_weights(qwen2, "M2")
        assert {one.weights_version for [one] in await waiting} == {"M1"}

    serve(qwen2, ask)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "float8"}, r"engine\.dtype is 'float8': choose .*bfloat16"), ({"max_batch": 0}, r"engine\.max_batch")],
)
def test_settings_that_cannot_work_are_named(options: dict[str, Any], message: str):
    with pytest.raises(EngineError, match=message):
        LocalEngine(**options)


def test_a_model_with_a_state_instead_of_keys_and_values_is_refused(tmp_path: Path):
    tokenizer = build_tokenizer()
    recurrent = new_policy("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, tokenizer)
    export_policy(recurrent, tokenizer, tmp_path / "recurrent")
    with pytest.raises(EngineError, match=r"the in-process engine (does not|cannot) serve"):
        serve(tmp_path / "recurrent", lambda engine: engine.health())
