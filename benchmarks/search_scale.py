"""Search time against the number of servers, simulated: a real search against servers that answer after measured times.

    python benchmarks/search_scale.py --run runs/quickstart --json benchmarks/results/search_scale.json

First the in-process engine searches some of the run's problems with its M1, at several numbers of problems under way:
that gives the latency of every kind of request by load, and the replies. Then psr's search runs against 1, 2, 4, 8 and
16 servers that reply the same, each as late as that engine did under the load that the server has just then, on a clock
of their own. What is simulated is the servers and their time: there is no network, and the client's own work takes
none; it is measured beside, as one process has to do it for all servers that it asks.
"""

import argparse
import asyncio
import json
import selectors
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from psr.data.problems import read_problems
from psr.encoding import Encoder
from psr.engines.base import ANYWHERE, Completion, Origin, Sampling
from psr.engines.local import LocalEngine
from psr.engines.sglang.replicas import Placement, Replica
from psr.modules.policy import load_tokenizer
from psr.prompts import Prompts
from psr.records import Problem
from psr.run_folder import RunFolder
from psr.search.judges import JudgeSettings, SelfJudge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search

LOADS = (1, 4, 16, 64)
SERVERS = (1, 2, 4, 8, 16)
SEARCH = SearchSettings(width=6, temperature=0.7, top_p=1.0, max_step_tokens=48, ties="advance")
JUDGE = JudgeSettings(max_tokens=64)

Replies = list[list[Completion]]


@dataclass
class Recorded:
    """An engine that notes how late every reply came, and which it was, by problem."""

    engine: LocalEngine
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    replies: dict[str, list[Replies]] = field(default_factory=lambda: defaultdict(list))

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> Replies:
        started = time.monotonic()
        replies = await self.engine.generate(prompts, sampling, origin)
        self.latencies[origin.kind].append(time.monotonic() - started)
        self.replies[origin.key].append(replies)
        return replies


@dataclass
class Simulated:
    """Servers that reply what was recorded, each as late as measured under its load; a problem stays with one."""

    recorded: dict[str, list[Replies]]
    by_load: dict[str, list[tuple[int, float]]]
    placement: Placement
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> Replies:
        server = self.placement.of(origin.key)
        server.load += 1
        await asyncio.sleep(latency(self.by_load[origin.kind], server.load))
        server.load -= 1
        self.asked[origin.key] += 1
        return self.recorded[origin.key.partition("#")[0]][self.asked[origin.key] - 1]


def latency(measured: list[tuple[int, float]], load: int) -> float:
    """Seconds under so many requests: in between the measurements on a line, beyond the last in proportion."""
    for (low, fast), (high, slow) in pairwise(measured):
        if load <= high:
            return fast + (slow - fast) * (load - low) / (high - low)
    last, slowest = measured[-1]
    return slowest * load / last


class OwnClock(asyncio.SelectorEventLoop):
    """An event loop whose time goes on only while it would wait, and then at once."""

    def __init__(self) -> None:
        self.now = 0.0

        class Skipping(selectors.SelectSelector):
            def select(selector, timeout: float | None = None) -> Any:
                self.now += timeout or 0.0
                return super().select(0)

        super().__init__(Skipping())

    def time(self) -> float:
        return self.now


async def search(problems: list[Problem], engine: Any, encoder: Encoder, at_once: int) -> list[float]:
    """Search them; the seconds of each, on the loop's clock."""
    judge, loop = SelfJudge(engine, encoder, JUDGE), asyncio.get_running_loop()

    async def one(problem: Problem) -> float:
        started = loop.time()
        await step_search(problem, engine, judge, encoder, SEARCH)
        return loop.time() - started

    return await for_each(problems, one, f"{len(problems)} problems, {at_once} at once", at_once)


def simulate(
    problems: list[Problem], servers: int, encoder: Encoder, recorded: Any, by_load: Any, at_once: int
) -> dict[str, float]:
    """Seconds of the whole search, of its longest problem, and of the client's processor."""
    engine = Simulated(recorded, by_load, Placement([Replica(f"server {n}", []) for n in range(servers)]))
    loop, used = OwnClock(), time.process_time()
    each = loop.run_until_complete(search(problems, engine, encoder, at_once))
    return {"servers": servers, "seconds": loop.now, "longest": max(each), "client": time.process_time() - used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory of the quickstart with its M1")
    parser.add_argument("--prompts", type=Path, default=Path("configs/quickstart/prompts.yaml"))
    parser.add_argument("--measured", type=int, default=100, help="problems that are really searched")
    parser.add_argument("--problems", type=int, default=400, help="problems of the simulation: those, again and again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = RunFolder(options.run).model(1)
    encoder = Encoder(load_tokenizer(model), Prompts(**yaml.safe_load(options.prompts.read_text())))
    problems = read_problems(str(options.run / "data" / "problems.jsonl"))[: options.measured]
    engine = LocalEngine()
    asyncio.run(engine.load_weights(model, "M1"))
    by_load: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for load in LOADS:
        watched = Recorded(engine)
        asyncio.run(search(problems if load == LOADS[-1] else problems[: 2 * load], watched, encoder, load))
        for kind, seconds in watched.latencies.items():
            by_load[kind].append((load, sum(seconds) / len(seconds)))
    repeated = [
        Problem(f"{problems[n % len(problems)].id}#{n}", problems[n % len(problems)].problem)
        for n in range(options.problems)
    ]
    rows = [simulate(repeated, servers, encoder, watched.replies, by_load, len(repeated)) for servers in SERVERS]
    table = Table("servers", "seconds", "speed-up", "efficiency %", "longest problem s", "client CPU s")
    for row in rows:
        row["efficiency"] = rows[0]["seconds"] / row["seconds"] / row["servers"]
        cells = (
            row["seconds"],
            rows[0]["seconds"] / row["seconds"],
            100 * row["efficiency"],
            row["longest"],
            row["client"],
        )
        table.add_row(f"{row['servers']:.0f}", *(f"{value:.1f}" for value in cells))
    Console().print(table)
    Console().print({kind: [(load, round(seconds, 3)) for load, seconds in found] for kind, found in by_load.items()})
    if options.json:
        options.json.write_text(
            json.dumps(
                {"measured": len(problems), "problems": len(repeated), "latency_by_load": by_load, "rows": rows},
                indent=2,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
