"""Told to stop in the middle of a search, a recipe on two processes ends with 75, and the same command finishes it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import yaml

from psr.files.jsonl import read_json, write_json
from psr.processes.stopping import PREEMPTED
from tests.ranks.test_self_rewarding import lines, texts, weights
from tests.recipes.tiny_run import JUDGE, LIMIT, TINY, environment, finished_run

pytestmark = pytest.mark.slow

OPTIONS = "--trainer.strategy ddp --trainer.devices 2 --trainer.callbacks+=callbacks.preemption.Preemption"
ONE_BY_ONE = "--data.init_args.concurrency 1"
LAUNCH = "torchrun --standalone --nproc-per-node 2 --shutdown-timeout 300 --no-python"
PROBLEMS = {2: 10, 3: 12}


def recipe(folder: Path) -> Path:
    """The tiny recipe, its loop in processes of its own that search one problem after the other."""
    copytree(TINY, folder)
    spec = yaml.safe_load((folder / "recipe.yaml").read_text())
    [stage] = [stage for stage in spec["stages"] if stage["name"] == "self_rewarding"]
    stage |= {"command": f"{stage['command']} {OPTIONS} {ONE_BY_ONE}", "parallel": True}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(spec))
    return folder


def before_the_loop(folder: Path) -> Path:
    """A run directory with M1, and nothing of what comes after."""
    copytree(finished_run().folder, folder, ignore=ignore_patterns("self_rewarding", "test", "M2", "M3", "0[23]"))
    (folder / "results.json").unlink()
    done = read_json(folder / "stages.json")
    write_json(folder / "stages.json", {name: done[name] for name in ("arithmetic", "split", "model", "sft")})
    return folder


def start(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    arguments = ["run", str(recipe), "--run-dir", str(folder), "--judge", JUDGE, "--launch", LAUNCH]
    return subprocess.Popen(
        [sys.executable, "-m", "psr.cli.main", *arguments],
        env={**environment(), "PATH": path, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def searched(folder: Path, number: int) -> int:
    """How many problems of an iteration the ranks have noted."""
    parts = (folder / "iterations" / f"{number:02d}").glob("traces*.jsonl")
    return sum(part.read_bytes().count(b"\n") for part in parts)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, set[str]]]:
    """The run directory, stopped in both searches and finished; and which problems were searched at each stop."""
    parent = tmp_path_factory.mktemp("stopped")
    ours, folder, found = recipe(parent / "tiny"), before_the_loop(parent / "run"), {}
    for number in PROBLEMS:
        process, end = start(ours, folder), time.monotonic() + LIMIT
        while searched(folder, number) < 2:
            assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-5000:]
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == PREEMPTED, said[-5000:]
        found[number] = {one.problem.id for one in lines(folder, number)}
    last = start(ours, folder)
    _, said = last.communicate(timeout=LIMIT)
    assert last.returncode == 0, said[-5000:]
    return folder, found


@pytest.mark.parametrize("number", PROBLEMS)
def test_what_was_searched_stays_and_no_problem_is_searched_twice(
    stopped: tuple[Path, dict[int, set[str]]], number: int
):
    folder, found = stopped
    assert 2 <= len(found[number]) < PROBLEMS[number], "the stop came in the middle"
    at_the_end = [one.problem.id for one in lines(folder, number)]
    assert set(at_the_end[: len(found[number])]) == found[number]
    assert len(at_the_end) == len(set(at_the_end)) == PROBLEMS[number]
    assert texts(folder, number) == texts(finished_run().folder, number)


@pytest.mark.parametrize("number", PROBLEMS)
def test_the_models_are_those_of_one_process_that_was_not_stopped(
    stopped: tuple[Path, dict[int, set[str]]], number: int
):
    ours, theirs = weights(stopped[0], number), weights(finished_run().folder, number)
    assert max(float((ours[name] - value).abs().max()) for name, value in theirs.items()) < 3e-5


def test_all_of_it_is_one_wandb_run(stopped: tuple[Path, dict[int, set[str]]]):
    stage = stopped[0] / "self_rewarding"
    runs = [path.name.rpartition("-")[2] for path in (stage / "wandb").glob("offline-run-*")]
    assert len(runs) == 3 and set(runs) == {(stage / "wandb-run-id").read_text()}
