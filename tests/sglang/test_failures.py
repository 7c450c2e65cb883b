"""A real server that is killed in the middle of a search, that does not start, and that is ended."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from psr.engines.base import EngineError
from psr.engines.sglang import Launch, SGLangEngine
from psr.prompts.encoder import Encoder
from psr.records import Problem, Trajectory
from psr.search.judges import JudgeSettings, SelfJudge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search
from tests.sglang.conftest import served_url, server_pid


def port_of(engine: SGLangEngine) -> str:
    return served_url(engine).rpartition(":")[2]


def test_a_server_killed_in_the_middle_of_a_search_comes_back_with_the_right_weights(
    launch: Launch, policies: tuple[Path, Path], encoder: Encoder, tmp_path: Path
):
    engine = SGLangEngine(launch=replace(launch, log=str(tmp_path / "server.log")))
    problems = [Problem(str(i), f"{i + 10}+2{i % 10}-13") for i in range(30)]
    settings = SearchSettings(width=3, temperature=1.0, max_iterations=4, max_step_tokens=20, ties="advance")
    judge = SelfJudge(engine, encoder, JudgeSettings(verdicts="logprob"))
    killed: list[int] = []

    def kill_once(trajectory: Trajectory) -> None:
        if not killed:
            killed.append(server_pid(port_of(engine)))
            os.kill(killed[0], signal.SIGKILL)

    async def main() -> list[Trajectory]:
        await engine.load_weights(policies[0], "M1")
        await engine.load_weights(policies[1], "M2")  # a server that merely starts again would serve the first ones
        try:
            return await for_each(
                problems,
                lambda problem: step_search(problem, engine, judge, encoder, settings),
                "search",
                concurrency=8,
                on_result=kill_once,
            )
        finally:
            await engine.close()

    trajectories = asyncio.run(main())
    assert killed and [t.problem for t in trajectories] == problems
    assert {t.weights_version for t in trajectories} == {"M2"}
    assert all(t.nodes for t in trajectories)
    assert not Path(f"/proc/{killed[0]}").exists()
    with pytest.raises(ValueError):
        server_pid(port_of(engine))


def test_a_server_that_does_not_start_shows_its_last_lines(launch: Launch, policies: tuple[Path, Path], tmp_path: Path):
    engine = SGLangEngine(launch=replace(launch, log=str(tmp_path / "server.log"), args=["--no-such-option"]))
    with pytest.raises(EngineError, match=r"exit code 2 before it was healthy(?s:.*)--no-such-option"):
        asyncio.run(engine.load_weights(policies[0], "M1"))


def test_a_server_that_takes_too_long_is_ended(launch: Launch, policies: tuple[Path, Path], tmp_path: Path):
    engine = SGLangEngine(launch=replace(launch, log=str(tmp_path / "server.log"), start_timeout=2.0, stop_timeout=5.0))
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"not healthy after launch\.start_timeout of 2 s"):
        asyncio.run(engine.load_weights(policies[0], "M1"))
    assert time.monotonic() - started < 60
    with pytest.raises(ValueError):
        server_pid(port_of(engine))
