"""What the loop's guards change: who judges, how pairs count, what is rejected, and the gate; several seeds.

    python benchmarks/guards.py --base runs/benchmark --runs runs/guards --json benchmarks/results/guards.json

Every run starts from the M1 of the quickstart's run `self-<seed>` in `--base`, and differs from the quickstart in one
setting, with its own beta and with the paper's (0.1), under which the loop collapses. Judges and verdicts are measured
on held-out pairs, pairs by the exact verifier; no loop sees either. Started again, it does only what is missing.
`--read` only shows what there is.
"""

import argparse
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from peers import machine
from psr.commands.data import arithmetic
from psr.evaluation.statistics import wilson_interval
from psr.files.jsonl import read_json
from psr.run.results import read_results
from quickstart import share_first_model

RECIPE = Path("configs/quickstart")
PROBLEMS = 500
"""Held-out problems of the quickstart."""
OWN = {"class_path": "LocalEngine"}
DATA: dict[str, dict[str, Any]] = {
    "default": {},
    "judge-initial": {"judge": {"model": "initial", "engine": OWN}},
    "judge-previous": {"judge": {"model": "previous", "engine": OWN}},
    "weight-margin": {"pairs": {"weight": "margin"}},
    "weight-agreement": {"pairs": {"weight": "agreement"}},
    "soft-labels": {"pairs": {"soft_labels": "consistency"}},
    "rejected-initial": {"pairs": {"rejected": "initial"}},
}
"""What each changes of the DataModule's settings."""
GATE: dict[str, dict[str, Any]] = {
    "gate-keep": {"action": "keep"},
    "gate-keep-lr": {"action": "keep", "lr_factor": 0.3},
}
PAPER = {"init_args": {"loss": {"class_path": "StepDPOLoss", "init_args": {"beta": 0.1}}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("runs/benchmark"), help="folder of the quickstart's runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/guards"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=[*DATA, *GATE], choices=[*DATA, *GATE])
    parser.add_argument("--betas", nargs="+", default=["own", "paper"], choices=["own", "paper"])
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    asked = [(way, beta, seed) for beta in options.betas for way in options.ways for seed in options.seeds]
    if not options.read:
        recipe = write_recipe(options.runs / "recipe")
        for way, beta, seed in asked:
            run(recipe, options.base / f"self-{seed}", options.runs / name_of(way, beta, seed), way, beta, seed)
    done = [(way, beta, seed, options.runs / name_of(way, beta, seed)) for way, beta, seed in asked]
    found = [measured(*one) for one in done if complete(one[-1])]
    Console().print(table(found))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "runs": found}, indent=2) + "\n")


def name_of(way: str, beta: str, seed: int) -> str:
    return f"{way}-{beta}-{seed}"


def write_recipe(folder: Path) -> Path:
    """The quickstart's recipe with an overlay for every way and beta."""
    shutil.copytree(RECIPE, folder, dirs_exist_ok=True)
    callbacks = yaml.safe_load((RECIPE / "self_rewarding.yaml").read_text())["trainer"]["callbacks"]
    for beta in ("own", "paper"):
        model = {"model": PAPER} if beta == "paper" else {}
        for way, settings in DATA.items():
            data = {"data": {"init_args": settings}} if settings else {}
            write_overlay(folder / f"{way}-{beta}.yaml", {**model, **data})
        for way, settings in GATE.items():
            gated = copy.deepcopy(callbacks)
            [gate] = [one for one in gated if one["class_path"].endswith("Gate")]
            gate["init_args"] |= settings
            write_overlay(folder / f"{way}-{beta}.yaml", {**model, "trainer": {"callbacks": gated}})
    return folder


def write_overlay(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump({"self_rewarding": settings}))


def run(recipe: Path, base: Path, folder: Path, way: str, beta: str, seed: int) -> None:
    share_first_model(base, folder)
    if not (folder / "data" / "probes.jsonl").is_file():  # a base from before there was a gate
        settings = yaml.safe_load((RECIPE / "data.yaml").read_text())
        arithmetic(**{**settings, "out": folder / "data", "seed": seed})
    command = [sys.executable, "-m", "psr.cli.main", "run", str(recipe), "--run-dir", str(folder), "--seed", str(seed)]
    subprocess.run([*command, "--judge", "self", "--overlay", f"{way}-{beta}"], check=True)


def complete(folder: Path) -> bool:
    return "test" in read_json(folder / "stages.json")


def measured(way: str, beta: str, seed: int, folder: Path) -> dict[str, Any]:
    keys = ("name", "accuracy", "judge_accuracy", "judge_consistency", "pairs")
    told = ("decision", "wins", "losses", "worse", "seconds", "generated_tokens")
    models = []
    for model in read_results(folder / "results.json")["models"]:
        gate = {key: model["gate"][key] for key in told} if "gate" in model else None
        models.append({**{key: model.get(key) for key in keys}, "label": model["search"].get("label"), "gate": gate})
    return {"way": way, "beta": beta, "seed": seed, "models": models}


def table(found: Sequence[dict[str, Any]]) -> Table:
    """A row per run and, of several seeds, their mean; accuracy in percent with its 95% interval, judge accuracy."""
    out = Table("setting", "beta", "seed", "M1", "M2", "M3", "M4", "judge", "gate", title="guards")
    for way, beta in dict.fromkeys((one["way"], one["beta"]) for one in found):
        runs = [one for one in found if (one["way"], one["beta"]) == (way, beta)]
        for one in runs:
            cells = [with_interval(model["accuracy"]) for model in one["models"]]
            cells += ["-"] * (4 - len(cells))
            judge = " ".join(f"{100 * model['judge_accuracy']:.0f}" for model in one["models"])
            gates = [model["gate"] for model in one["models"] if model["gate"]]
            told = " ".join(f"{gate['wins']}:{gate['losses']}{'!' if gate['worse'] else ''}" for gate in gates)
            out.add_row(way, beta, str(one["seed"]), *cells, judge, told)
        if len(runs) > 1:
            columns = zip(*([100 * model["accuracy"] for model in one["models"]] for one in runs), strict=True)
            out.add_row(way, beta, "mean", *(f"{mean(column):.1f}" for column in columns), "", "", end_section=True)
    return out


def with_interval(accuracy: float) -> str:
    low, high = wilson_interval(accuracy, PROBLEMS)
    return f"{100 * accuracy:.1f} ({100 * low:.0f}-{100 * high:.0f})"


if __name__ == "__main__":
    main()
