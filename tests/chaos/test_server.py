"""Ten faults of a real SGLang server: where one passes, the traces are those of an undisturbed search; where it stays,
the run ends within a minute with a line that names the server and the fault.

The faults are made by a proxy before the server; the tenth, a restart, by ending the server and starting it with other
weights. Every test prints what became of it.
"""

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from psr.engines.base import ANYWHERE, Completion, Engine, EngineError, Origin, Sampling
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.sglang.server import find_program
from psr.files.jsonl import write_jsonl
from psr.prompts.encoder import Encoder
from psr.records import Problem, Trajectory, step_pairs
from psr.search.judges import JudgeSettings, SelfJudge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search
from tests.chaos.proxy import FAULTS, Proxy, serving
from tests.recipes.tiny_run import LIMIT, ROOT, environment
from tests.sglang.conftest import quickstart_policy, served_url

pytestmark = pytest.mark.slow

FIRST = 5
"""Requests that are answered before the first that is spoilt."""
AMONG = 3
"""One of so many is spoilt, where the fault passes."""
WITHIN = 60.0
PATIENCE = {"timeout": 6.0, "retries": 3}
PROBLEMS = [Problem(str(i), f"{i + 10}+2{i}-13") for i in range(24)]
SEARCH = SearchSettings(width=3, temperature=1.0, max_iterations=5, max_step_tokens=20, ties="advance")
TOLD = {
    "reset": r"(ReadError|RemoteProtocolError|WriteError)",
    "truncated": "RemoteProtocolError",
    "429": "status 429: too many requests",
    "500": "status 500: CUDA error: an illegal memory access",
    "503": "status 503: .*Service Unavailable",
    "wrong weights": "answered with the weights 'M1-[0-9a-f]+', 'other' instead of|answered with the weights 'other'",
    "hang": "no reply in 6 s|ReadError",  # a time-out ends a connection, which may take another request along
    "garbage": "a reply (that is no JSON|that is none of SGLang's)",
}


@dataclass
class Forked:
    """The same candidates every time from a server that ignores seeds: each begins with another token, and goes on
    greedily.
    """

    engine: Engine
    starts: Sequence[int]

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        first = self.starts[: sampling.n]
        begun = [(*prompt, token) for prompt in prompts for token in first]
        greedy = replace(sampling, n=1, temperature=0.0)
        made = [one for [one] in await self.engine.generate(begun, greedy, origin)]
        whole = [replace(one, token_ids=(prompt[-1], *one.token_ids)) for prompt, one in zip(begun, made, strict=True)]
        return [whole[i : i + len(first)] for i in range(0, len(whole), len(first))]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("policies")
    return quickstart_policy(folder, 0), quickstart_policy(folder, 1)


@pytest.fixture(scope="module")
def owner(policies: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SGLangEngine]:
    """Who runs the server."""
    try:
        find_program("sglang")
    except EngineError:
        pytest.skip("there is no SGLang here: `make sglang` makes the environment of a server without a GPU")
    log = tmp_path_factory.mktemp("server") / "server.log"
    engine = SGLangEngine(launch=Launch(device="cpu", dtype="float32", log=str(log)))
    asyncio.run(engine.load_weights(policies[0], "M1"))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def url(owner: SGLangEngine) -> str:
    return served_url(owner)


def searched(
    url: str, policy: Path, encoder: Encoder, on_result: Callable[[], None] = lambda: None
) -> list[Trajectory]:
    """The traces of a whole search, as another process that uses the server makes them."""
    engine = SGLangEngine(urls=[url], **{**PATIENCE, "retries": 8})  # type: ignore[arg-type]
    starts = encoder.plain("19a")
    forked = Forked(engine, starts)
    judge = SelfJudge(engine, encoder, JudgeSettings(verdicts="logprob"))

    async def search(problem: Problem) -> Trajectory:
        return await step_search(problem, forked, judge, encoder, SEARCH)  # type: ignore[arg-type]

    async def main() -> list[Trajectory]:
        await engine.load_weights(policy, "M1")
        return await for_each(PROBLEMS, search, "search", concurrency=4, on_result=lambda _: on_result())

    return asyncio.run(main())


def essence(trajectories: Sequence[Trajectory]) -> list[object]:
    """Everything but log-probabilities, in whose last digits the batch shows, and seconds."""
    nodes = [
        [
            (
                [(c.token_ids, c.text, c.final) for c in node.candidates],
                [j.winner for j in node.judgements],
                node.scores,
            )
            for node in one.nodes
        ]
        for one in trajectories
    ]
    pairs = [[(p.prompt_ids, p.chosen_ids, p.rejected_ids) for p in step_pairs(one)] for one in trajectories]
    return [nodes, pairs, [one.weights_version for one in trajectories]]


@pytest.fixture(scope="module")
def undisturbed(url: str, policies: tuple[Path, Path], encoder: Encoder) -> list[object]:
    traces = searched(url, policies[0], encoder)
    found = essence(traces)
    assert found == essence(searched(url, policies[0], encoder)), "the search itself is not repeatable"
    assert sum(len(step_pairs(one)) for one in traces) >= 12, "too few pairs to prove anything"
    return found


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def to_terminal(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return to_terminal


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_leaves_the_traces_as_they_are(
    fault: str,
    url: str,
    policies: tuple[Path, Path],
    encoder: Encoder,
    undisturbed: list[object],
    say: Callable[[str], None],
):
    # A hang costs a time-out each: two of them. Of the others, every third request all along.
    def turn(number: int) -> bool:
        return number >= FIRST and number % AMONG == 0 and (fault != "hang" or number < FIRST + 2 * AMONG)

    with serving(url) as (proxy, address):
        proxy.fault, proxy.turn = fault, turn
        started = time.monotonic()
        found = essence(searched(address, policies[0], encoder))
    say(f"{fault}: {proxy.spoilt} of {proxy.asked} requests spoilt, {time.monotonic() - started:.0f} s, traces equal")
    assert proxy.spoilt >= 2
    assert found == undisturbed


def test_a_restart_with_other_weights_in_the_middle_leaves_the_traces_as_they_are(
    owner: SGLangEngine,
    url: str,
    policies: tuple[Path, Path],
    encoder: Encoder,
    undisturbed: list[object],
    say: Callable[[str], None],
):
    done, back = 0, threading.Event()

    def restart() -> None:
        asyncio.run(owner.close())
        asyncio.run(owner.load_weights(policies[1], "other"))
        back.set()

    thread, started = threading.Thread(target=restart), time.monotonic()

    def count() -> None:
        nonlocal done
        done += not back.is_set()
        if not thread.ident:
            thread.start()

    with serving(url) as (proxy, address):
        proxy.fault = "latency"  # or the search would be over before the server is gone
        found = essence(searched(address, policies[0], encoder, count))
    thread.join()
    say(f"restart: {time.monotonic() - started:.0f} s, {done} of {len(PROBLEMS)} problems before, traces equal")
    assert 1 <= done < len(PROBLEMS)
    assert found == undisturbed


def ending(address: str, policy: Path, folder: Path) -> subprocess.Popen[str]:
    """`psr search` as a user starts it."""
    write_jsonl(folder / "problems.jsonl", [{"id": one.id, "problem": one.problem} for one in PROBLEMS])
    words = [sys.executable, "-m", "psr.cli.main", "search", "--model", str(policy)]
    words += ["--problems", str(folder / "problems.jsonl")]
    words += ["--out", str(folder / "out"), "--width", "3", "--max_steps", "5", "--max_step_tokens", "20"]
    words += ["--engine", "SGLangEngine", "--engine.urls", f"[{address}]", "--judge.verdicts", "logprob"]
    words += [word for name, value in PATIENCE.items() for word in (f"--engine.{name}", str(value))]
    words += ["--prompts", str(ROOT / "configs" / "quickstart" / "prompts.yaml"), "--concurrency", "4"]
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder
    )


def ends_with(process: subprocess.Popen[str], since: Callable[[], float | None]) -> tuple[str, float]:
    """The last line that it says, and the seconds from the fault to its end."""
    try:
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    begun = since()
    assert begun is not None, said[-3000:]
    assert process.returncode == 1 and "Traceback" not in said, said[-3000:]
    return said.strip().splitlines()[-1], time.monotonic() - begun


@pytest.mark.parametrize("fault", TOLD)
def test_a_fault_that_stays_ends_the_run_with_a_line(
    fault: str, url: str, policies: tuple[Path, Path], tmp_path: Path, say: Callable[[str], None]
):
    with serving(url) as (proxy, address):
        proxy.fault, proxy.turn = fault, lambda number: number >= FIRST
        line, seconds = ends_with(ending(address, policies[0], tmp_path), lambda: proxy.begun)
    say(f"{fault} stays: {seconds:.0f} s, {line}")
    assert line.startswith(f"psr: SGLang at {address} failed 4 times")
    assert re.search(TOLD[fault], line), line
    assert seconds < WITHIN


def test_a_server_that_does_not_come_back_ends_the_run_with_a_line(
    url: str, policies: tuple[Path, Path], tmp_path: Path, say: Callable[[str], None]
):
    with serving(url) as (proxy, address):
        process = ending(address, policies[0], tmp_path)
        while proxy.asked < FIRST:
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.01)
        gone = time.monotonic()
        proxy.upstream = "http://127.0.0.1:9"
        line, seconds = ends_with(process, lambda: gone)
    say(f"restart that fails: {seconds:.0f} s, {line}")
    assert line.startswith(f"psr: SGLang at {address} failed 4 times"), line
    assert seconds < WITHIN


def test_the_proxy_alone_changes_nothing(
    url: str, policies: tuple[Path, Path], encoder: Encoder, undisturbed: list[object]
):
    with serving(url) as (proxy, address):
        assert essence(searched(address, policies[0], encoder)) == undisturbed
    assert isinstance(proxy, Proxy) and not proxy.spoilt
