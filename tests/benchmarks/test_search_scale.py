"""benchmarks/simulated_servers.py: servers take the time that can be added up by hand, replies are the noted ones."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from psr.engines.base import Origin, Sampling
from simulated_servers import OwnClock, SimulatedEngine, SimulatedFleet, SimulatedServer, Speed

SPEED = Speed([(1, 1.0), (3, 2.0), (256, 2.0)], prefill=0.5, prefill_token=0.1)


def seconds(*calls: tuple[int, list[int]]) -> float:
    """Until one server has answered all calls, which come at once."""
    loop, server = OwnClock(), SimulatedServer(SPEED)

    async def all_calls() -> None:
        await asyncio.gather(*(server.answer(*call) for call in calls))

    loop.run_until_complete(all_calls())
    assert server.busy == pytest.approx(loop.now)
    return loop.now


def test_a_server_takes_a_prefill_and_a_step_for_every_further_token():
    assert seconds((10, [1])) == pytest.approx(0.5 + 1.0)
    assert seconds((10, [4])) == pytest.approx(0.5 + 1.0 + 3 * 1.0)
    assert seconds((0, [3]), (10, [2, 2])) == pytest.approx(1.5 + 2.0 + 1.0), "three run together, then one alone"


def test_more_sequences_than_were_measured_are_an_error():
    with pytest.raises(ValueError, match="257 sequences run, and at most 256 were measured"):
        SPEED.step(257)


def reply(prompt: int, cached: int, tokens: int) -> dict[str, Any]:
    meta = {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": tokens, "output_token_logprobs": []}
    return {"output_ids": [5] * tokens, "meta_info": {**meta, "finish_reason": {"type": "stop", "matched": 2}}}


def test_psrs_engine_asks_them_and_two_answer_sooner_than_one(llama: Path):
    noted = {"p": [[reply(4, 0, 3)], [reply(6, 4, 2)]]}
    times = []
    for servers in (1, 2):
        fleet, loop = SimulatedFleet(servers, SPEED, noted), OwnClock()
        engine = SimulatedEngine(fleet, share_from=64)
        loop.run_until_complete(engine.load_weights(llama, "M1"))

        async def search(key: str, engine: SimulatedEngine = engine) -> list[int]:
            prompts = [(5,) * 4, (5,) * 6]
            replies = [await engine.generate([prompt], Sampling(), Origin(key)) for prompt in prompts]
            return [len(completion.token_ids) for [[completion]] in replies]

        async def searches(search: Any = search) -> list[list[int]]:
            return await asyncio.gather(*(search(f"p#{n}") for n in range(2)))

        before = loop.now
        assert loop.run_until_complete(searches()) == [[3, 2], [3, 2]]
        times.append(loop.now - before)
    prefills = (0.5 + 0.4) + (0.5 + 0.2)
    assert times[1] == pytest.approx(prefills + 3 * 1.0), "one problem each: two steps, then one"
    assert times[0] == pytest.approx(2 * 0.5 + 2 * 0.4 + 2 * 0.2 + 3 * 1.5), "both run together"
