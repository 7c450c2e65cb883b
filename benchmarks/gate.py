"""What the gate says of every hand-over of finished runs, with the accuracy that it never sees beside it.

    python benchmarks/gate.py runs/benchmark/self-0 runs/benchmark/self-0-paper-beta --json benchmarks/results/gate.json

Runs of configs/quickstart or configs/srlm. Every M(n + 1) is compared with the best model so far, by M1, on the same
probe problems: they come from the runs' own generator, and are in none of their sets. The cost of a hand-over stands
beside that of the iteration that it ends (search, training, evaluation), as the run noted it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from peers import machine
from psr.commands.data import arithmetic
from psr.engines.base import Engine, Sampling
from psr.engines.usage import Usage, usage_from_json, used_between
from psr.evaluation.probing import Probe, Unit, compare, probe
from psr.files.jsonl import read_json
from psr.files.problems import read_problems
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.records import Problem
from psr.run.folder import USAGE, RunFolder
from psr.run.results import read_results
from psr.run.settings import RunSettings, read_run_settings

DATA = Path("configs/quickstart/data.yaml")
LEVEL = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--units", nargs="+", default=["step"], choices=["step", "whole"], help="what is compared")
    parser.add_argument("--judges", nargs="+", default=["initial"], choices=["initial", "previous"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for run in options.runs:
        for judge in options.judges:
            for unit in options.units:
                found += asyncio.run(hand_overs(run, options.probes, options.samples, judge, unit))
    Console().print(table(found))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "hand_overs": found}, indent=2) + "\n")


def probe_problems(seed: int, count: int) -> list[Problem]:
    """Problems that no set of a run with this seed holds: those that the generator writes after all the others."""
    settings = yaml.safe_load(DATA.read_text())
    with tempfile.TemporaryDirectory() as folder:
        arithmetic(**{**settings, "out": Path(folder), "seed": seed, "probes": count})
        return read_problems(Path(folder) / "probes.jsonl")


async def hand_overs(run: Path, count: int, samples: int, judge: str, unit: Unit) -> list[dict[str, Any]]:
    """The gate's figures of every hand-over of a run, as if it only warned."""
    settings, results = read_run_settings(run), read_results(run / "results.json")
    engine, models = settings.engine, {model["name"]: model for model in results["models"]}
    encoder = Encoder(load_tokenizer(run / "models" / "M1"), settings.prompts)
    problems = probe_problems(results["seed"], count)
    probes, found, best = {"M1": await solve(settings, encoder, problems, "M1", samples)}, [], "M1"
    for name in list(models)[1:]:
        started, before = time.monotonic(), dict(engine.usage)
        probes[name] = await solve(settings, encoder, problems, name, samples)
        judging = "M1" if judge == "initial" else f"M{int(name[1:]) - 1}"
        await engine.load_weights(run / "models" / judging, judging)
        title = f"{run.name}: {judging} compares {name} with {best}"
        figures = await compare(engine, encoder, settings.judge, probes[best], probes[name], unit, LEVEL, title)
        cost = {"seconds": time.monotonic() - started, "generated_tokens": generated(before, engine)}
        accuracy = {"accuracy": models[name]["accuracy"], "accuracy_before": models[best]["accuracy"]}
        row = {"run": run.name, "model": name, "against": best, "judge": judging, "unit": unit, **figures, **accuracy}
        found.append({**row, **cost, "iteration": iteration_cost(run, int(name[1:]), models[name])})
        best = best if figures["worse"] else name
    return found


async def solve(
    settings: RunSettings, encoder: Encoder, problems: list[Problem], name: str, samples: int
) -> list[Probe]:
    engine, how = settings.engine, settings.search
    await engine.load_weights(settings.run / "models" / name, name)
    sampling = Sampling(settings.max_tokens, how.temperature, how.top_p, samples, how.seed)
    return await probe(engine, encoder, problems, settings.max_tokens, sampling, f"{settings.run.name}: {name}")


def generated(before: dict[str, Usage], engine: Engine) -> int:
    return sum(used_between(before, engine.usage).values(), Usage()).generated_tokens


def iteration_cost(run: Path, number: int, model: dict[str, Any]) -> dict[str, float]:
    """Seconds of the whole iteration that made the model, and the tokens that its search generated."""
    usage = usage_from_json(read_json(RunFolder(run).iteration(number) / USAGE))
    tokens = sum(usage.values(), Usage()).generated_tokens
    return {"seconds": sum(model["seconds"].values()), "generated_tokens": tokens}


def table(found: list[dict[str, Any]]) -> Table:
    columns = ("run", "model", "by", "won", "lost", "share of wins", "answer", "agree", "tokens", "apart", "worse")
    out = Table(*columns, "accuracy", "s", "% of s", "% of tokens", title="the gate at every hand-over")
    for one in found:
        share, after, whole = one["win_share"], one["after"], one["iteration"]
        interval = "-" if share is None else f"{100 * share:.0f} ({100 * one['low']:.0f}-{100 * one['high']:.0f})"
        out.add_row(
            one["run"],
            f"{one['model']}:{one['against']}",
            f"{one['judge']} {one['unit']}",
            str(one["wins"]),
            str(one["losses"]),
            interval,
            f"{100 * after['finished']:.0f}",
            "-" if after["consistency"] is None else f"{100 * after['consistency']:.0f}",
            f"{after['tokens']:.1f}",
            f"{one['distance']:.4f}",
            "WORSE" if one["worse"] else "",
            f"{100 * one['accuracy_before']:.1f} -> {100 * one['accuracy']:.1f}",
            f"{one['seconds']:.1f}",
            f"{100 * one['seconds'] / whole['seconds']:.1f}",
            f"{100 * one['generated_tokens'] / whole['generated_tokens']:.1f}",
        )
    return out


if __name__ == "__main__":
    main()
