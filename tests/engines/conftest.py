"""A process that speaks SGLang's protocol and fails on demand, engines that talk to it, and prompts."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psr.engines.base import Origin, Sampling
from psr.engines.sglang import Launch, SGLangEngine, transport
from psr.prompts.encoder import Encoder

FAKE = Path(__file__).parent / "fake_sglang.py"

PROMPTS = [(5,) * length for length in (3, 4, 9)]
PROBLEMS = ["3", "3+4-5", "17+8-9+11\n17+8=25\n", "1+2", "99-19-19-19-19"]

Make = Callable[..., SGLangEngine]


@pytest.fixture
def posed(encoder: Encoder) -> list[tuple[int, ...]]:
    """Prompts of different lengths, some of which begin alike."""
    return [encoder.reason(problem) for problem in PROBLEMS]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    (tmp_path / "starts").mkdir()
    return tmp_path / "starts"


@pytest.fixture
def launch(tmp_path: Path, starts: Path) -> Launch:
    # Under this interpreter, whatever `env python3` is; the script ignores the options that it does not know.
    program = tmp_path / "sglang"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{FAKE}" "$@"\n')
    program.chmod(0o755)
    return Launch(str(program), log=str(tmp_path / "server.log"), env={"FAKE_STARTS": str(starts)}, stop_timeout=2.0)


@pytest.fixture
def make(launch: Launch) -> Iterator[Make]:
    """Makes engines with servers of their own, and ends them after the test."""
    made = []

    def engine(env: dict[str, str] | None = None, launch: Launch = launch, **options: Any) -> SGLangEngine:
        made.append(SGLangEngine(launch=replace(launch, env={**launch.env, **(env or {})}), **options))
        return made[-1]

    yield engine
    for one in made:
        asyncio.run(one.close())


def loaded(engine: SGLangEngine, folder: Path, version: str = "M1") -> SGLangEngine:
    asyncio.run(engine.load_weights(folder, version))
    return engine


def ask(engine: SGLangEngine, sampling: Sampling | None = None, key: str = "p") -> list[tuple[int, ...]]:
    replies = asyncio.run(engine.generate(PROMPTS, sampling or Sampling(4), Origin(key, "candidates")))
    return [one.token_ids for completions in replies for one in completions]


EXPECTED = [(len(prompt) % 7 + 9, 1) for prompt in PROMPTS]


def pids(starts: Path) -> list[int]:
    return [int(path.name.removeprefix("start-")) for path in sorted(starts.glob("start-*"), key=os.path.getmtime)]


def asked(starts: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (starts / "asked.jsonl").read_text().splitlines()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


def gone(pid: int, within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)
