"""Killed with SIGKILL anywhere, `psr run` started again finishes, and no problem is searched twice."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from psr.records import StepNode, Trajectory, trajectory_from_json
from tests.recipes.tiny_run import LIMIT, Finished, command, environment, run_tiny

PROBLEMS = {2: 16, 3: 18}
MADE = {"sft": {"M0"}, "search 2": {"M0", "M1"}, "training 2": {"M0", "M1"}}
MADE |= {"search 3": {"M0", "M1", "M2"}, "training 3": {"M0", "M1", "M2"}}
"""The models that there are in the middle of each place where a run can be killed."""


def traces_file(folder: Path, number: int) -> Path:
    return folder / "iterations" / f"{number:02d}" / "traces.jsonl"


def lines(folder: Path, number: int) -> list[bytes]:
    """The whole lines of an iteration's traces so far."""
    path = traces_file(folder, number)
    written = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in written if line.endswith(b"\n")]


def has_model(folder: Path, number: int) -> bool:
    return (folder / "models" / f"M{number}").exists()


def logged(stage: Path, epoch: int | None) -> int:
    """How many training steps the stage's logs show, of one epoch or of all."""
    count = 0
    for path in (stage / "logs").glob("version_*/metrics.csv"):
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
        count += sum(epoch is None or row.get("epoch") == str(epoch) for row in rows)
    return count


def reached(place: str, folder: Path) -> bool:
    """Whether the run is in the middle of `place` now."""
    kind, _, number = place.partition(" ")
    if kind == "sft":
        return logged(folder / "sft", None) >= 2 and not has_model(folder, 1)
    if kind == "search":
        return 3 <= len(lines(folder, int(number))) < PROBLEMS[int(number)]
    return logged(folder / "self_rewarding", int(number) - 2) >= 2 and not has_model(folder, int(number))


def kill_when(folder: Path, there: Callable[[], bool], log: Path) -> None:
    """Start the run, and SIGKILL it as soon as `there()`."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command(folder, "--overlay", "slow"),
            env=environment(),
            cwd=folder.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + LIMIT
        while not there():
            assert process.poll() is None, f"ended before it could be killed:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"did not get there in {LIMIT} s:\n{log.read_text()[-3000:]}"
            time.sleep(0.005)
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
    finally:
        stop_group(process.pid)
        process.wait(timeout=60)


def stop_group(group: int) -> None:
    """End what a killed process left behind; the group was made for it alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@dataclass(frozen=True)
class Killed:
    """What was on disk right after each kill, and the run that finished in the end."""

    traces: dict[str, dict[int, list[bytes]]]
    models: dict[str, set[str]]
    end: Finished


@pytest.fixture(
    scope="module",
    params=[["search 2", "training 3"], pytest.param(list(MADE), marks=pytest.mark.slow)],
    ids=["twice", "everywhere"],
)
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """One run directory, killed in the middle of one place after the other."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    left: dict[str, dict[int, list[bytes]]] = {}
    models: dict[str, set[str]] = {}
    for place in request.param:
        kill_when(folder, lambda place=place: reached(place, folder), folder.parent / "log.txt")
        left[place] = {number: lines(folder, number) for number in PROBLEMS}
        models[place] = {path.name for path in (folder / "models").iterdir()}
    return Killed(left, models, run_tiny(folder, "--overlay", "slow"))


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without a kill."""
    finished = run_tiny(tmp_path_factory.mktemp("unharmed") / "run", "--overlay", "slow")
    assert finished.code == 0, finished.stderr[-3000:]
    return finished.folder


def trajectories(folder: Path, number: int) -> dict[str, Trajectory]:
    found = [trajectory_from_json(line) for line in lines(folder, number)]
    return {trajectory.problem.id: trajectory for trajectory in found}


def logprobs(some: dict[str, Trajectory]) -> list[float]:
    return [one.logprob for _, t in sorted(some.items()) for node in t.nodes for one in node.candidates]


def without_logprobs(some: dict[str, Trajectory]) -> dict[str, Trajectory]:
    return {id: replace(t, nodes=tuple(map(_without_logprobs, t.nodes))) for id, t in some.items()}


def _without_logprobs(node: StepNode) -> StepNode:
    return replace(node, candidates=tuple(replace(one, logprob=0.0) for one in node.candidates))


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_it_was_killed_in_the_middle_of_each(killed: Killed):
    """The test of the test: each kill came before the model that was in the making, and with part of its traces."""
    for place, models in killed.models.items():
        assert {name for name in models if "." not in name} == MADE[place]
        kind, _, number = place.partition(" ")
        if kind == "search":
            assert 3 <= len(killed.traces[place][int(number)]) < PROBLEMS[int(number)]
        elif kind == "training":
            assert len(killed.traces[place][int(number)]) == PROBLEMS[int(number)]


def test_it_finishes_with_every_model_in_the_results(killed: Killed):
    assert killed.end.code == 0, killed.end.stderr[-3000:]
    assert [model["name"] for model in results(killed.end.folder)["models"]] == ["M1", "M2", "M3"]
    assert not list(killed.end.folder.rglob("*.partial"))


@pytest.mark.parametrize("number", PROBLEMS)
def test_no_problem_is_searched_twice(killed: Killed, number: int):
    """What was there at any kill is there at the end, byte for byte, and every problem has one line."""
    end = traces_file(killed.end.folder, number).read_bytes().splitlines(keepends=True)
    for place, left in killed.traces.items():
        assert end[: len(left[number])] == left[number], f"after the kill in {place}"
    problems = [json.loads(line)["problem"]["id"] for line in end]
    assert len(problems) == len(set(problems)) == PROBLEMS[number]


@pytest.mark.parametrize("number", PROBLEMS)
def test_what_is_searched_after_a_kill_is_what_would_have_been_searched(killed: Killed, unharmed: Path, number: int):
    ours, theirs = trajectories(killed.end.folder, number), trajectories(unharmed, number)
    assert logprobs(ours) == pytest.approx(logprobs(theirs), abs=1e-4)  # what is in the cache changes the rounding
    assert without_logprobs(ours) == without_logprobs(theirs)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_models_are_those_of_a_run_without_a_kill(killed: Killed, unharmed: Path, number: int):
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(folder / "models" / f"M{number}").state_dict()
        for folder in (killed.end.folder, unharmed)
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6)


def test_the_results_are_those_of_a_run_without_a_kill(killed: Killed, unharmed: Path):
    def without_seconds(folder: Path) -> list[dict[str, Any]]:
        return [{**model, "seconds": None} for model in results(folder)["models"]]

    assert without_seconds(killed.end.folder) == without_seconds(unharmed)


@pytest.mark.slow
def test_a_line_that_a_kill_tore_is_searched_again_and_no_other(unharmed: Path, tmp_path: Path):
    """The kill that no poll can time: in the middle of writing a line."""
    folder = tmp_path / "run"
    shutil.copytree(unharmed, folder, ignore=shutil.ignore_patterns("self_rewarding", "test", "M2", "M3", "03"))
    done = json.loads((folder / "stages.json").read_text())
    del done["self_rewarding"], done["test"]
    (folder / "stages.json").write_text(json.dumps(done))
    whole = lines(folder, 2)
    traces_file(folder, 2).write_bytes(b"".join(whole[:-1]) + whole[-1][: len(whole[-1]) // 2])
    assert run_tiny(folder, "--overlay", "slow").code == 0
    assert lines(folder, 2)[:-1] == whole[:-1]
    assert trajectories(folder, 2) == trajectories(unharmed, 2)
