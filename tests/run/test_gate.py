"""The gate in the tiny recipe: a learning rate that ruins M2 is noticed without a label, and what follows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from callbacks.gate import Gate, probe_problems
from psr.data.self_rewarding import SelfRewardingDataModule
from psr.engines.local import LocalEngine
from psr.errors import UsageError
from psr.files.jsonl import write_json
from psr.files.problems import read_problems
from psr.prompts.templates import Prompts
from psr.run.folder import RunFolder
from psr.run.gate import best_before, best_by_gate, best_line, best_model, decided
from tests.recipes.tiny_run import TINY, Finished, contents, finished_run, run_tiny

RUINOUS = 0.3
"""A learning rate after which the tiny policy comes to no answer any more."""


def started(folder: Path, **gate: Any) -> Path:
    """A run directory that has M1, and the recipe beside it with a gate and a ruinous learning rate."""
    first, recipe = finished_run().folder, folder / "tiny"
    for name in ("data", "models/M0", "models/M1", "iterations/01"):
        shutil.copytree(first / name, folder / "run" / name)
    done = json.loads((first / "stages.json").read_text())
    stages = {name: done[name] for name in ("arithmetic", "split", "model", "sft")}
    (folder / "run" / "stages.json").write_text(json.dumps(stages))
    shutil.copytree(TINY, recipe)
    loop = yaml.safe_load((recipe / "self_rewarding.yaml").read_text())
    loop["model"]["init_args"]["lr"] = RUINOUS
    gate = {"class_path": "Gate", "init_args": {"probes": 20, "max_tokens": 40, **gate}}
    loop["trainer"]["callbacks"].insert(1, gate)
    (recipe / "self_rewarding.yaml").write_text(yaml.safe_dump(loop))
    return recipe


def run(folder: Path, **gate: Any) -> Finished:
    finished = run_tiny(folder / "run", recipe=started(folder, **gate))
    assert finished.code == 0, finished.stderr[-3000:]
    return finished


def run_again(folder: Path) -> None:
    """As if killed after the fit had ended, before the stage was noted."""
    stages = folder / "stages.json"
    done = json.loads(stages.read_text())
    stages.write_text(json.dumps({name: done[name] for name in done if name not in ("self_rewarding", "test")}))
    again = run_tiny(folder, recipe=folder.parent / "tiny")
    assert again.code == 0, again.stderr[-3000:]


def models(finished: Finished) -> list[dict[str, Any]]:
    return json.loads((finished.folder / "results.json").read_text())["models"]


def weights(folder: Path, name: str) -> dict[str, Any]:
    return load_file(folder / "models" / name / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_stop_ends_the_run_with_the_model_before(tmp_path: Path):
    finished = run(tmp_path, action="stop")
    [_, made] = models(finished)
    gate = made["gate"]
    assert (made["name"], gate["against"], gate["judge"], gate["decision"]) == ("M2", "M1", "M1", "stop")
    assert gate["worse"] and gate["wins"] == 0 and gate["losses"] > 10 and gate["after"]["finished"] < 0.5
    assert json.loads((finished.folder / "iterations/02/gate.json").read_text()) == gate
    assert "M2 writes worse than M1" in finished.stderr
    assert "Best by the gate, without a label: M1; by accuracy: M1" in finished.stdout
    tested = yaml.safe_load((finished.folder / "test" / "test.yaml").read_text())
    assert tested["model"]["init_args"]["model"] == "models/M1", "the result of the run is what is tested"
    before = contents(finished.folder)
    run_again(finished.folder)
    after = contents(finished.folder)
    unchanged = ("iterations/02/traces.jsonl", "iterations/02/gate.json", "models/M2/model.safetensors")
    assert all(before[name] == after[name] for name in unchanged)
    assert not (finished.folder / "iterations" / "03").exists(), "no further iteration is searched"


def test_keep_goes_on_from_the_model_before(tmp_path: Path):
    finished = run(tmp_path, action="keep", lr_factor=0.001, samples=0)
    folder, [_, second, third] = finished.folder, models(finished)
    assert second["gate"]["decision"] == "keep"
    assert same(weights(folder, "M2"), weights(folder, "M1"))
    assert not same(weights(folder, "M2-rejected"), weights(folder, "M1"))
    assert second["accuracy"] == models(finished_run())[0]["accuracy"], "what is measured as M2 is what M2 now is"
    assert third["gate"]["against"] == "M1"
    assert not third["gate"]["worse"], "at a thousandth of the learning rate"
    assert not same(weights(folder, "M3"), weights(folder, "M1"))
    assert third["gate"]["after"]["consistency"] is None, "nothing was sampled"
    columns = (folder / "self_rewarding/logs/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"gate/win_share", "gate/losses", "gate/finished_before", "gate/distance", "gate/worse"} <= {*columns}
    first = [json.loads(line)["problem"]["id"] for line in (folder / "iterations/02/traces.jsonl").open()]
    then = [json.loads(line)["problem"]["id"] for line in (folder / "iterations/03/traces.jsonl").open()]
    assert not {*first} & {*then}
    run_again(folder)  # goes on from a checkpoint of an epoch with a smaller learning rate than the config's
    shutil.rmtree(folder / "self_rewarding" / "checkpoints")
    run_again(folder)  # and from none, as if killed at the hand-over: M2 is trained and rejected once more
    assert same(weights(folder, "M2"), weights(folder, "M1"))


def test_the_best_model_is_the_last_that_was_taken(tmp_path: Path):
    run = RunFolder(tmp_path)
    for number, decision in {2: "take", 3: "warn", 4: "take", 5: "keep"}.items():
        write_json(run.gate(number), {"number": number, "decision": decision})
    assert [best_before(run, number) for number in (2, 3, 4, 5, 6)] == [1, 2, 2, 4, 4]
    models = [{"name": f"M{one['number']}", "gate": one} for one in decided(run)]
    assert best_by_gate({"models": models}) == "M4" and best_model({"models": models}) == "M4"
    assert best_line({"models": models}) == "Best by the gate, without a label: M4"
    assert best_by_gate({"models": models[1:2]}) == "M1"
    without = {"models": [{"name": "M1", "accuracy": 0.9}, {"name": "M2", "accuracy": 0.5}]}
    assert best_line(without) is None and best_model(without) == "M2", "without a gate it is the last"
    assert best_model({"models": []}) == "M1"


def test_probe_problems_are_those_that_no_iteration_searches(tmp_path: Path, prompts: Prompts):
    first = finished_run().folder
    model, problems = str(first / "models" / "M1"), str(first / "data" / "problems.jsonl")
    data = SelfRewardingDataModule(model, problems, str(tmp_path), LocalEngine(), [10, 12], prompts=prompts)
    data.setup("fit")
    searched = {problem.id for number in (2, 3) for problem in data.problems_of(number)}
    found = probe_problems(data, None, 98)
    assert len(found) == 98 and not searched & {problem.id for problem in found}
    assert probe_problems(data, problems, 5) == read_problems(problems)[-5:]
    with pytest.raises(UsageError, match=r"gate\.probes is 99, and there are 98 problems"):
        probe_problems(data, None, 99)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"level": 1.0}, "gate.level is 1.0"),
        ({"lr_factor": 0.5}, "gate.lr_factor is 0.5 and gate.action 'warn'"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        Gate(**setting)
