"""The SGLang engine against a process that speaks its protocol and fails on demand; the real one is in tests/sglang."""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from psr.engines.base import Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.engines.sglang import Launch, SGLangEngine, transport
from psr.engines.usage import Usage

FAKE = Path(__file__).parent / "fake_sglang.py"
PROMPTS = [(5,) * length for length in (3, 4, 9)]

Make = Callable[..., SGLangEngine]


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


def test_it_is_an_engine(make: Make):
    assert isinstance(make(), Engine)


def test_requests_carry_ids_seeds_and_stops_and_replies_their_version(make: Make, llama: Path, starts: Path):
    engine = loaded(make(), llama)
    sampling = Sampling(4, 0.7, 0.9, n=2, seed=3, stop=("\n",))
    replies = asyncio.run(engine.generate(PROMPTS, sampling))
    assert [[one.token_ids for one in completions] for completions in replies] == [[ids] * 2 for ids in EXPECTED]
    assert {one.weights_version for completions in replies for one in completions} == {"M1"}
    assert {one.finish_reason for completions in replies for one in completions} == {"eos"}
    assert replies[0][0].logprob == -1.0
    [body] = asked(starts)
    assert body["input_ids"] == [list(prompt) for prompt in PROMPTS for _ in range(2)]
    parameters = body["sampling_params"]
    assert len({one["sampling_seed"] for one in parameters[:2]}) == 2
    assert [one["sampling_seed"] for one in parameters[:2]] == [one["sampling_seed"] for one in parameters[2:4]]
    assert {(one["temperature"], one["top_p"], *one["stop"], one["max_new_tokens"]) for one in parameters} == {
        (0.7, 0.9, "\n", 4)
    }


def test_choices_are_given_back_in_the_order_asked(make: Make, llama: Path):
    engine = loaded(make(), llama)
    assert asyncio.run(engine.choice_logprobs(PROMPTS, [7, 5])) == [[-7.0, -5.0]] * 3


def test_what_requests_cost_is_counted_by_kind(make: Make, llama: Path):
    engine = loaded(make(), llama)
    ask(engine, Sampling(4, n=2))
    asyncio.run(engine.choice_logprobs(PROMPTS[:1], [7], Origin("p", "verdicts")))
    assert replace(engine.usage["candidates"], seconds=0.0) == Usage(6, 32, 2 * (1 + 2 + 4), 12)
    assert replace(engine.usage["verdicts"], seconds=0.0) == Usage(1, 3, 1, 1)
    assert engine.usage["candidates"].seconds > 6 * 0.05


@pytest.mark.parametrize("failures", ["503 500", "drop", "drop 503 abort", "forget", "die", "503 die forget"])
def test_a_failure_that_passes_is_tried_again_and_leaves_no_trace(failures: str, make: Make, llama: Path, starts: Path):
    engine = loaded(make({"FAKE_FAILS": failures}), llama)
    assert ask(engine) == EXPECTED
    assert len(pids(starts)) == 1 + failures.count("die")
    assert len(asked(starts)) == len(failures.split()) + 1


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


def test_tries_are_bounded_and_the_message_says_what_happened(make: Make, llama: Path, starts: Path):
    engine = loaded(make({"FAKE_FAILS": "503 " * 9}, retries=2), llama)
    with pytest.raises(EngineError, match=r"failed 3 times .* status 503: trouble number 503.* is kept"):
        ask(engine)
    assert len(asked(starts)) == 3


def test_restarts_are_bounded_and_the_message_has_the_servers_last_lines(
    make: Make, llama: Path, launch: Launch, starts: Path
):
    engine = loaded(make({"FAKE_FAILS": "die " * 9}, replace(launch, restarts=2)), llama)
    with pytest.raises(EngineError, match=r"died 3 times \(launch\.restarts is 2\)(?s:.*)loading"):
        ask(engine)
    assert len(pids(starts)) == 3


def test_a_bad_request_is_never_tried_again(make: Make, llama: Path, starts: Path):
    engine = loaded(make({"FAKE_FAILS": "400 422"}), llama)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"refuses the request \(status 4\d\d\): trouble number 4"):
            ask(engine)
    assert len(asked(starts)) == 2


def test_a_remote_server_that_stays_away_ends_with_a_clear_message(llama: Path):
    engine = SGLangEngine(urls=["http://127.0.0.1:9"], retries=2)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9 failed 3 times .* ConnectError.* start this command again"):
        loaded(engine, llama)


def test_a_prompt_without_room_is_refused_with_the_numbers(make: Make, llama: Path):
    engine = loaded(make(), llama)
    with pytest.raises(PromptTooLong, match=r"prompt of 91 tokens .* 90 .* context of 96 tokens"):
        asyncio.run(engine.generate([(5,) * 91], Sampling(4)))


def test_without_weights_every_request_says_so(make: Make, llama: Path):
    engine = make()
    for _ in range(2):
        for request in (engine.generate(PROMPTS, Sampling(4)), engine.choice_logprobs(PROMPTS, [1]), engine.health()):
            with pytest.raises(EngineError, match="no weights yet: call load_weights"):
                asyncio.run(request)
        loaded(engine, llama)
        asyncio.run(engine.close())


def test_what_prompts_share_is_sent_ahead_and_only_what_is_new_of_it(make: Make, llama: Path, starts: Path):
    engine = loaded(make(share_from=4), llama)
    prefix, origin = (5, 6, 7, 8, 9), Origin("p", "verdicts")
    prompts = [(*prefix, 10, 11), (*prefix, 12, 13)]
    for _ in range(2):
        asyncio.run(engine.choice_logprobs(prompts, [7], origin))
    asyncio.run(engine.choice_logprobs(prompts, [7]))  # of no problem: nothing is known of what they share
    assert [len(body["input_ids"]) for body in asked(starts)] == [1, 2, 2, 2]
    first = asked(starts)[0]
    assert first["input_ids"] == [list(prefix)] and first["sampling_params"][0]["max_new_tokens"] == 0
    usage = engine.usage["verdicts"]
    computed_ahead = len(prefix) - len(prefix) // 2  # the stand-in says that half of every prompt was cached
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens) == (4, 28, 4 * 3 - computed_ahead)


def test_new_weights_forget_what_was_sent_ahead(make: Make, llama: Path, starts: Path):
    engine = make(share_from=4)
    for version in ("M1", "M2"):
        loaded(engine, llama, version)
        ask(engine, Sampling(4, n=3))
    ahead = [body for body in asked(starts) if body["sampling_params"][0]["max_new_tokens"] == 0]
    assert len(ahead) == 2 * len(PROMPTS), "each is the beginning of the next"


def test_sequences_in_flight_are_bounded_and_reach_the_bound(make: Make, llama: Path):
    engine = loaded(make(concurrency=8, chunk=4), llama)

    async def many() -> None:
        await asyncio.gather(*(engine.generate(PROMPTS, Sampling(4)) for _ in range(20)))

    asyncio.run(many())
    url = engine._fleet.servers[0].url
    assert 6 <= httpx.get(f"{url}/most_running").json() <= 8


def test_a_problem_stays_with_its_server_and_problems_are_spread(make: Make, llama: Path, starts: Path):
    servers = [loaded(make(), llama) for _ in range(3)]
    urls = [server._fleet.servers[0].url for server in servers]
    engine = loaded(SGLangEngine(urls=urls), llama, "M2")

    async def search(key: str) -> None:
        for _ in range(4):
            await engine.generate([(5,) * (10 + int(key))], Sampling(4), Origin(key))

    async def many() -> None:
        await asyncio.gather(*(search(str(key)) for key in range(12)))

    asyncio.run(many())
    ports: dict[int, set[int]] = {}
    for body in asked(starts):
        ports.setdefault(len(body["input_ids"][0]), set()).add(body["port"])
    assert all(len(one) == 1 for one in ports.values())
    spread = [port for one in ports.values() for port in one]
    assert len(ports) == 12 and sorted(spread.count(port) for port in set(spread)) == [4, 4, 4]


def test_weights_reach_every_server(make: Make, llama: Path):
    servers = [loaded(make(), llama)._fleet.servers[0].url for _ in range(2)]
    engine = loaded(SGLangEngine(urls=servers), llama, "M7")
    labels = {httpx.get(f"{url}/model_info").json()["weight_version"] for url in servers}
    assert len(labels) == 1 and labels.pop().startswith("M7-")
    assert asyncio.run(engine.health()) == "M7"


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"engine\.urls .* engine\.launch .* one of the two"),
        ({"urls": ["http://x"], "launch": Launch()}, "one of the two"),
        ({"urls": ["http://x"], "concurrency": 0}, r"engine\.concurrency is 0"),
        ({"urls": ["http://x"], "chunk": 0}, r"engine\.chunk is 0"),
        ({"launch": Launch(), "router": "http://x"}, r"engine\.router .* give the urls"),
    ],
)
def test_settings_that_cannot_work_are_named(options: dict[str, Any], message: str):
    with pytest.raises(EngineError, match=message):
        SGLangEngine(**options)


def test_a_missing_program_says_how_to_get_it(llama: Path, launch: Launch):
    engine = SGLangEngine(launch=replace(launch, command="no-such-program"))
    with pytest.raises(EngineError, match=r"launch\.command is 'no-such-program'.*make sglang"):
        loaded(engine, llama)


def test_pauses_double_up_to_a_limit():
    for tries in range(1, 20):
        longest = min(transport.LONGEST_PAUSE, transport.FIRST_PAUSE * 2 ** (tries - 1))
        assert longest / 2 <= transport.pause(tries) <= longest
