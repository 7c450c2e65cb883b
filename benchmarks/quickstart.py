"""Runs the quickstart with every judge and several seeds, and prints the tables of the README.

Resumable: runs that are complete are only read. Judges of the same seed share data and M1, which no judge touches, so
those stages are copied from the seed's first run. The exact verifier counts how many of the pairs that a model was
trained on are the right way round; the loop never sees that. `--json OUT` writes the figures, `--plot OUT.svg` draws
them (needs matplotlib: `pip install psr[report]`).
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from psr.curation.arithmetic import is_right
from psr.data.traces import TraceJournal
from psr.files.jsonl import read_json
from psr.run.folder import RunFolder
from psr.run.results import read_results
from psr.search.sharing import prefixes

SHARED_STAGES = ("data", "model", "ift", "eft", "eft_heldout", "sft")
SHARED_FOLDERS = ("data", "models/M0", "models/M0-ift", "models/M1", "iterations/01")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("configs/quickstart"))
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds of the judge `self`")
    parser.add_argument("--judges", nargs="*", default=["verifier", "random"], help="other judges, on the first seed")
    parser.add_argument("--overlays", nargs="*", default=["paper-beta"], help="other settings, on the first seed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    first = options.seeds[0]
    runs = [("self", seed, None) for seed in options.seeds]
    runs += [(judge, first, None) for judge in options.judges]
    runs += [("self", first, overlay) for overlay in options.overlays]
    results = []
    for judge, seed, overlay in runs:
        name = "-".join([judge, str(seed), *([overlay] if overlay else [])])
        folder = options.runs / name
        if folder != options.runs / f"self-{first}" and seed == first:
            share_first_model(options.runs / f"self-{first}", folder)
        command = [sys.executable, "-m", "psr.cli.main", "run", str(options.recipe), "--run-dir", str(folder)]
        command += ["--seed", str(seed), "--judge", judge, *(["--overlay", overlay] if overlay else [])]
        subprocess.run(command, check=True)
        result = read_results(RunFolder(folder).results)
        for model in result["models"][1:]:
            model["pairs_by_correctness"] = pairs_by_correctness(folder, int(model["name"][1:]))
        results.append({"run": name, "overlay": overlay, **result})
    Console().print(table(results))
    Console().print(pairs_table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.plot:
        plot(results, options.plot)


def share_first_model(
    source: Path, target: Path, stages: Sequence[str] = SHARED_STAGES, folders: Sequence[str] = SHARED_FOLDERS
) -> None:
    """Copy what comes before the judge matters; nothing where the target exists."""
    if target.exists():
        return
    for folder in folders:
        shutil.copytree(source / folder, target / folder)
    done = read_json(source / "stages.json")
    (target / "stages.json").write_text(json.dumps({name: done[name] for name in stages}))


def trained_pairs(folder: Path, number: int) -> Iterator[tuple[str, list[str], str, str]]:
    """(problem, the steps before, chosen, rejected) of every pair that trained M(number), as texts."""
    journal = TraceJournal(RunFolder(folder).traces(number), f"M{number - 1}")
    for trajectory in journal.trajectories.values():
        for steps, node in prefixes(trajectory):
            if node.event == "kept" and node.margin:
                chosen, rejected = (node.candidates[i].text.strip() for i in (node.chosen, node.rejected))
                yield trajectory.problem.problem, [step.text.strip() for step in steps], chosen, rejected


def pairs_by_correctness(folder: Path, number: int) -> dict[str, int]:
    """How many pairs that trained M(number) have a right chosen and a wrong rejected step, and so on."""
    counts = {"right > wrong": 0, "wrong > right": 0, "both wrong": 0, "both right": 0}
    for problem, before, *sides in trained_pairs(folder, number):
        chosen, rejected = (is_right(problem, before, side) for side in sides)
        same = "both right" if chosen else "both wrong"
        counts[same if chosen == rejected else "right > wrong" if chosen else "wrong > right"] += 1
    return counts


def accuracies(result: dict[str, Any]) -> list[float]:
    return [100 * model["accuracy"] for model in result["models"]]


def label(result: dict[str, Any]) -> str:
    return result["judge"] + (f" ({result['overlay']})" if result["overlay"] else "")


def table(results: list[dict[str, Any]]) -> Table:
    """Greedy accuracy of every run, and the mean of the seeds after the first."""
    names = [model["name"] for model in results[0]["models"]]
    out = Table("judge", "seed", *names, "rise", title="greedy accuracy, %")
    for result in results:
        values = accuracies(result)
        out.add_row(label(result), str(result["seed"]), *(f"{v:.1f}" for v in values), f"{values[-1] - values[0]:+.1f}")
    others = [accuracies(r) for r in results if r["judge"] == "self" and not r["overlay"]][1:]
    if others:
        means = [statistics.mean(column) for column in zip(*others, strict=True)]
        out.add_row("self", f"mean of {len(others)}", *(f"{v:.1f}" for v in means), f"{means[-1] - means[0]:+.1f}")
    return out


def pairs_table(results: list[dict[str, Any]]) -> Table:
    """Of the pairs that differ in correctness, the share that is the right way round; by the model they trained."""
    names = [model["name"] for model in results[0]["models"][1:]]
    out = Table("judge", "seed", *names, title="pairs with the right step chosen, of those that differ, %")
    for result in results:
        counts = [model["pairs_by_correctness"] for model in result["models"][1:]]
        differ = [(c["right > wrong"], c["right > wrong"] + c["wrong > right"]) for c in counts]
        cells = [f"{100 * right / both:.1f} of {both}" if both else "-" for right, both in differ]
        out.add_row(label(result), str(result["seed"]), *cells)
    return out


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Greedy accuracy of M1, M2, ... with standard errors; a line per run, seeds of the same judge in one colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(label(result) for result in results))
    for kind in kinds:
        for nth, result in enumerate([r for r in results if label(r) == kind]):
            models = result["models"]
            axes.errorbar(
                [model["name"] for model in models],
                accuracies(result),
                [100 * model["accuracy_stderr"] for model in models],
                color=f"C{kinds.index(kind)}",
                alpha=1.0 if nth == 0 else 0.4,
                label=f"judge {kind}" if nth == 0 else None,
                capsize=2,
            )
    axes.set(ylabel="greedy accuracy, %", ylim=(0, 100))
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
