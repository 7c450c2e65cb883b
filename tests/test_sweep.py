"""Sweep files: W&B's own schema accepts them, psr reads them the same way, and a sweep that was killed goes on."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from psr.errors import UsageError
from tests.recipes.tiny_run import LIMIT, ROOT, environment, finished_run

pytest.importorskip("optuna")
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from psr.sweep_file import command_line, read_sweep

TINY_SWEEP = ROOT / "tests" / "recipes" / "tiny_sweep.yaml"
FILES = [*sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), TINY_SWEEP]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_wandbs_own_schema_accepts_the_file(file: Path):
    jsonschema, sweeps = pytest.importorskip("jsonschema"), importlib.util.find_spec("sweeps")
    if sweeps is None or sweeps.origin is None:
        pytest.skip("W&B's schema is not installed: pip install --no-deps sweeps jsonref")
    schema = json.loads((Path(sweeps.origin).parent / "config" / "schema.json").read_text())
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(file.read_text()), "method": "guess"}, schema)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_read_here_too(file: Path):
    spec = read_sweep(file)
    assert spec.trials > 0 and spec.space and spec.maximize and spec.metric == "accuracy"


def test_parameters_and_macros(tmp_path: Path):
    file = tmp_path / "sweep.yaml"
    base = {"method": "random", "metric": {"name": "eval/accuracy", "goal": "maximize"}, "run_cap": 2, "command": ["x"]}
    parameters = {"a": {"values": [1, 2]}, "b": {"min": 1, "max": 3}, "c": {"min": 0.5, "max": 1}, "d": {"value": "z"}}
    parameters["e"] = {"min": 0.1, "max": 1.0, "distribution": "log_uniform_values"}
    file.write_text(yaml.safe_dump({**base, "parameters": parameters}))
    space = read_sweep(file).space
    assert space["a"] == CategoricalDistribution([1, 2]) and space["d"] == CategoricalDistribution(["z"])
    assert space["b"] == IntDistribution(1, 3) and space["c"] == FloatDistribution(0.5, 1)
    assert space["e"] == FloatDistribution(0.1, 1.0, log=True)
    words = command_line(["${env}", "${interpreter}", "x", "${args}"], {"m.lr": 0.1, "w": 3}, "py")
    assert words == ["/usr/bin/env", "py", "x", "--m.lr=0.1", "--w=3"]
    file.write_text(yaml.safe_dump({**base, "parameters": {"a": {"min": 1, "max": 2, "distribution": "beta"}}}))
    with pytest.raises(UsageError, match="parameter a has the distribution 'beta'"):
        read_sweep(file)
    file.write_text(yaml.safe_dump({**base, "method": "grid", "parameters": {"a": {"min": 1, "max": 2}}}))
    with pytest.raises(UsageError, match="grid needs `values`"):
        read_sweep(file)


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(tmp_path: Path):
    """Killed in the middle of its second trial: the first is not run again, the second goes on, the third follows."""
    base, file = tmp_path / "base", tmp_path / "tiny.yaml"
    for part in ("data", "models/M1"):
        copytree(finished_run().folder / part, base / part)
    (base / "run.json").write_bytes((finished_run().folder / "run.json").read_bytes())
    recipe = str(ROOT / "tests" / "recipes" / "tiny")
    file.write_text(TINY_SWEEP.read_text().replace("RECIPE", recipe).replace("BASE", str(base)))
    command = [sys.executable, "-m", "psr.cli", "sweep", str(file), str(base)]
    first = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    second, end = base / "trials" / "tiny-001" / "iterations", time.monotonic() + LIMIT
    while not second.exists():
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True).stdout.split()
    for pid in (first.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    first.wait()
    log = (base / "trials" / "tiny-000" / "log.txt").read_bytes()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    trials = json.loads((base / "trials" / "tiny.json").read_text())["trials"]
    assert [one["state"] for one in trials] == ["complete"] * 3
    assert all(set(one["by_iteration"]) == {"M2", "M3"} for one in trials)
    assert (base / "trials" / "tiny-000" / "log.txt").read_bytes() == log, "the first was not started again"
    assert sorted(path.name for path in (base / "trials").glob("tiny-*")) == [f"tiny-00{n}" for n in range(3)]
