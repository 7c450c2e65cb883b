"""Runs of the tiny recipe that something is done to, and what has to be the same in the end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import torch
import yaml
from safetensors.torch import load_file

from psr.files.jsonl import read_json, write_json
from psr.records import StepPair, step_pairs, trajectory_from_json
from tests.recipes.tiny_run import JUDGE, TINY, environment, finished_run

NUMBERS = (2, 3)
DONE = ("arithmetic", "split", "model", "sft")


def recipe(folder: Path, options: str, **stage: object) -> Path:
    """The tiny recipe with other options of its loop."""
    copytree(TINY, folder)
    spec = yaml.safe_load((folder / "recipe.yaml").read_text())
    [loop] = [one for one in spec["stages"] if one["name"] == "self_rewarding"]
    loop |= {"command": f"{loop['command']} {options}", **stage}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(spec))
    return folder


def before_the_loop(folder: Path) -> Path:
    """A run directory with M1, and nothing of what comes after."""
    copytree(finished_run().folder, folder, ignore=ignore_patterns("self_rewarding", "test", "M2", "M3", "0[23]"))
    (folder / "results.json").unlink()
    done = read_json(folder / "stages.json")
    write_json(folder / "stages.json", {name: done[name] for name in DONE})
    return folder


def command(recipe: Path, folder: Path, *options: str) -> list[str]:
    words = ["run", str(recipe), "--run-dir", str(folder), "--judge", JUDGE, *options]
    return [sys.executable, "-m", "psr.cli.main", *words]


def surroundings() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**environment(), "PATH": path, "HF_HUB_OFFLINE": "1"}


def start(recipe: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """`psr run`, in a session of its own."""
    return subprocess.Popen(
        command(recipe, folder, *options),
        env=surroundings(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    """End the process where a test failed."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def searched(folder: Path, number: int) -> int:
    """How many problems of an iteration the ranks have noted."""
    parts = (folder / "iterations" / f"{number:02d}").glob("traces*.jsonl")
    return sum(part.read_bytes().count(b"\n") for part in parts)


def pairs(folder: Path, number: int) -> list[StepPair]:
    """The step pairs that made M(number), by problem."""
    lines = (folder / "iterations" / f"{number:02d}" / "traces.jsonl").read_text().splitlines()
    found = [trajectory_from_json(json.loads(line)) for line in lines]
    assert len({one.problem.id for one in found}) == len(found), "a problem was searched twice"
    return [pair for one in sorted(found, key=lambda one: one.problem.id) for pair in step_pairs(one)]


def weights(folder: Path, number: int) -> dict[str, torch.Tensor]:
    files = sorted((folder / "models" / f"M{number}").glob("*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


def assert_same(ours: Path, theirs: Path, tolerance: float = 0.0) -> None:
    """The same pairs, the same weights, and the same results of every model."""
    for number in NUMBERS:
        assert pairs(ours, number) == pairs(theirs, number)
        expected = weights(theirs, number)
        found = weights(ours, number)
        assert found.keys() == expected.keys()
        assert max(float((found[name] - value).abs().max()) for name, value in expected.items()) <= tolerance
    one, other = (read_json(folder / "results.json")["models"] for folder in (ours, theirs))
    measured = ("name", "accuracy", "search_accuracy", "judge_accuracy", "pairs")
    assert [[model[name] for name in measured] for model in one] == [[m[name] for name in measured] for m in other]
    assert not list(ours.rglob("*.partial"))
