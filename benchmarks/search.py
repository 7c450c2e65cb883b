"""Measures the search of an iteration: its speed against peers, what the prefix cache spares, and fewer comparisons.

    psr run configs/quickstart --run-dir runs/quickstart
    python benchmarks/search.py --json runs/quickstart/search.json

Reads M1 and the problems of the run. All systems search the same problems with the same seeds, in float32. Speeds are
ratios of interleaved runs. `--json OUT` writes the figures.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from peers import machine
from psr.files.problems import read_problems
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem
from psr.search.judges import JudgeSettings
from psr.search.sharing import fewest_prompt_tokens
from psr.search.step_search import SearchSettings
from search_setup import DRAWS_BY_OUR_SEEDS, SGLANG, SYSTEMS, Setup, identical_pairs, searched
from search_verdicts import verdicts_asked


def main() -> None:
    options = arguments()
    torch.set_flush_denormal(True)  # as psr itself does
    config = yaml.safe_load((options.recipe / "self_rewarding.yaml").read_text())["data"]["init_args"]
    prompts = Prompts(**yaml.safe_load((options.recipe / "prompts.yaml").read_text()))
    model = options.run / "models/M1"
    warm_up, problems = split(read_problems(options.run / "data/problems.jsonl"))
    search, judge = SearchSettings(**config["search"]), JudgeSettings(**config["judge"])
    setup = Setup(model, Encoder(load_tokenizer(model), prompts), search, judge, warm_up).of_width(options.width)
    some = problems[: options.problems]
    figures: dict[str, Any] = {**machine(), "width": options.width, "problems": len(some)}
    figures |= compare(setup, some, options.systems)
    figures |= prompt_tokens(setup, some)
    figures |= verdicts_asked(setup, some, options.widths)
    figures["growth"] = growth(setup, problems, options.growth, options.widths)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/quickstart"), help="with models/M1 and data/problems.jsonl"
    )
    parser.add_argument("--recipe", type=Path, default=Path("configs/quickstart"), help="its recipe")
    parser.add_argument("--problems", type=int, default=50, help="problems of the comparison of systems")
    parser.add_argument("--width", type=int, default=6, help="candidates per step in the comparison of systems")
    parser.add_argument("--widths", type=int, nargs="*", default=list(range(2, 9)), help="of the comparison of judges")
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 100, 200, 400], help="numbers of problems")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="what is compared")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def split(problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Two problems to warm up with, and the others."""
    return problems[-2:], problems[:-2]


def compare(setup: Setup, problems: list[Problem], systems: list[str]) -> dict[str, Any]:
    """Every system between two runs of ours, whose mean it is compared with."""
    figures: dict[str, Any] = {}
    for system in systems:
        if system == "sglang" and not SGLANG.exists():
            figures[system] = {"not_run": "no .venv-sglang: make sglang"}
            continue
        before = searched(setup, problems, "ours")
        replayed = system not in DRAWS_BY_OUR_SEEDS
        other = searched(setup, problems, system, before.recorded if replayed else None)
        after = searched(setup, problems, "ours")
        figures[system] = {
            "problems_per_minute": 60 * len(problems) / other.seconds,
            "ours_is_faster_by": 2 * other.seconds / (before.seconds + after.seconds),
            "cpu_seconds_over_ours": 2 * other.cpu / (before.cpu + after.cpu),  # nothing else that runs distorts it
            "identical_pairs": identical_pairs(before.trajectories, other.trajectories),
            "candidates_replayed": replayed,
        }
    plain = figures.get("plain", {}).get("ours_is_faster_by")
    table = Table(
        "system", "problems/min", "times plain", "ours is faster by", "CPU time", "same pairs", title="search"
    )
    for system, row in figures.items():
        if "not_run" in row:
            table.add_row(system, row["not_run"], "", "", "", "")
            continue
        row["speedup_vs_plain"] = plain / row["ours_is_faster_by"] if plain else None
        cpu = "-" if system == "sglang" else f"{row['cpu_seconds_over_ours']:.2f}"  # the server has its own
        cells = [f"{row[key] or 0:.2f}" for key in ("problems_per_minute", "speedup_vs_plain", "ours_is_faster_by")]
        table.add_row(system, *cells, cpu, f"{row['identical_pairs']:.3f}")
    Console().print(table)
    same = [row["identical_pairs"] for row in figures.values() if "not_run" not in row]
    return {"speedup_vs_plain": plain, "identical_pairs": min(same, default=None), "systems": figures}


def prompt_tokens(setup: Setup, problems: list[Problem]) -> dict[str, Any]:
    """Prompt tokens that were computed, as a share of those asked and over the fewest for the same requests."""
    ours = searched(replace(setup, warm_up=[]), problems, "ours")  # which would leave the instruction in the cache
    asked, computed = ours.usage.prompt_tokens, ours.usage.prompt_tokens - ours.usage.cached_tokens
    fewest = fewest_prompt_tokens(ours.trajectories, setup.encoder)
    table = Table("asked", "computed", "minimum", "over minimum", title="tokens of prompts")
    table.add_row(str(asked), str(computed), str(fewest), f"{computed / fewest:.3f}")
    Console().print(table)
    return {
        "prompt_tokens_asked": asked,
        "prompt_tokens_computed": computed,
        "prompt_tokens_minimum": fewest,
        "prompt_tokens_over_minimum": computed / fewest,
        "generated_tokens": ours.usage.generated_tokens,
    }


def growth(setup: Setup, problems: list[Problem], counts: list[int], widths: list[int]) -> dict[str, Any]:
    """Seconds of our search by the number of problems, and by width with as many problems as the least of `counts`."""
    few = min(counts, default=0)
    cases = [(n, setup.search.width) for n in counts if n <= len(problems)] + [(few, w) for w in widths if few]
    table = Table(
        "problems", "w", "seconds", "CPU seconds", "per problem", "requests", "per request, ms", title="growth"
    )
    rows = []
    for count, width in cases:
        one = searched(setup.of_width(width), problems[:count], "ours")
        requests = one.usage.requests
        rows.append({"problems": count, "width": width, "seconds": one.seconds, "cpu": one.cpu, "requests": requests})
        cells = (f"{one.seconds:.2f}", f"{one.cpu:.2f}", f"{one.cpu / count:.4f}", str(requests))
        table.add_row(str(count), str(width), *cells, f"{1000 * one.cpu / requests:.3f}")
    Console().print(table)
    return {"rows": rows, "over_linear": over_linear(rows[: len(rows) - len(widths)])}


def over_linear(rows: list[dict[str, Any]]) -> float | None:
    """By how much more than in proportion the seconds grew, at most, over those of the fewest problems."""
    rates = [row["seconds"] / row["problems"] for row in sorted(rows, key=lambda row: row["problems"])]
    return max(rates) / rates[0] - 1 if rates else None


if __name__ == "__main__":
    main()
