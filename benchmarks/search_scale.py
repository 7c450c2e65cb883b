"""Search time against the number of servers, simulated: psr's real search and engine, servers that answer as measured.

    python benchmarks/search_scale.py --run runs/quickstart --json benchmarks/results/search_scale.json

Needs `make sglang`. A real SGLang server on the CPU is asked by a real search of 400 problems with the run's M1, which
is noted, and says how long a decoding step takes at 1 to 256 sequences, and a prefill by its tokens. Its time is the
processor time of its scheduler, which runs the model: what else the machine does hardly counts. The noted search on one
simulated server shows how far the simulation is off. Then come 2, 4, 8 and 16 servers, for the problems of each
iteration of the paper: 400, 800 and 1,200. `--measured FILE` keeps the measurement, or uses it if it is there.
"""

import argparse
import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import yaml
from rich.console import Console
from rich.table import Table

from psr.engines.base import Engine
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.sglang.fleet import Fleet
from psr.engines.sglang.protocol import Ask
from psr.engines.sglang.replicas import Replica
from psr.engines.sglang.transport import Session
from psr.files.jsonl import read_json, write_json
from psr.files.problems import read_problems
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem
from psr.run.folder import RunFolder
from psr.search.judges import JudgeSettings, SelfJudge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search
from simulated_servers import OwnClock, SimulatedEngine, SimulatedFleet, Speed

SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""As many run at most: the engine's `concurrency`."""
CALL = 4
"""Sequences of one HTTP request in the measurement; a search sends its candidates six at a time, verdicts in pairs."""
SHORT, LONG, ROUNDS = 4, 28, 3
SERVERS = (1, 2, 4, 8, 16)
DEFAULT = 512
"""Of `data.concurrency`: problems under way at the same time."""
ITERATIONS = ((400, DEFAULT), (800, 800), (1200, 1200), (800, DEFAULT), (1200, DEFAULT))
"""(problems, at most under way): those of the paper, all at once and as the DataModule's default has it."""
SEARCH = SearchSettings(width=6, temperature=0.7, top_p=1.0, max_step_tokens=48, ties="advance")
JUDGE = JudgeSettings(max_tokens=64)
SHARE_FROM = 1

Replies = dict[str, list[list[dict[str, Any]]]]


class RecordingFleet(Fleet):
    """Notes what the server was asked and what it replied, by problem."""

    prompts: list[tuple[int, ...]]
    replies: Replies

    async def generate(
        self, session: Session, replica: Replica, asks: Sequence[Ask], choices: Sequence[int], key: str
    ) -> list[dict[str, Any]]:
        found = await super().generate(session, replica, asks, choices, key)
        self.prompts += [ask.prompt for ask in asks]
        self.replies.setdefault(key, []).append(found)
        return found


class RecordedEngine(SGLangEngine):
    def __init__(self, launch: Launch) -> None:
        super().__init__(launch=launch, share_from=SHARE_FROM)
        self.recording = RecordingFleet(self._fleet.servers, None, 1, SEQUENCES[-1], retries=8, timeout=600.0)
        self.recording.prompts, self.recording.replies = [], {}
        self._fleet = self.recording


async def search(problems: Sequence[Problem], engine: Engine, encoder: Encoder, at_once: int = DEFAULT) -> None:
    judge, title = SelfJudge(engine, encoder, JUDGE), f"{len(problems)} problems"
    await for_each(problems, lambda one: step_search(one, engine, judge, encoder, SEARCH), title, at_once)


def scheduler_seconds() -> float:
    """Processor time of the server's scheduler: of all processes below this one it has worked most."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return max(time.user + time.system for time in times)


async def measure(model: Path, problems: Sequence[Problem], encoder: Encoder, launch: Launch) -> dict[str, Any]:
    """A search by a real server, and how fast that server is."""
    engine = RecordedEngine(launch)
    try:
        await engine.load_weights(model, "M1")
        await search(problems[:20], engine, encoder)  # warms up
        engine.recording.prompts.clear()
        engine.recording.replies.clear()
        await engine.load_weights(model, "M1")
        before = scheduler_seconds()
        await search(problems, engine, encoder)
        seconds, replies = scheduler_seconds() - before, dict(engine.recording.replies)
        speed = await measure_speed(engine.recording, random.Random(0))
    finally:
        await engine.close()
    return {"seconds": seconds, **asdict(speed), "replies": replies}


async def measure_speed(fleet: RecordingFleet, rng: random.Random) -> Speed:
    """From batches of the search's own prompts, decoded to a short and to a long end; medians of several rounds."""
    prompts = sorted({prompt for prompt in fleet.prompts if len(prompt) > 1})
    taken: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    for _ in range(ROUNDS):
        for size in SEQUENCES:
            chosen = rng.sample(prompts, size)
            short, uncached = await timed(fleet, chosen, SHORT)
            taken[size].append((short, (await timed(fleet, chosen, LONG))[0], uncached))
    steps = [(size, median((long - short) / (LONG - SHORT) for short, long, _ in some)) for size, some in taken.items()]
    prefills = [median(short for short, _, _ in taken[size]) - (SHORT - 1) * step for size, step in steps]
    tokens = [median(uncached for _, _, uncached in taken[size]) for size, _ in steps]
    token, once = np.polyfit(tokens, prefills, 1)
    return Speed(steps, max(0.0, float(once)), float(token))


async def timed(fleet: Fleet, prompts: Sequence[tuple[int, ...]], length: int) -> tuple[float, int]:
    """Scheduler's seconds until all have so many new tokens, and how many tokens of the prompts were in no cache."""
    [replica] = fleet.placement.replicas
    asks = [Ask(prompt, {"max_new_tokens": length, "temperature": 0.7, "ignore_eos": True}) for prompt in prompts]
    calls = [asks[i : i + CALL] for i in range(0, len(asks), CALL)]
    async with fleet.session() as session:
        await replica.servers[0].drain(session)  # and empty the cache
        before = scheduler_seconds()
        found = await asyncio.gather(*(Fleet.generate(fleet, session, replica, call, (), "") for call in calls))
    metas = [reply["meta_info"] for some in found for reply in some]
    return scheduler_seconds() - before, sum(meta["prompt_tokens"] - meta["cached_tokens"] for meta in metas)


def simulate(
    measured: dict[str, Any], model: Path, problems: Sequence[Problem], at_once: int, servers: int, encoder: Encoder
) -> dict[str, float]:
    """Seconds of the search, and the figures that explain them.

    Efficiency is the time of one server over the time of all together, as if they were one after the other; it is the
    product of the time that servers are busy and of how much they decode in that time, against one server.
    """
    speed = Speed(*(measured[name] for name in ("steps", "prefill", "prefill_token")))
    fleet = SimulatedFleet(servers, speed, measured["replies"])
    engine, loop = SimulatedEngine(fleet, SHARE_FROM), OwnClock()
    loop.run_until_complete(engine.load_weights(model, "M1"))
    before, used = loop.now, time.process_time()
    loop.run_until_complete(search(problems, engine, encoder, at_once))
    used, busy = time.process_time() - used, sum(one.busy for one in fleet.simulated.values())
    return {
        "problems": len(problems),
        "at_once": min(at_once, len(problems)),
        "servers": servers,
        "seconds": loop.now - before,
        "busy": busy / servers / (loop.now - before),
        "tokens_per_busy_second": sum(one.decoded for one in fleet.simulated.values()) / busy,
        "client": used,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory of the quickstart with its M1")
    parser.add_argument("--prompts", type=Path, default=Path("configs/quickstart/prompts.yaml"))
    parser.add_argument("--measured", type=Path, default=Path("runs/search_scale.json"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = RunFolder(options.run).model(1)
    encoder = Encoder(load_tokenizer(model), Prompts(**yaml.safe_load(options.prompts.read_text())))
    problems = read_problems(str(options.run / "data" / "problems.jsonl"))[: ITERATIONS[0][0]]
    if not options.measured.exists():
        launch = Launch(device="cpu", dtype="float32", log=str(options.measured.with_suffix(".log")))
        write_json(options.measured, asyncio.run(measure(model, problems, encoder, launch)))
    measured = read_json(options.measured)
    rows = []
    for many, at_once in ITERATIONS:
        copies = [Problem(f"{one.id}#{n}", one.problem) for n, one in zip(range(many), cycle(problems), strict=False)]
        of_many = [simulate(measured, model, copies, at_once, servers, encoder) for servers in SERVERS]
        rows += [{**row, **against(of_many[0], row)} for row in of_many]
    took, said = measured["seconds"], rows[0]["seconds"]
    Console().print(f"one server, {len(problems)} problems: measured {took:.1f} s, simulated {said:.1f} s")
    Console().print(scale_table(rows))
    if options.json:
        figures = {name: value for name, value in measured.items() if name != "replies"}
        options.json.write_text(json.dumps({"server": figures, "rows": rows}, indent=2) + "\n")


def against(one: dict[str, float], row: dict[str, float]) -> dict[str, float]:
    """Its efficiency, and how much a busy server decodes, against one server that is asked everything."""
    return {
        "efficiency": one["seconds"] / row["seconds"] / row["servers"],
        "batches": row["tokens_per_busy_second"] / one["tokens_per_busy_second"],
    }


def scale_table(rows: Sequence[dict[str, float]]) -> Table:
    table = Table(
        "problems", "at once", "servers", "seconds", "efficiency %", "busy %", "tokens/s when busy %", "client CPU s"
    )
    for row in rows:
        cells = (f"{100 * row[name]:.1f}" for name in ("efficiency", "busy", "batches"))
        table.add_row(
            f"{row['problems']:.0f}",
            f"{row['at_once']:.0f}",
            f"{row['servers']:.0f}",
            f"{row['seconds']:.1f}",
            *cells,
            f"{row['client']:.1f}",
            end_section=row["servers"] == SERVERS[-1],
        )
    return table


if __name__ == "__main__":
    main()
