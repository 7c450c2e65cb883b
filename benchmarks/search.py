"""Measures the search of an iteration: its speed against peers, what the prefix cache spares, and fewer comparisons.

    psr run configs/quickstart --run-dir runs/quickstart
    python benchmarks/search.py --run runs/quickstart --json runs/quickstart/search.json

Reads M1 and the problems of the run. All systems search the same problems with the same seeds, in float32. Speeds are
ratios of interleaved runs. `--json OUT` writes the figures.
"""

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from psr.data.problems import read_problems
from psr.encoding import Encoder
from psr.engines.base import Engine
from psr.engines.local import LocalEngine
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.usage import Usage
from psr.modules.policy import load_tokenizer
from psr.prompts import Prompts
from psr.records import Candidate, Judgement, Problem, StepNode, Trajectory
from psr.search.judges import JudgeSettings, SelfJudge, hold
from psr.search.rounds import Comparisons
from psr.search.run import for_each
from psr.search.sharing import best_usage
from psr.search.step_search import SearchSettings, expand, step_search
from search_peers import ContinuousEngine, PlainEngine, Record, Replay

SYSTEMS = ("ours", "plain", "plain_batched", "continuous_batching", "sglang")
SGLANG = Path(".venv-sglang/bin/sglang")


@dataclass(frozen=True)
class Setup:
    """What every system searches with."""

    model: Path
    encoder: Encoder
    search: SearchSettings
    judge: JudgeSettings


@dataclass(frozen=True)
class Searched:
    """One search by one system, without loading the weights; `cpu` are the seconds of this process's processors."""

    trajectories: list[Trajectory]
    seconds: float
    cpu: float
    usage: dict[str, Usage]
    recorded: dict[Any, Any]


def main() -> None:
    options = arguments()
    torch.set_flush_denormal(True)
    config = yaml.safe_load((options.recipe / "self_rewarding.yaml").read_text())["data"]["init_args"]
    prompts = Prompts(**yaml.safe_load((options.recipe / "prompts.yaml").read_text()))
    model = options.run / "models/M1"
    encoder = Encoder(load_tokenizer(model), prompts)
    search = replace(SearchSettings(**config["search"]), width=options.width)
    setup = Setup(model, encoder, search, JudgeSettings(**config["judge"]))
    problems = read_problems(options.run / "data/problems.jsonl")
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "width": options.width}
    figures |= compare(setup, problems[: options.problems], options.systems)
    figures |= prompt_tokens(setup, problems[: options.problems])
    figures |= comparisons(setup, problems[: options.problems], options.widths)
    figures["growth"] = growth(setup, problems, options.growth, options.widths)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, required=True, help="a run directory with models/M1 and data/problems.jsonl"
    )
    parser.add_argument("--recipe", type=Path, default=Path("configs/quickstart"), help="its recipe")
    parser.add_argument("--problems", type=int, default=50, help="problems of the comparison of systems")
    parser.add_argument("--width", type=int, default=6, help="candidates per step in the comparison of systems")
    parser.add_argument("--widths", type=int, nargs="*", default=list(range(2, 9)), help="of the comparison of judges")
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 100, 200, 400], help="numbers of problems")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="what is compared")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_engine(system: str) -> Engine:
    engines = {
        "ours": LocalEngine,
        "plain": PlainEngine,
        "plain_batched": lambda: PlainEngine(batched=True),
        "continuous_batching": ContinuousEngine,
        "sglang": lambda: SGLangEngine(launch=Launch(command=str(SGLANG.resolve()), device="cpu", dtype="float32")),
    }
    return engines[system]()


def searched(setup: Setup, problems: list[Problem], system: str, recorded: dict[Any, Any] | None = None) -> Searched:
    """Search the problems; with the candidates of `recorded`, if they are given."""

    async def run() -> Searched:
        engine = make_engine(system)
        try:
            await engine.load_weights(setup.model, "M1")
            asked: Any = Record(engine) if recorded is None else Replay(engine, recorded)
            judge = SelfJudge(asked, setup.encoder, setup.judge)
            started, cpu = time.perf_counter(), time.process_time()
            trajectories = await for_each(
                problems, lambda problem: step_search(problem, asked, judge, setup.encoder, setup.search), system
            )
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            return Searched(trajectories, seconds, cpu, dict(engine.usage), asked.recorded)
        finally:
            await engine.close()

    return asyncio.run(run())


def compare(setup: Setup, problems: list[Problem], systems: list[str]) -> dict[str, Any]:
    """Problems per minute of every system, ours once before each other one so that the load is the same for both."""
    figures: dict[str, Any] = {}
    table = Table("system", "problems/min", "ours is faster by", "CPU time over ours", "same pairs", title="search")
    warm = searched(setup, problems[:2], "ours")
    assert warm.trajectories
    for system in systems:
        if system == "sglang" and not SGLANG.exists():
            table.add_row(system, "no .venv-sglang: make sglang", "", "", "")
            continue
        ours = searched(setup, problems, "ours")
        draws_by_our_seeds = system in ("ours", "plain", "plain_batched")
        try:
            other = searched(setup, problems, system, None if draws_by_our_seeds else ours.recorded)
        except Exception as error:  # a peer that this release of transformers does not run on this machine
            table.add_row(system, f"{type(error).__name__}: {error}"[:60], "", "", "")
            figures[system] = {"error": f"{type(error).__name__}: {error}"}
            continue
        same = identical_pairs(ours.trajectories, other.trajectories)
        figures[system] = {
            "problems_per_minute": 60 * len(problems) / other.seconds,
            "ours_is_faster_by": other.seconds / ours.seconds,
            "cpu_seconds_over_ours": other.cpu / ours.cpu,  # what a busy machine cannot distort, but for servers
            "identical_pairs": same,
            "candidates_replayed": not draws_by_our_seeds,
        }
        row = figures[system]
        cpu = "-" if system == "sglang" else f"{row['cpu_seconds_over_ours']:.2f}"
        speed = (f"{row['problems_per_minute']:.1f}", f"{row['ours_is_faster_by']:.2f}")
        table.add_row(system, *speed, cpu, f"{same:.3f}")
    Console().print(table)
    plain = figures.get("plain", {})
    summary = {"speedup_vs_plain": plain.get("ours_is_faster_by"), "identical_pairs": plain.get("identical_pairs")}
    return {**summary, "problems": len(problems), "systems": figures}


def identical_pairs(one: list[Trajectory], other: list[Trajectory]) -> float:
    """The share of expansions with the same chosen and the same rejected step, token by token."""
    sets = [
        {
            (
                t.problem.id,
                n,
                node.depth,
                node.candidates[node.chosen].token_ids,
                node.candidates[node.rejected].token_ids,
            )
            for t in some
            for n, node in enumerate(t.nodes)
            if node.candidates
        }
        for some in (one, other)
    ]
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


def prompt_tokens(setup: Setup, problems: list[Problem]) -> dict[str, Any]:
    """Prompt tokens that were computed, as a share of those asked and over the fewest for the same requests."""
    ours = searched(setup, problems, "ours")
    used = sum(ours.usage.values(), Usage())
    best = sum(best_usage(ours.trajectories, setup.encoder).values(), Usage())
    computed, fewest = (one.prompt_tokens - one.cached_tokens for one in (used, best))
    figures = {
        "prompt_tokens_asked": used.prompt_tokens,
        "prompt_tokens_computed": computed,
        "prompt_tokens_minimum": fewest,
        "prompt_tokens_over_minimum": computed / fewest,
        "generated_tokens": used.generated_tokens,
    }
    table = Table("asked", "computed", "minimum", "over minimum", title="tokens of prompts")
    table.add_row(
        *(str(figures[f"prompt_tokens_{name}"]) for name in ("asked", "computed", "minimum")),
        f"{computed / fewest:.3f}",
    )
    Console().print(table)
    return figures


def comparisons(setup: Setup, problems: list[Problem], widths: list[int]) -> dict[str, Any]:
    """Verdicts that `adaptive` and `knockout` ask for, on the verdicts of a full round robin, and on random tables."""
    rows = []
    table = Table(
        "w",
        "verdicts",
        "candidates",
        "adaptive %",
        "same pairs %",
        "knockout %",
        "same pairs %",
        title="verdicts asked, as a share of round robin",
    )
    for width in widths:
        full = searched(replace(setup, search=replace(setup.search, width=width)), problems, "ours").trajectories
        nodes = [node for trajectory in full for node in trajectory.nodes if node.judgements]
        for name, some in (("searched", nodes), ("random", random_nodes(width, 300))):
            row: dict[str, Any] = {"width": width, "verdicts": name}
            row["distinct"] = sum(len({c.text for c in node.candidates}) for node in some) / max(1, len(some))
            for how in ("adaptive", "knockout"):
                row[how] = replayed(some, how)  # type: ignore[arg-type]
            rows.append(row)
            cells = [f"{100 * row[how][key]:.1f}" for how in ("adaptive", "knockout") for key in ("share", "same")]
            table.add_row(str(width), name, f"{row['distinct']:.2f}", *cells)
    Console().print(table)
    shares = {row["width"]: row["adaptive"]["share"] for row in rows if row["verdicts"] == "searched"}
    return {"verdicts_adaptive_over_round_robin": shares, "comparisons": rows}


def replayed(nodes: list[StepNode], how: Comparisons) -> dict[str, float]:
    """The share of the nodes' verdicts that are asked for, and of the nodes with the same best and worst."""
    asked = same = 0
    for node in nodes:
        winners = {(j.first, j.second): j.winner for j in node.judgements}

        async def ask(questions: list[tuple[int, int]], winners: Any = winners) -> list[Judgement]:
            return [Judgement(*question, winners[question]) for question in questions]

        judgements = asyncio.run(hold(node.candidates, JudgeSettings(comparisons=how), ask))
        got = expand(node.depth, node.candidates, judgements, SearchSettings())
        asked += len(judgements)
        same += (got.chosen, got.rejected) == (node.chosen, node.rejected)
    total = sum(len(node.judgements) for node in nodes)
    return {"share": asked / max(1, total), "same": same / max(1, len(nodes))}


def random_nodes(width: int, count: int) -> list[StepNode]:
    """Different candidates of random worth, of which a judge names the better one in nine of ten verdicts."""
    rng, nodes = random.Random(width), []
    candidates = tuple(Candidate((i,), str(i), 0.0, False) for i in range(width))
    for _ in range(count):
        worth = [rng.random() for _ in candidates]
        judgements = tuple(
            Judgement(
                i, j, max(i, j, key=lambda k: worth[k]) if rng.random() < 0.9 else min(i, j, key=lambda k: worth[k])
            )
            for i in range(width)
            for j in range(width)
            if i != j
        )
        nodes.append(expand(0, candidates, judgements, SearchSettings()))
    return nodes


def growth(setup: Setup, problems: list[Problem], counts: list[int], widths: list[int]) -> dict[str, Any]:
    """Seconds of our search by the number of problems, and by width with as few problems as the first of `counts`."""
    by_count = {n: searched(setup, problems[:n], "ours") for n in counts if n <= len(problems)}
    few = problems[: counts[0]] if counts else []
    by_width = {
        width: searched(replace(setup, search=replace(setup.search, width=width)), few, "ours")
        for width in (widths if few else [])
    }
    table = Table("problems", "w", "seconds", "CPU seconds", "of these per problem", title="growth")
    rows = [(n, setup.search.width, one) for n, one in by_count.items()]
    for n, width, one in [*rows, *((len(few), width, one) for width, one in by_width.items())]:
        table.add_row(str(n), str(width), f"{one.seconds:.2f}", f"{one.cpu:.2f}", f"{one.cpu / n:.4f}")
    Console().print(table)
    return {
        f"{unit}_by_{name}": {key: getattr(one, unit) for key, one in some.items()}
        for name, some in (("problems", by_count), ("width", by_width))
        for unit in ("seconds", "cpu")
    }


if __name__ == "__main__":
    main()
