"""A real SGLang server on the CPU with the quickstart's policy; `make test-sglang` runs what is in this folder."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml

from psr.commands.model import init
from psr.engines.base import Engine
from psr.engines.local import LocalEngine
from psr.engines.sglang import Launch, SGLangEngine
from tests.recipes.tiny_run import ROOT

T = TypeVar("T")
ALPHABET = "0123456789+-=:abc"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.sglang)


def quickstart_policy(folder: Path, seed: int) -> Path:
    """The quickstart's M0 of a seed, with weights so large that greedy is no matter of luck."""
    config = yaml.safe_load((ROOT / "configs/quickstart/model.yaml").read_text())
    settings = {**config["settings"], "initializer_range": 0.15}
    init(folder / f"seed-{seed}", config["architecture"], settings, seed)
    return folder / f"seed-{seed}"


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two policies of the same shape, with other weights."""
    folder = tmp_path_factory.mktemp("policies")
    return quickstart_policy(folder, 0), quickstart_policy(folder, 1)


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    return Launch(device="cpu", dtype="float32", log=str(tmp_path_factory.mktemp("server") / "server.log"))


@pytest.fixture(scope="session")
def running(launch: Launch, policies: tuple[Path, Path]) -> Iterator[SGLangEngine]:
    """One engine with its own server for all tests; each loads the weights that it wants."""
    engine = SGLangEngine(launch=launch)
    asyncio.run(engine.load_weights(policies[0], "M1"))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture
def engine(running: SGLangEngine, policies: tuple[Path, Path]) -> SGLangEngine:
    """The running engine, with the first policy as M1 and an empty cache."""
    asyncio.run(running.load_weights(policies[0], "M1"))
    httpx.post(f"{served_url(running)}/flush_cache").raise_for_status()
    running.usage.clear()
    return running


def both(folder: Path, engine: Engine, ask: Callable[[Engine], Awaitable[T]]) -> tuple[T, T]:
    """What the server and the in-process engine, in float32 with the weights of `folder`, say to the same question."""

    async def local() -> Any:
        other = LocalEngine()
        await other.load_weights(folder, "M1")
        return await ask(other)

    return asyncio.run(ask(engine)), asyncio.run(local())  # type: ignore[arg-type]


def served_url(engine: SGLangEngine) -> str:
    return engine._fleet.servers[0].url


def server_pid(port: str) -> int:
    """The process that listens for SGLang on the port, by its command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if b"serve" in words and port.encode() in words and b"-I" not in words:
                found.append(int(process.name))
    [pid] = found
    return pid
