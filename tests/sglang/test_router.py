"""Two real servers, spoken to directly and through a real sglang-router."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from psr.engines.base import Origin, Sampling
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.sglang.server import find_program, free_port
from psr.prompts.encoder import Encoder
from tests.sglang.conftest import served_url

PROBLEMS, STEPS, WIDTH = 12, 4, 3
SAMPLING = Sampling(max_new_tokens=8, temperature=1.0, n=WIDTH)


@pytest.fixture(scope="module")
def servers(
    launch: Launch, policies: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """Two servers: address and log."""
    logs = [tmp_path_factory.mktemp("server") / "server.log" for _ in range(2)]
    engines = [SGLangEngine(launch=replace(launch, log=str(log))) for log in logs]
    with ExitStack() as stack:
        for engine in engines:
            stack.callback(lambda engine=engine: asyncio.run(engine.close()))
            asyncio.run(engine.load_weights(policies[0], "M1"))
        yield dict(zip(map(served_url, engines), logs, strict=True))


@pytest.fixture(scope="module")
def router(servers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router before them that heeds the routing key, and gives every server as many keys."""
    python, port = Path(find_program("sglang")).with_name("python"), free_port()
    command = [str(python), "-m", "sglang_router.launch_router", "--worker-urls", *servers]
    command += ["--policy", "manual", "--assignment-mode", "min_group"]
    log = tmp_path_factory.mktemp("router") / "router.log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("w"))
        command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        stack.callback(process.wait)
        stack.callback(process.kill)
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 120
        while not ready(address):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        yield address


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readiness", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


async def solve(engine: SGLangEngine, encoder: Encoder) -> set[str]:
    """Continue every problem by some steps; the versions of the weights that did it."""

    async def one(number: int) -> set[str]:
        prompt, versions, origin = encoder.reason(f"{number + 10}+27-13"), set(), Origin(str(number), "candidates")
        for _ in range(STEPS):
            [candidates] = await engine.generate([prompt], SAMPLING, origin)
            prompt = prompt + candidates[0].token_ids
            versions |= {candidate.weights_version for candidate in candidates}
        return versions

    return set().union(*await asyncio.gather(*map(one, range(PROBLEMS))))


@pytest.mark.parametrize("through_router", [False, True])
def test_problems_are_spread_and_each_finds_its_prefix_in_its_servers_cache(
    through_router: bool, servers: dict[str, Path], router: str, policies: tuple[Path, Path], encoder: Encoder
):
    engine = SGLangEngine(urls=list(servers), router=router if through_router else None, share_from=1)
    for folder, version in zip(policies, ("M1", "M2"), strict=True):
        asyncio.run(engine.load_weights(folder, version))
        before = answered(servers)
        engine.usage.clear()
        assert asyncio.run(solve(engine, encoder)) == {version}
        usage = engine.usage["candidates"]
        assert usage.requests == PROBLEMS * STEPS * WIDTH
        # Had steps gone to the other server, their whole prefix would have been computed there again.
        assert usage.cached_tokens / usage.prompt_tokens > 0.8
        asked = [now - then for now, then in zip(answered(servers), before, strict=True)]
        assert min(asked) >= sum(asked) / 4


def answered(servers: dict[str, Path]) -> list[int]:
    """How many requests each server has answered, by its log."""
    return [log.read_text().count('"POST /generate HTTP/1.1" 200') for log in servers.values()]
