"""What one GPU shows: tests, the quickstart's loop, and the speed of training and search. Without a GPU it says so.

    python benchmarks/gpu.py --json gpu.json

(a) the tests marked `gpu`; (b) `psr run configs/quickstart --overlay gpu`, M4 against M1; (c) on Qwen2's shapes with
random weights: an epoch of step-wise DPO as step trees, pair by pair and by TRL's DPOTrainer, supervised training with
its MFU, and the in-process engine's tokens a second. A part whose peer is not installed, or that fails, is a line of
the table, and the rest goes on. `--parts speed --shapes tiny` goes through (c) without a GPU, to see that it works.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from peers import FIRST_TOKEN, SHAPES, VOCABULARY, PeakMemory, in_own_process, make_model, train_with_psr
from psr.engines.base import Sampling
from psr.engines.local import LocalEngine
from psr.files.jsonl import read_json
from psr.modules.sft import SFTModule
from psr.modules.speed import Cost, peak_flops
from psr.planning import Architecture, Layout, memory
from psr.policy.folder import load_policy
from psr.trees.flex import GRAPHS, compilations, padded_length
from psr.trees.packing import Group, Unit, build_row, plan_rows
from psr.trees.step_tree import Sample
from step_dpo_ways import Job, as_step_trees, by_trl, pair_by_pair

ROOT = Path(__file__).parents[1]
STEPS = 8
"""Steps of a trajectory."""
PAIRS = 32
"""Step pairs of an optimizer step."""
Row = tuple[str, str, str]
"""What was measured, the figure, and what it is compared with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=("tests", "loop", "speed"), default=["tests", "loop", "speed"])
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["qwen2-0.5b", "qwen2-1.5b"])
    parser.add_argument("--trajectories", type=int, default=32)
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available() and (options.parts != ["speed"] or options.shapes != ["tiny"]):
        raise SystemExit("no GPU was found: not run")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    figures: dict[str, Any] = {"device": device, "torch": torch.__version__}
    if "tests" in options.parts:
        figures["tests"] = attempt(run_tests)
    if "loop" in options.parts:
        figures["loop"] = attempt(run_loop)
    for shape in options.shapes if "speed" in options.parts else []:
        figures[shape] = speed(shape, options.trajectories, options.row_tokens)
    out = Table("", "", "", title=device)
    for name, part in figures.items():
        for key, value in part.items() if isinstance(part, dict) else []:
            out.add_row(name, key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(out)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def attempt(measure: Callable[..., dict[str, Any] | None], *arguments: Any) -> dict[str, Any]:
    """What it measures, or in a line why it does not."""
    try:
        return measure(*arguments) or {"not run": "its process was killed"}
    except (Exception, SystemExit) as error:
        return {"not run": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def run_tests() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"], cwd=ROOT, text=True,
                          capture_output=True)  # fmt: skip
    Console().print(done.stdout[-3000:])
    return {"exit code": done.returncode, "said": done.stdout.strip().splitlines()[-1]}


def run_loop() -> dict[str, Any]:
    """The quickstart's accuracies on the GPU; M4 should be 20 points above M1."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        words = ["run", "configs/quickstart", "--run-dir", f"{folder}/run", "--overlay", "gpu"]
        subprocess.run([sys.executable, "-m", "psr.cli.main", *words], cwd=ROOT, check=True)
        models = read_json(Path(folder) / "run" / "results.json")["models"]
        accuracies = {model["name"]: 100 * model["accuracy"] for model in models}
        return {**accuracies, "gain": accuracies["M4"] - accuracies["M1"], "seconds": time.monotonic() - started}


def speed(shape: str, trajectories: int, row_tokens: int) -> dict[str, Any]:
    """Figures of a shape; a way that is not installed or fails is named."""
    groups = random_trajectories(shape, trajectories)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = str(make_model(shape, Path(folder) / "model"))
        job = Job(model, tuple(groups), PAIRS, row_tokens)
        trees = attempt(in_own_process, trees_with_compilations, job)
        others = {"pair by pair": attempt(in_own_process, pair_by_pair, job)}
        for size in (8, 4, 2):
            name = f"TRL, {size} at a time"
            missing = {"not run": "trl is not installed"}
            others[name] = attempt(in_own_process, by_trl, job, size) if find_spec("trl") else missing
        figures |= {f"step trees: {key}": value for key, value in trees.items() if key != "losses"}
        for name, way in others.items():
            if "seconds" not in way or "seconds" not in trees:
                figures[name] = way.get("not run", "no step trees to compare with")
                continue
            figures[f"{name}: times as long"] = way["seconds"] / trees["seconds"]
            figures[f"{name}: times as many tokens"] = way["tokens"] / trees["tokens"]
            figures[f"{name}: times the memory"] = way["peak_memory"] / trees["peak_memory"]
        for name, measure in {"SFT": sft, "search": search}.items():
            found = attempt(in_own_process, measure, model, shape, row_tokens)
            figures |= {f"{name}: {key}": value for key, value in found.items()}
    return figures


def random_trajectories(shape: str, count: int) -> list[Group]:
    """Trajectories of 512 to 2,048 tokens in STEPS steps; every step has a rejected one of its length."""
    rng = random.Random(0)
    longest = SHAPES[shape]["max_position_embeddings"]

    def words(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(FIRST_TOKEN, VOCABULARY[shape]) for _ in range(length))

    groups = []
    for number in range(count):
        total = min(rng.randint(512, 2048), longest)
        step = total // (STEPS + 2)
        prompt, units = words(2 * step), []
        for i in range(STEPS):
            chosen = words(step)
            units.append(Unit(number * STEPS + i, (Sample(prompt, chosen), Sample(prompt, words(step)))))
            prompt += chosen
        groups.append(tuple(units))
    return groups


def trees_with_compilations(job: Job) -> dict[str, Any]:
    """An epoch to compile, and one to measure."""
    as_step_trees(job)
    rows = job.plan.rows
    lengths = {padded_length(sum(tree.tokens for tree in row.trees)) for row in rows}
    found = as_step_trees(job)
    return {**found, "compilations": compilations(), "compilations, at most": GRAPHS * len(lengths)}


def sft(model: str, shape: str, row_tokens: int) -> dict[str, float]:
    """Tokens a second and MFU of supervised training on full rows; the first epoch compiles."""
    rng = random.Random(0)
    count = 1024 if torch.cuda.is_available() else 16
    lengths = [(rng.randint(60, 180), rng.randint(120, 360)) for _ in range(count)]
    samples = [Sample((FIRST_TOKEN,) * prompt, (FIRST_TOKEN + 1,) * completion) for prompt, completion in lengths]
    groups = [(Unit(i, (sample,)),) for i, sample in enumerate(samples)]
    plan = plan_rows(groups, 64, row_tokens, mean_over="tokens")
    train_with_psr(SFTModule(model, lr=1e-5), plan_rows(groups[:64], 64, row_tokens, mean_over="tokens"))
    peak_memory = PeakMemory()
    seconds = train_with_psr(SFTModule(model, lr=1e-5), plan, [peak_memory])
    cost = Cost.of(load_policy(model))
    assert cost is not None
    flops = sum(cost.row(build_row(row)) for row in plan.rows)
    tokens = sum(map(len, samples))
    peak = peak_flops(torch.device("cuda"), None) if torch.cuda.is_available() else None
    figures = {"tokens/s": tokens / seconds, "TFLOP/s": flops / seconds / 1e12}
    if peak is None:
        return figures
    arch = Architecture.of(Path(model) / "config.json")
    planned = memory(arch, Layout(1, 1, False, 2, row_tokens, False, False, autocast=True)).total
    return {**figures, "MFU": flops / seconds / peak, "peak_memory": peak_memory.bytes, "planned memory": planned}


def search(model: str, shape: str, row_tokens: int) -> dict[str, float]:
    """Tokens a second of the in-process engine: six candidate steps for each of many prompts."""
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(FIRST_TOKEN, VOCABULARY[shape]) for _ in range(300)) for _ in range(64)]
    engine = LocalEngine(cache_gib=16.0 if torch.cuda.is_available() else 1.0)

    async def ask() -> float:
        await engine.load_weights(Path(model), "M1")
        await engine.generate(prompts[:8], Sampling(16, 0.5, 0.95, 6))
        started = time.perf_counter()
        found = await engine.generate(prompts, Sampling(64, 0.5, 0.95, 6))
        made = sum(len(one.token_ids) for some in found for one in some)
        return made / (time.perf_counter() - started)

    return {"generated tokens/s": asyncio.run(ask())}


if __name__ == "__main__":
    main()
