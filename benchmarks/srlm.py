"""PSRLM against the baseline SRLM, and the 2 x 2 between them: steps or responses, compared or scored; several seeds.

    python benchmarks/srlm.py --runs runs/srlm --json benchmarks/results/srlm.json

All four of a seed start from the same M1, which learned to judge in all four ways, search the same problems and spend
about as many tokens on each. The exact verifier counts how many pairs are the right way round; no loop ever sees that.
Started again, it does only what is missing in `--runs`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from peers import machine
from psr.curation.arithmetic_responses import right_steps
from psr.engines.usage import usage_from_json
from psr.evaluation.statistics import paired_bootstrap, wilson_interval
from psr.files.jsonl import read_json, read_jsonl
from psr.run.folder import USAGE, RunFolder
from psr.run.results import read_results
from quickstart import share_first_model, trained_pairs

RECIPE = Path("configs/srlm")
STAGES = ("data", "model", "ift", "eft", "responses", "eft_heldout", "responses_heldout", "sft")
FOLDERS = ("data", "models/M0", "models/M0-ift", "models/M1")


@dataclass(frozen=True)
class Way:
    """One of the four: what a candidate is, how it is judged, and the search that makes the cost the same."""

    name: str
    granularity: str
    form: str
    width: int

    @property
    def settings(self) -> list[str]:
        search = f"{{granularity: {self.granularity}, width: {self.width}}}"
        return [f"--set.search={search}", f"--set.form={self.form}"]


SRLM = Way("SRLM", "response", "score", 4)
PSRLM = Way("PSRLM", "step", "pairwise", 6)
WAYS = (PSRLM, Way("steps, scored", "step", "score", 6), Way("responses, compared", "response", "pairwise", 4), SRLM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/srlm"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        for way in sorted(WAYS, key=lambda way: way != SRLM):  # SRLM's run makes the M1 of the seed
            folder = run(options.runs, way, seed)
            results.append({"way": way.name, "seed": seed, "models": measured(folder), "tokens": tokens(folder)})
    later = [model["name"] for model in results[0]["models"][1:]]  # M1 is the same for all
    gaps = [gap(options.runs, way, name, options.seeds) for way in WAYS if way != SRLM for name in later]
    for shown in (accuracy_table(results), pairs_table(results), gaps_table(gaps)):
        Console().print(shown)
    if options.json:
        content = {"machine": machine(), "runs": results, "against_srlm": gaps}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def run(runs: Path, way: Way, seed: int) -> Path:
    """The finished run of one way and seed, with the outcome of every test problem beside it."""
    folder, first = run_folder(runs, way, seed), run_folder(runs, SRLM, seed)
    if way != SRLM:
        share_first_model(first, folder, STAGES, FOLDERS)
    psr = [sys.executable, "-m", "psr.cli.main"]
    command = [*psr, "run", str(RECIPE), "--run-dir", str(folder), "--seed", str(seed), *way.settings]
    subprocess.run(command, check=True)
    names = [model["name"] for model in read_results(folder / "results.json")["models"]]
    models = ", ".join(str(folder / "models" / name) for name in names)
    places = ["--benchmarks", f"[{folder / 'data' / 'test.jsonl'}]", "--out", str(folder / "analysis")]
    prompts = ["--prompts", str(RECIPE / "prompts.yaml")]
    subprocess.run([*psr, "evaluate", "--models", f"[{models}]", *places, *prompts], check=True)
    return folder


def run_folder(runs: Path, way: Way, seed: int) -> Path:
    return runs / f"{way.granularity}-{way.form}-{seed}"


def measured(folder: Path) -> list[dict[str, Any]]:
    """Accuracy of every model, with its 95% interval, and the pairs that it was trained on, by correctness."""
    found = []
    problems = len(outcomes(folder, "M1"))
    for model in read_results(folder / "results.json")["models"]:
        number, low_high = int(model["name"][1:]), wilson_interval(model["accuracy"], problems)
        row = {"name": model["name"], "accuracy": model["accuracy"], "interval": low_high}
        row["search_accuracy"] = model["search_accuracy"]
        found.append(row | ({"pairs": pairs_by_right_steps(folder, number)} if number > 1 else {}))
    return found


def tokens(folder: Path) -> float:
    """Tokens generated for each searched problem, candidates and judgements together."""
    generated = problems = 0
    for model in read_results(folder / "results.json")["models"][1:]:
        number = int(model["name"][1:])
        usage = usage_from_json(read_json(RunFolder(folder).iteration(number) / USAGE))
        generated += usage["candidates"].generated_tokens + usage["verdicts"].generated_tokens
        problems += model["search"]["problems"]
    return generated / problems


def pairs_by_right_steps(folder: Path, number: int) -> dict[str, int]:
    """How many pairs that trained M(number) have more right steps on the chosen side, on the rejected, or as many."""
    counts = {"chosen": 0, "rejected": 0, "even": 0}
    for problem, before, *sides in trained_pairs(folder, number):
        chosen, rejected = (sum(right_steps(problem, before, side)) for side in sides)
        counts["even" if chosen == rejected else "chosen" if chosen > rejected else "rejected"] += 1
    return counts


def outcomes(folder: Path, model: str) -> dict[str, bool]:
    """Whether the model's greedy solution of each test problem is right."""
    path = folder / "analysis" / "solutions" / model / "test" / "greedy-1.graded.jsonl"
    return {row["id"]: row["correct"] for row in read_jsonl(path, ["id", "correct"])}


def gap(runs: Path, way: Way, name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """How much more accurate than SRLM's a model is, over all seeds: a paired bootstrap over their test problems."""
    ours, theirs = [], []
    for seed in seeds:
        one, other = (outcomes(run_folder(runs, of, seed), name) for of in (way, SRLM))
        ours += [one[problem] for problem in other]
        theirs += other.values()
    difference, low, high = paired_bootstrap(ours, theirs)
    found = {"way": way.name, "model": name, "problems": len(ours)}
    return {**found, "difference": difference, "low": low, "high": high}


def accuracy_table(results: list[dict[str, Any]]) -> Table:
    names = [model["name"] for model in results[0]["models"]]
    table = Table("", "seed", *names, "rise", "tokens a problem", title="greedy accuracy, % (95% interval)")
    for way in WAYS:
        own = [result for result in results if result["way"] == way.name]
        for result in own:
            cells = [
                f"{100 * model['accuracy']:.1f} ({100 * model['interval'][0]:.0f}-{100 * model['interval'][1]:.0f})"
                for model in result["models"]
            ]
            table.add_row(way.name, str(result["seed"]), *cells, f"{rise(result):+.1f}", f"{result['tokens']:.0f}")
        means = [mean([100 * result["models"][i]["accuracy"] for result in own]) for i in range(len(names))]
        spent = mean([result["tokens"] for result in own])
        cells = [f"{value:.1f}" for value in means]
        table.add_row(way.name, "mean", *cells, f"{means[-1] - means[0]:+.1f}", f"{spent:.0f}", end_section=True)
    return table


def pairs_table(results: list[dict[str, Any]]) -> Table:
    names = [model["name"] for model in results[0]["models"][1:]]
    table = Table("", "seed", *names, title="pairs, and % with more right steps chosen, of those that differ in that")
    for way in WAYS:
        for result in (result for result in results if result["way"] == way.name):
            cells = []
            for model in result["models"][1:]:
                counts = model["pairs"]
                differ = counts["chosen"] + counts["rejected"]
                share = f"{100 * counts['chosen'] / differ:.1f}" if differ else "-"
                cells.append(f"{differ + counts['even']}, {share}")
            table.add_row(way.name, str(result["seed"]), *cells)
    return table


def gaps_table(gaps: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(one["model"] for one in gaps))
    table = Table("", *names, title=f"more accurate than SRLM by, points (95%, {gaps[0]['problems']} problems)")
    for way in dict.fromkeys(one["way"] for one in gaps):
        points = [[100 * one[name] for name in ("difference", "low", "high")] for one in gaps if one["way"] == way]
        table.add_row(way, *("{:+.1f} ({:+.1f} to {:+.1f})".format(*one) for one in points))
    return table


def rise(result: dict[str, Any]) -> float:
    return 100 * (result["models"][-1]["accuracy"] - result["models"][0]["accuracy"])


if __name__ == "__main__":
    main()
