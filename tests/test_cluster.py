"""The cluster examples: shells and parsers accept them, and what they start exists."""

import subprocess

import pytest
import yaml

from psr.data.jsonl import read_json
from psr.run import read_overlay, read_recipe
from psr.stopping import PREEMPTED
from tests.recipes.tiny_run import ROOT

CLUSTER = ROOT / "configs" / "cluster"


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_sound(script):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert script.stat().st_mode & 0o111, "executable"


def test_slurm_requeues_on_the_exit_code_of_a_stopped_fit():
    text = (CLUSTER / "slurm.sh").read_text()
    assert f"$code == {PREEMPTED}" in text and "--signal=USR1@" in text


def test_the_kubernetes_job_starts_the_recipes_stages():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert subprocess.run(["bash", "-n", "-c", container["command"][-1]]).returncode == 0
    for stage in ("sft.yaml", "self_rewarding.yaml"):
        assert f"$RECIPE/{stage}" in container["command"][-1]
        assert (ROOT / "configs" / "qwen2.5-math-7b" / stage).is_file()


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
