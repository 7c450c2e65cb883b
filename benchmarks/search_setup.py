"""One search by one system: what the parts of `search.py` measure, again and again."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psr.engines.base import Engine
from psr.engines.local import LocalEngine
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.usage import Usage, used_between
from psr.prompts.encoder import Encoder
from psr.records import Problem, Trajectory
from psr.search.judges import JudgeSettings, SelfJudge
from psr.search.run import for_each
from psr.search.step_search import SearchSettings, step_search
from search_peers import ContinuousEngine, PlainEngine, Record, Replay

SGLANG = Path(".venv-sglang/bin/sglang")
SERVER = Launch(command=str(SGLANG.absolute()), device="cpu", dtype="float32", log="runs/sglang-server.log")
SYSTEMS: dict[str, Callable[[], Engine]] = {
    "ours": LocalEngine,
    "plain": PlainEngine,
    "plain_batched": lambda: PlainEngine(batched=True),
    "continuous_batching": ContinuousEngine,
    "sglang": lambda: SGLangEngine(launch=SERVER),
}
DRAWS_BY_OUR_SEEDS = ("ours", "plain", "plain_batched")


@dataclass(frozen=True)
class Setup:
    """What every system searches with; the problems of `warm_up` come before those that are timed."""

    model: Path
    encoder: Encoder
    search: SearchSettings
    judge: JudgeSettings
    warm_up: list[Problem]

    def of_width(self, width: int) -> "Setup":
        return replace(self, search=replace(self.search, width=width))


@dataclass(frozen=True)
class Searched:
    """One search by one system, without loading the weights; `cpu` are the seconds of this process's processors."""

    trajectories: list[Trajectory]
    seconds: float
    cpu: float
    usage: Usage
    recorded: dict[Any, Any]


def searched(setup: Setup, problems: list[Problem], system: str, recorded: dict[Any, Any] | None = None) -> Searched:
    """Search the problems; with the candidates of `recorded`, if they are given."""

    async def run() -> Searched:
        engine = SYSTEMS[system]()
        try:
            await engine.load_weights(setup.model, "M1")
            await search(Record(engine), setup.warm_up)
            asked = Record(engine) if recorded is None else Replay(engine, recorded)
            before, started, cpu = dict(engine.usage), time.perf_counter(), time.process_time()
            trajectories = await search(asked, problems)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            usage = sum(used_between(before, engine.usage).values(), Usage())
            return Searched(trajectories, seconds, cpu, usage, asked.recorded)
        finally:
            await engine.close()

    async def search(asked: Any, some: list[Problem]) -> list[Trajectory]:
        judge = SelfJudge(asked, setup.encoder, setup.judge)
        return await for_each(some, lambda one: step_search(one, asked, judge, setup.encoder, setup.search), system)

    return asyncio.run(run())


def identical_pairs(one: list[Trajectory], other: list[Trajectory]) -> float:
    """The share of expansions with the same chosen and the same rejected step, token by token."""
    ours, theirs = _pairs(one), _pairs(other)
    return len(ours & theirs) / max(1, len(ours | theirs))


def _pairs(trajectories: list[Trajectory]) -> set[tuple[Any, ...]]:
    return {
        (t.problem.id, n, node.depth, *(node.candidates[i].token_ids for i in (node.chosen, node.rejected)))
        for t in trajectories
        for n, node in enumerate(t.nodes)
        if node.candidates
    }
