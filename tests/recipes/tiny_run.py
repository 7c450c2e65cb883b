"""The tiny recipe in a process of its own, for the end-to-end tests: run to its end, or started to be killed."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).parent / "tiny"
JUDGE = "random"  # the tiny policy hardly ever writes a verdict
LIMIT = 900
"""Seconds after which a process counts as hung; a whole run takes some twenty, or many more on a busy machine."""


@dataclass(frozen=True)
class Finished:
    """A process that came to its end, and the run directory that it worked in."""

    folder: Path
    code: int
    stdout: str
    stderr: str


def command(folder: Path, *options: str, recipe: Path = TINY, judge: str = JUDGE) -> list[str]:
    words = [sys.executable, "-m", "psr.cli.main", "run", str(recipe), "--run-dir", str(folder), "--judge", judge]
    return [*words, *options]


PLANTED = "planted5ecret"
"""In every secret of the environment: it may be found nowhere."""
SECRETS = {
    "WANDB_API_KEY": f"{PLANTED}{'0' * 27}",  # of the length that W&B's keys have
    "HF_TOKEN": f"hf_{PLANTED}",
    "OPENAI_API_KEY": f"sk-{PLANTED}",
    "ANNOTATOR_KEY": f"annotator-{PLANTED}",
    "ENGINE_KEY": f"engine-{PLANTED}",
}


def environment() -> dict[str, str]:
    """One thread, a usual terminal's width, no network, no W&B service of the tests' own process, and secrets."""
    small = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", **SECRETS}
    ours = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return {**ours, **small, "COLUMNS": "80", "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}


def run_tiny(folder: Path, *options: str, recipe: Path = TINY) -> Finished:
    """`psr run` on the tiny recipe, or a variant of it, as a user starts it, to its end."""
    return run_to_end(command(folder, *options, recipe=recipe), folder)


def run_to_end(words: list[str], folder: Path) -> Finished:
    done = subprocess.run(words, env=environment(), cwd=folder.parent, capture_output=True, text=True, timeout=LIMIT)
    return Finished(folder, done.returncode, done.stdout, done.stderr)


@functools.cache
def finished_run() -> Finished:
    """One whole run, the same for every test that asks; nobody may change its folder."""
    parent = Path(tempfile.mkdtemp(prefix="psr-tiny-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    finished = run_tiny(parent / "run")
    assert finished.code == 0, finished.stderr[-3000:]
    return finished


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
