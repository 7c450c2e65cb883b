"""The life of a server that the SGLang engine starts itself: how it starts, dies, comes back and ends."""

import asyncio
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from psr.engines.base import EngineError
from psr.engines.sglang import Launch, SGLangEngine, transport
from tests.engines.conftest import EXPECTED, Make, alive, ask, gone, loaded, pids


def test_a_server_that_died_comes_back_with_the_weights_of_the_iteration(
    make: Make, llama: Path, qwen2: Path, starts: Path
):
    engine = loaded(loaded(make({"FAKE_FAILS": "die"}), llama), qwen2, "M2")
    assert ask(engine) == EXPECTED
    second = max(starts.glob("start-*"), key=os.path.getmtime).read_text()
    assert str(qwen2.resolve()) in second and "--weight-version M2-" in second


def test_a_server_that_hangs_is_started_again(make: Make, llama: Path, starts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psr.engines.sglang.replicas.Server.healthy", answers_once_started(starts))
    engine = loaded(make({"FAKE_FAILS": "hang"}, timeout=1.0), llama)
    assert ask(engine) == EXPECTED
    assert len(pids(starts)) == 2


def answers_once_started(starts: Path) -> Any:
    """The fake answers /health even while it hangs; a real server then does not."""

    async def healthy(server: Any, session: Any) -> bool:
        if (starts / "asked.jsonl").exists() and len(pids(starts)) == 1:
            return False
        try:
            await transport.request(session.http, "GET", f"{server.url}/health", timeout=1.0)
        except transport.Transient:
            return False
        return True

    return healthy


def test_restarts_are_bounded_and_the_message_has_the_servers_last_lines(
    make: Make, llama: Path, launch: Launch, starts: Path
):
    engine = loaded(make({"FAKE_FAILS": "die " * 9}, replace(launch, restarts=2)), llama)
    with pytest.raises(EngineError, match=r"died 3 times \(launch\.restarts is 2\)(?s:.*)loading"):
        ask(engine)
    assert len(pids(starts)) == 3


def test_a_server_that_fails_to_start_shows_its_last_lines(make: Make, llama: Path):
    with pytest.raises(EngineError, match=r"exit code 1 before it was healthy(?s:.*)buy more"):
        loaded(make({"FAKE_BROKEN": "1"}), llama)


def test_a_server_that_takes_too_long_is_ended(make: Make, llama: Path, launch: Launch, starts: Path):
    engine = make({"FAKE_SLEEP": "60"}, replace(launch, start_timeout=1.0))
    with pytest.raises(EngineError, match=r"launch\.start_timeout of 1 s"):
        loaded(engine, llama)
    assert all(gone(pid) for pid in pids(starts))  # on a busy machine it had no time to leave its mark


@pytest.mark.parametrize("stubborn", [False, True])
def test_close_ends_its_own_server_and_no_other(stubborn: bool, make: Make, llama: Path, starts: Path):
    other = loaded(make(), llama)
    engine = loaded(make({"FAKE_STUBBORN": "1"} if stubborn else None), llama)
    mine, theirs = (httpx.get(f"{e._fleet.servers[0].url}/pid").json() for e in (engine, other))
    asyncio.run(engine.close())
    assert gone(mine) and alive(theirs)
    assert ask(other) == EXPECTED


def own(launch: Launch, folder: Path, end: str, ready: Any) -> None:
    """A process that starts a server and then comes to its end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    engine = loaded(SGLangEngine(launch=launch), folder)
    ready.set()
    if end == "error":
        raise RuntimeError("something else")
    if end == "signal":
        time.sleep(600)
    assert engine.served_version == "M1"


@pytest.mark.parametrize("end", ["success", "error", signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_its_owner_in_whatever_way(end: Any, launch: Launch, llama: Path, starts: Path):
    processes = multiprocessing.get_context("forkserver")  # a fork of this process could hang on a lock of its threads
    processes.set_forkserver_preload([__name__])  # each fresh interpreter would take seconds to import everything
    ready, word = processes.Event(), end if isinstance(end, str) else "signal"
    owner = processes.Process(target=own, args=(launch, llama, word, ready))
    owner.start()
    assert ready.wait(60) and owner.pid is not None
    if not isinstance(end, str):
        os.kill(owner.pid, end)
    owner.join(60)
    assert (owner.exitcode == 0) == (end == "success")
    assert gone(pids(starts)[0])


def test_a_missing_program_says_how_to_get_it(llama: Path, launch: Launch):
    engine = SGLangEngine(launch=replace(launch, command="no-such-program"))
    with pytest.raises(EngineError, match=r"launch\.command is 'no-such-program'.*make sglang"):
        loaded(engine, llama)
