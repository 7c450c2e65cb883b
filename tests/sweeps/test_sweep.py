"""Sweep files: W&B's own schema accepts them, psr reads them the same way, and a sweep that was killed goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree
from statistics import median
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweeps import schema_violations_from_proposed_config
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from psr.errors import UsageError
from psr.files.jsonl import DataError
from psr.run.folder import RunFolder
from psr.sweeps.file import Sweep, command_line, read_sweep
from psr.sweeps.runner import Runner, run_sweep
from tests.recipes.tiny_run import LIMIT, ROOT, environment, finished_run

TINY_SWEEP = ROOT / "tests" / "recipes" / "tiny_sweep.yaml"
FILES = [*sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ROOT / "configs" / "srlm" / "ablation.yaml", TINY_SWEEP]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_wandbs_own_schema_accepts_the_file(file: Path):
    document = yaml.safe_load(file.read_text())
    assert schema_violations_from_proposed_config(document) == []
    assert schema_violations_from_proposed_config({**document, "method": "guess"})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_read_here_too_and_its_command_is_that_of_wandbs_agent(file: Path):
    spec = read_sweep(file)
    assert spec.space and spec.maximize and spec.metric == "accuracy"
    drawn = spec.points()[0] if spec.method == "grid" else optuna.create_study().ask(spec.space).params
    of_wandb = create_sweep_command_args({"args": {name: {"value": value} for name, value in drawn.items()}})["args"]
    words = command_line(spec.command, drawn, "python")
    assert words[-len(drawn) :] == of_wandb
    assert not [word for word in words if word.startswith("${")]


def test_parameters_and_macros(tmp_path: Path):
    parameters: dict[str, Any] = {
        "a": {"values": [1, 2]},
        "b": {"min": 1, "max": 3},
        "c": {"min": 0.5, "max": 1},
        "d": {"value": "z"},
    }
    parameters["e"] = {"min": 0.1, "max": 1.0, "distribution": "log_uniform_values"}
    space = read_sweep(sweep_file(tmp_path, parameters)).space
    assert space["a"] == CategoricalDistribution([1, 2]) and space["d"] == CategoricalDistribution(["z"])
    assert space["b"] == IntDistribution(1, 3) and space["c"] == FloatDistribution(0.5, 1)
    assert space["e"] == FloatDistribution(0.1, 1.0, log=True)
    words = command_line(["${env}", "${interpreter}", "x", "${args}"], {"m.lr": 0.1, "w": 3}, "py")
    assert words == ["/usr/bin/env", "py", "x", "--m.lr=0.1", "--w=3"]


def test_numbers_as_everybody_writes_them_and_nested_parameters(tmp_path: Path):
    path = sweep_file(tmp_path, {})
    nested = "parameters: {lr: {values: [1e-6, 1E-5, 2.5e-4]}, model: {parameters: {beta: {min: 1e-2, max: 1e0}}}}\n"
    path.write_text(path.read_text().replace("parameters: {}\n", nested))
    space = read_sweep(path).space
    assert space == {
        "lr": CategoricalDistribution([1e-6, 1e-5, 2.5e-4]),
        "model.beta": FloatDistribution(0.01, 1.0),
    }


def test_a_file_that_is_no_sweep_is_named(tmp_path: Path):
    path = sweep_file(tmp_path, {"a": {"value": 1}})
    whole = path.read_text()
    for text, said in (
        ("- a\n", "expected names and values, found list"),
        ("a: [1\n", "line 2: not YAML"),
        (whole + "method: grid\n", "the key 'method' occurs twice"),
        (whole.replace("command:", "commands:"), "field 'command' is missing"),
        ("", "is missing"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_sweep(path)
    path.write_bytes(whole.encode("utf-16"))
    with pytest.raises(DataError, match="not YAML in UTF-8"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"min": 1, "max": 2, "distribution": "beta"}, "parameter a has the distribution 'beta'"),
        ({"values": [1, 2], "probabilities": [0.9, 0.1]}, "parameter a has 'probabilities'"),
        ({"min": 1}, "parameter a has neither"),
        ({"min": 2, "max": 1}, "parameter a: "),
        ({"min": -(10**400), "max": 10.0}, "parameter a: "),
        ({"min": "low", "max": 1}, "parameter a goes from 'low' to 1; min, max and q are numbers"),
        ({"min": 0.0, "max": 1.0, "distribution": "log_uniform_values"}, "parameter a: "),
        ({"min": 0.0, "max": 1.0, "distribution": "q_uniform", "q": 0}, "parameter a: "),
        ({"values": []}, r"parameter a has the values \[\]"),
        ({"values": 3}, "parameter a has the values 3; they are a list"),
        ({"values": [[1], [2]]}, "parameter a has the values"),
    ],
)
def test_what_cannot_be_done_here_is_refused_by_name(tmp_path: Path, parameter: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        read_sweep(sweep_file(tmp_path, {"a": parameter}))
    with pytest.raises(UsageError, match="grid needs `values`"):
        read_sweep(sweep_file(tmp_path, {"a": {"min": 1, "max": 2}}, method="grid"))
    with pytest.raises(UsageError, match=r"metric\.name is 'loss'"):
        read_sweep(sweep_file(tmp_path, {"a": {"values": [1]}}, metric={"name": "loss"}))


def sweep_file(folder: Path, parameters: dict[str, Any], **other: Any) -> Path:
    base = {"method": "random", "metric": {"name": "eval/accuracy", "goal": "maximize"}, "run_cap": 2, "command": ["x"]}
    (folder / "quick.yaml").write_text(yaml.safe_dump({**base, "parameters": parameters, **other}))
    return folder / "quick.yaml"


def test_a_grid_has_as_many_trials_as_points(tmp_path: Path):
    parameters = {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}}
    assert read_sweep(sweep_file(tmp_path, parameters, method="grid", run_cap=100)).trials(None) == 6
    assert read_sweep(sweep_file(tmp_path, parameters, method="grid")).trials(4) == 4


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_sweep_that_goes_on_draws_what_it_would_have_drawn_and_nothing_twice(tmp_path: Path, method: str):
    spec = read_sweep(sweep_file(tmp_path, {"a": {"min": 0.0, "max": 1.0}}, method=method, run_cap=8))

    def draw(parts: list[int]) -> list[float]:
        study, drawn = optuna.create_study(direction="maximize"), []
        for part in parts:
            runner = Runner(spec, study, tmp_path, trials=8, seed=0)
            for _ in range(part):
                trial = runner.ask()
                drawn.append(trial.suggest_float("a", 0.0, 1.0))
                study.tell(trial, drawn[-1])
        return drawn

    at_once = draw([8])
    assert len(set(at_once)) == 8
    assert draw([1, 1, 3, 3]) == at_once


# A trial that measures at once what a real one would measure in minutes: three models, better and better by `x`.
TRIAL = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1]) / "trials" / os.environ["WANDB_RUN_ID"]
x, models = float(sys.argv[2].removeprefix("--x=")), []
if x == 0:
    sys.exit("no such x")
(folder / f"process-{os.getpid()}").touch()
for number in (2, 3, 4):
    models.append({"name": f"M{number}", "accuracy": x * number})
    (folder / "new").write_text(json.dumps({"models": models}))
    os.replace(folder / "new", folder / "results.json")
    time.sleep(0.5)
"""


def quick_sweep(folder: Path, values: list[float], **other: Any) -> tuple[Sweep, Path]:
    (folder / "trial.py").write_text(TRIAL)
    command = ["${interpreter}", "-I", str(folder / "trial.py"), str(folder), "${args}"]
    return read_sweep(sweep_file(folder, {"x": {"values": values}}, method="grid", command=command, **other)), folder


def trials_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "trials" / "quick.json").read_text())["trials"]


def test_a_trial_that_is_worse_than_the_median_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psr.sweeps.runner.POLL", 0.05)
    spec, base = quick_sweep(tmp_path, [3, 6, 4, 1, 5, 2], early_terminate={"type": "hyperband"})
    run_sweep(spec, base, 6, workers=1, seed=0)
    trials = trials_of(base)
    pruned = [one for one in trials if one["state"] == "pruned"]
    assert pruned and all(one["number"] >= 3 for one in pruned), "three have to be whole before any is judged"
    for one in pruned:
        before = [other["settings"]["x"] for other in trials[: one["number"]]]
        assert one["settings"]["x"] < median(before) and "M4" not in one["by_iteration"] and one["value"] is None
    whole = [one for one in trials if one["state"] == "complete"]
    assert all(one["value"] == one["settings"]["x"] * 4 for one in whole)


def test_workers_run_trials_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psr.sweeps.runner.POLL", 0.05)
    running: list[int] = []

    def count(self: Runner, trial: Any, process: Any, folder: Path) -> bool:
        running.append(len(self.study.get_trials(states=[optuna.trial.TrialState.RUNNING])))
        return watch(self, trial, process, folder)

    watch = Runner.watch
    monkeypatch.setattr(Runner, "watch", count)
    spec, base = quick_sweep(tmp_path, [1, 2, 3, 4])
    run_sweep(spec, base, 4, workers=2, seed=0)
    assert max(running) == 2
    assert [one["state"] for one in trials_of(base)] == ["complete"] * 4
    assert sorted(one["settings"]["x"] for one in trials_of(base)) == [1, 2, 3, 4], "no point of the grid twice"


def test_failed_trials_are_named_with_their_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("psr.sweeps.runner.POLL", 0.05)
    spec, base = quick_sweep(tmp_path, [0, 1])
    with pytest.raises(UsageError, match=r"1 of 2 trials failed.*quick-000/log\.txt"):
        run_sweep(spec, base, 2, workers=1, seed=0)
    assert "no such x" in (base / "trials" / "quick-000" / "log.txt").read_text()
    (base / "trial.py").write_text(TRIAL.replace("x == 0", "x < 0"))
    run_sweep(spec, base, 2, workers=1, seed=0)
    assert [(one["state"], one["settings"]["x"]) for one in trials_of(base)[1:]] == [("complete", 1), ("complete", 0)]


def test_the_ablations_trials_are_runs_of_their_own(tmp_path: Path):
    """Its command goes through a shell: the words arrive as they were, and in the folder that psr looks into."""
    spec = read_sweep(ROOT / "configs" / "srlm" / "ablation.yaml")
    assert spec.method == "grid" and spec.trials(None) == 4
    (tmp_path / "psr").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "psr").chmod(0o755)
    values: dict[str, Any] = {"set.search": "{granularity: step, width: 6}", "set.form": "score"}
    words = command_line(spec.command, values, sys.executable)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "WANDB_RUN_ID": "srlm-ablation-003"}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    folder = RunFolder(Path("runs/srlm-ablation")).trials / "srlm-ablation-003"
    assert said == [
        "run",
        "configs/srlm",
        "--run-dir",
        str(folder),
        "--set.search={granularity: step, width: 6}",
        "--set.form=score",
    ]


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(tmp_path: Path):
    """Killed in the middle of its second trial: the first is not run again, the second goes on, the third follows.

    The second's process is not killed with the sweep, but ends because of it, and the next waits until it has.
    """
    base, file = tmp_path / "base", tmp_path / "tiny.yaml"
    for part in ("data", "models/M1"):
        copytree(finished_run().folder / part, base / part)
    (base / "run.json").write_bytes((finished_run().folder / "run.json").read_bytes())
    recipe = str(ROOT / "tests" / "recipes" / "tiny")
    file.write_text(TINY_SWEEP.read_text().replace("RECIPE", recipe).replace("BASE", str(base)))
    command = [sys.executable, "-m", "psr.cli.main", "sweep", str(file), str(base), "--trials", "3"]
    first = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    second, end = base / "trials" / "tiny-001" / "iterations", time.monotonic() + LIMIT
    while not second.exists():
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    orphans = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True).stdout.split()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    log = (base / "trials" / "tiny-000" / "log.txt").read_bytes()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert orphans and not any(Path(f"/proc/{pid}").exists() for pid in orphans)
    trials = json.loads((base / "trials" / "tiny.json").read_text())["trials"]
    assert [one["state"] for one in trials] == ["complete"] * 3
    assert all(set(one["by_iteration"]) == {"M2", "M3"} for one in trials)
    assert len({json.dumps(one["settings"]) for one in trials}) == 3
    assert (base / "trials" / "tiny-000" / "log.txt").read_bytes() == log, "the first was not started again"
    assert sorted(path.name for path in (base / "trials").glob("tiny-*")) == [f"tiny-00{n}" for n in range(3)]
