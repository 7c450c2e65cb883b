"""Measures judge data of the paper's kind: what passes each filter, and how well a model judges that is trained on it.

    psr run configs/quickstart --run-dir runs/quickstart
    python benchmarks/eft.py --run runs/quickstart --out runs/eft --json runs/eft.json

A process reward model is trained on exact ratings of the run's worked solutions. The run's M0 (which reasons, and has
judged nothing) searches trees that the PRM values, and a server around the run's M1 is the annotator. M0 is then
trained on those pairs, and on as many of the run's verifier pairs by the same settings; held-out pairs decide. Started
again, it does only what is missing in `--out`.
"""

import argparse
import asyncio
import csv
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from eft_kinds import by_kind, shares
from peers import machine
from psr.cli.main import main as psr
from psr.curation import arithmetic
from psr.engines.local import LocalEngine
from psr.evaluation.judging import evaluate_judge
from psr.files.jsonl import read_jsonl, write_jsonl
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.search.judges import JudgeSettings
from psr.search.tree_search import layer_pairs, tree_from_json

PAIR = ["problem", "previous_steps", "chosen", "rejected"]
TREE = ["problem", "layers", "weights_version"]
TEMPLATE = "{problem}\n"
EXPLANATION_TOKENS = 64


def main() -> None:
    options = arguments()
    out, run, recipe = (path.resolve() for path in (options.out, options.run, options.recipe))
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"machine": machine(), "prm": trained_prm(run, out, options.prm_epochs)}
    search_pairs(run, out, recipe / "prompts.yaml", options)
    figures["filters"] = filters(out, options.margin)
    kept = read_jsonl(out / "search.jsonl", PAIR, ["explanations"])
    same = read_jsonl(run / "data/eft.jsonl", PAIR, ["explanations"])[: len(kept)]
    write_jsonl(out / "verifier.jsonl", same)
    judges = {"M0": run / "models/M0-ift"}
    for name in ("search", "verifier"):
        judges[name] = trained_judge(name, run, out, recipe, options.steps)
    rows = read_jsonl(run / "data/eft_heldout.jsonl", PAIR)
    figures["pairs"] = {"search": len(kept), "verifier": len(same), "heldout": len(rows)}
    figures["judges"] = {name: judged(folder, rows, recipe) for name, folder in judges.items()}
    figures["kinds"] = {name: shares(part) for name, part in (("search", kept), ("verifier", same), ("heldout", rows))}
    figures["accuracy_by_kind"] = {
        name: {one: judged(folder, part, recipe)["judge_accuracy"] for one, part in by_kind(rows).items()}
        for name, folder in judges.items()
    }
    Console().print(figures["prm"], figures["filters"], figures["pairs"], table(figures["judges"]))
    Console().print(kinds_table(figures["kinds"], figures["accuracy_by_kind"]))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory of the recipe, up to its M1")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is made here")
    parser.add_argument("--recipe", type=Path, default=Path("configs/quickstart"), help="the run's recipe")
    parser.add_argument("--problems", type=int, default=1500, help="problems to search trees for")
    parser.add_argument("--iterations", type=int, default=48, help="walks per tree")
    parser.add_argument("--margin", type=float, default=0.1, help="least difference of P(+) in a pair")
    parser.add_argument("--prm-epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps of the two judges")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def trained_prm(run: Path, out: Path, epochs: int) -> dict[str, float]:
    """Train the PRM on the run's worked solutions; its figures on held-out problems, beside the baselines."""
    if not (out / "PRM").exists():
        psr(["data", "rate", str(run / "data/ift.jsonl"), str(out / "rated.jsonl")])
        model = {"model": str(run / "models/M0-ift"), "export_to": str(out / "PRM"), "lr": 2e-3, "warmup_share": 0.05}
        data = {"trajectories": str(out / "rated.jsonl"), "batch_size": 64, "template": TEMPLATE}
        logger = {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": str(out), "name": "prm", "version": 0},
        }
        fit(
            out / "prm.yaml",
            "psr.modules.prm.PRMModule",
            model,
            "psr.data.prm.PRMDataModule",
            data,
            max_epochs=epochs,
            logger=logger,
        )
    with (out / "prm/version_0/metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["val/accuracy"]][-1]
    return {name.removeprefix("val/"): float(value) for name, value in last.items() if name.startswith("val/")}


def fit(
    config: Path, module: str, model: dict[str, Any], datamodule: str, data: dict[str, Any], **trainer: Any
) -> None:
    """One `psr fit`; its config file is kept."""
    parts = {"model": {"class_path": module, "init_args": model}, "data": {"class_path": datamodule, "init_args": data}}
    fixed = {
        "default_root_dir": str(config.with_suffix("")),
        "accelerator": "cpu",
        "devices": 1,
        "gradient_clip_val": 1.0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "reload_dataloaders_every_n_epochs": 1,
    }
    config.write_text(yaml.safe_dump({**parts, "trainer": {**fixed, **trainer}}))
    psr(["fit", "--config", str(config), "--seed_everything", "0"])


def search_pairs(run: Path, out: Path, prompts: Path, options: argparse.Namespace) -> None:
    """`psr data eft --from search` with a server around M1 as the annotator."""
    if (out / "search.jsonl").exists():
        return
    write_jsonl(
        out / "problems.jsonl", read_jsonl(run / "data/eft_problems.jsonl", ["id", "problem"])[: options.problems]
    )
    engine = {"class_path": "LocalEngine"}
    settings = {
        "model": str(run / "models/M0-ift"),
        "problems": str(out / "problems.jsonl"),
        "out": str(out / "search.jsonl"),
        "engine": engine,
        "prm": {"model": str(out / "PRM"), "engine": engine, "template": TEMPLATE},
        "search": {"iterations": options.iterations, "depth": 2, "max_step_tokens": 48, "max_steps": 6},
        "margin": options.margin,
    }
    (out / "search.yaml").write_text(yaml.safe_dump(settings))
    with annotator(run / "models/M1") as url:
        psr(
            [
                *("data", "eft", "--from", "search", "--config", str(out / "search.yaml"), "--prompts", str(prompts)),
                *("--annotator.url", url, "--annotator.model", "M1", "--annotator.concurrency", "256"),
                *("--annotator.max_tokens", str(EXPLANATION_TOKENS)),
            ]
        )


@contextmanager
def annotator(model: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "psr.cli.main", "serve", str(model), "--engine", "local", "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            with socket.socket() as server:
                if server.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        else:
            raise SystemExit(f"the annotator ended with {process.returncode}: {' '.join(command)}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def filters(out: Path, margin: float) -> dict[str, Any]:
    """How many pairs the PRM proposed, and what became of them, each with what the exact verifier says of them."""
    asked = {row["id"] for row in read_jsonl(out / "problems.jsonl", ["id"])}
    trees = [tree_from_json(row) for row in read_jsonl(out / "search.trees.jsonl", TREE)]
    trees = [tree for tree in trees if tree.problem.id in asked]
    pairs = [pair for tree in trees for pair in layer_pairs(tree, margin)]
    rejects = [json.loads(line) for line in (out / "search.rejects.jsonl").read_text().splitlines()]
    reasons = sorted({row["reason"] for row in rejects})
    return {
        "problems": len(trees),
        "layers": sum(len(tree.layers) for tree in trees),
        "layers_of_several": sum(len(layer.candidates) > 1 for tree in trees for layer in tree.layers),
        "proposed": verified(pairs),
        **{reason: verified([row for row in rejects if row["reason"] == reason]) for reason in reasons},
        "kept": verified(read_jsonl(out / "search.jsonl", PAIR)),
    }


def verified(pairs: list[dict[str, Any]]) -> dict[str, int]:
    """How many pairs there are, and in how many the exact verifier finds which step right."""

    def right(row: dict[str, Any], side: str) -> bool:
        return arithmetic.is_right(row["problem"], row["previous_steps"], row[side])

    sides = Counter((right(row, "chosen"), right(row, "rejected")) for row in pairs)
    return {
        "pairs": len(pairs),
        "right_over_wrong": sides[True, False],
        "wrong_over_right": sides[False, True],
        "both_alike": sides[True, True] + sides[False, False],
    }


def trained_judge(name: str, run: Path, out: Path, recipe: Path, steps: int) -> Path:
    """M0 trained on worked solutions and the pairs of `<out>/<name>.jsonl`."""
    folder = out / f"judge-{name}"
    if not folder.exists():
        model = {"model": str(run / "models/M0-ift"), "export_to": str(folder), "lr": 2e-3, "warmup_share": 0.05}
        data = {
            "ift": str(run / "data/ift.jsonl"),
            "eft": str(out / f"{name}.jsonl"),
            "batch_size": 16,
            "ift_limit": 300,
            "prompts": yaml.safe_load((recipe / "prompts.yaml").read_text()),
        }
        fit(
            out / f"{name}.yaml",
            "psr.modules.sft.SFTModule",
            model,
            "psr.data.sft.SFTDataModule",
            data,
            max_steps=steps,
            logger=False,
        )
    return folder


def judged(folder: Path, rows: list[dict[str, Any]], recipe: Path) -> dict[str, float]:
    """The judge's figures on held-out pairs, each in both orders."""
    prompts = Prompts(**yaml.safe_load((recipe / "prompts.yaml").read_text()))

    async def ask() -> dict[str, float]:
        engine = LocalEngine()
        try:
            await engine.load_weights(folder, folder.name)
            encoder = Encoder(load_tokenizer(folder), prompts)
            return await evaluate_judge(engine, encoder, rows, JudgeSettings(max_tokens=EXPLANATION_TOKENS))
        finally:
            await engine.close()

    return asyncio.run(ask())


def table(judges: dict[str, dict[str, float]]) -> Table:
    out = Table("trained on", "judge accuracy %", "consistent %", "unparsable %", title="held-out pairs, both orders")
    for name, row in judges.items():
        values = (row[f"judge_{key}"] for key in ("accuracy", "consistency", "unparsable"))
        out.add_row(name, *(f"{100 * value:.1f}" for value in values))
    return out


def kinds_table(shares: dict[str, dict[str, float]], accuracy: dict[str, dict[str, float]]) -> Table:
    """How often every kind of pair is in the data, and how well the judges do on the held-out ones of it."""
    out = Table("kind of pair", *(f"{name} %" for name in shares), *(f"judge of {name} %" for name in accuracy))
    for one in shares["heldout"]:
        values = [*(part.get(one, 0.0) for part in shares.values()), *(part[one] for part in accuracy.values())]
        out.add_row(one, *(f"{100 * value:.1f}" for value in values))
    return out


if __name__ == "__main__":
    main()
