"""The cluster examples: they start what exists, and start it again where it was stopped."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from psr.files.jsonl import read_json
from psr.run.recipe import read_overlay, read_recipe
from tests.recipes.tiny_run import ROOT, environment

CLUSTER = ROOT / "configs" / "cluster"


def container() -> dict[str, Any]:
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    [found] = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_sound(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert script.stat().st_mode & 0o111, "executable"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts shell scripts on the PATH of what the test starts, and the real psr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def add(name: str, text: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / name
        program.write_text(f"#!/usr/bin/env bash\n{text}\n")
        program.chmod(0o755)

    add("psr", f'exec "{sys.executable}" -m psr.cli.main "$@"')
    return add


@pytest.mark.parametrize(
    ("srun", "code"),
    [('touch "$PSR_STOPPED"; exit 143', 0), ("exit 143", 143), pytest.param("true", 0, marks=pytest.mark.slow)],
    ids=["stopped as told", "failed", "done"],
)
def test_slurm_requeues_what_stopped_as_told_and_nothing_else(
    tmp_path: Path, programs: Callable[[str, str], None], srun: str, code: int
):
    """srun's exit code is the highest of its tasks': 143 of one that was ended as another had stopped already."""
    programs("srun", srun)
    programs("scontrol", 'echo "$@" > scontrol.txt')
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    (tmp_path / "recipe").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/fit.yaml").write_text("{}")
    stage = {"name": "fit", "command": "fit --config fit.yaml", "parallel": True}
    (tmp_path / "recipe/recipe.yaml").write_text(yaml.safe_dump({"name": "one", "stages": [stage]}))
    ended = subprocess.run(
        ["bash", str(CLUSTER / "slurm.sh"), "recipe", "run", "none"], env={**environment(), "SLURM_JOB_ID": "7"}
    )
    assert ended.returncode == code
    requeued = Path("scontrol.txt").read_text().split() if Path("scontrol.txt").exists() else None
    assert requeued == (["requeue", "7"] if "PSR_STOPPED" in srun else None)


def test_a_pod_hands_sigterm_on_and_waits_for_the_end(tmp_path: Path, programs: Callable[[str, str], None]):
    programs("torchrun", "trap 'sleep 0.5; touch stopped; exit 1' TERM; touch started; while true; do sleep 0.05; done")
    (tmp_path / "d").mkdir()
    names = {"RECIPE": "r", "DATA": "d", "MODEL": "m", "JOB_COMPLETION_INDEX": "0"}
    pod = subprocess.Popen(container()["command"], env={**environment(), **names})
    while not Path("started").exists():
        assert pod.poll() is None
        time.sleep(0.02)
    pod.terminate()
    assert pod.wait(30) == 1, "and the second stage is not begun"
    assert (tmp_path / "data").resolve() == tmp_path / "d"
    assert Path("stopped").exists()


def test_the_kubernetes_job_starts_the_recipes_stages():
    assert subprocess.run(["bash", "-n", "-c", container()["command"][-1]]).returncode == 0
    for stage in ("sft.yaml", "self_rewarding.yaml"):
        assert f"$RECIPE/{stage}" in container()["command"][-1]
        config = (ROOT / "configs" / "qwen2.5-math-7b" / stage).read_text()
        for name in re.findall(r"\bdata/(\S+\.jsonl)", config):
            assert name in (CLUSTER / "kubernetes.yaml").read_text(), f"{stage} reads data/{name}"


def test_a_requeued_job_waits_for_the_one_before():
    assert "--wait true" in (CLUSTER / "slurm.sh").read_text()


@pytest.mark.parametrize("name", ["qwen2.5-math-7b", "qwen2.5-math-72b"])
def test_the_recipes_have_the_papers_hyper_parameters(name: str):
    recipe = ROOT / "configs" / name
    sft, loop = (yaml.safe_load((recipe / f"{stage}.yaml").read_text()) for stage in ("sft", "self_rewarding"))
    assert (sft["model"]["init_args"]["lr"], sft["data"]["init_args"]["batch_size"]) == (1e-6, 32)
    assert sft["trainer"]["max_epochs"] == 3
    data = loop["data"]["init_args"]
    assert (loop["model"]["init_args"]["lr"], data["batch_size"], loop["trainer"]["max_epochs"]) == (5e-7, 32, 3)
    assert data["problems_per_iteration"] == [400, 800, 1200]
    search = {"width": 6, "temperature": 0.5, "top_p": 0.95, "max_iterations": 20}
    assert search.items() <= data["search"].items()
    stages = [stage["name"] for stage in read_recipe(recipe)["stages"]]
    for overlay in recipe.glob("*-nodes.yaml"):
        assert read_overlay(recipe, overlay.stem, stages)
    assert read_json(recipe / "architecture.json")["model_type"] == "qwen2"
