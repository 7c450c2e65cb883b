"""The loop on two processes: the same searches, curves and models as on one; resumed by another number of them."""

import csv
import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file

from psr.records import Trajectory, trajectory_from_json
from tests.ranks.launch import DDP, SHARDED, launch
from tests.recipes.tiny_run import TINY, finished_run

pytestmark = pytest.mark.slow

HALF = ["--data.init_args.problems_per_iteration", "[10]", "--trainer.max_epochs", "1"]
"""The first iteration is done then, and nothing of the second."""


def fit(*options: str) -> list[str]:
    recipe = ["--config", str(TINY / "self_rewarding.yaml"), "--data.init_args.prompts", str(TINY / "prompts.yaml")]
    same = ["--seed_everything", "0", "--data.init_args.search.seed", "0", "--data.init_args.judge.kind", "random"]
    return ["fit", *recipe, *same, *options]


RUNS = {
    **{"ddp": (DDP, [2]), "ddp, 2 then 1": (DDP, [2, 1]), "ddp, 1 then 2": (DDP, [1, 2])},
    **{"sharded": (SHARDED, [2]), "sharded, 2 then 1": (SHARDED, [2, 1]), "sharded, 1 then 2": (SHARDED, [1, 2])},
}
"""Strategy, and the number of processes of the whole fit or of each iteration."""


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose loop ran on two processes, all of it or one of its iterations."""
    folder = tmp_path_factory.mktemp("loop") / "run"
    for part in ("data", "models/M1"):
        copytree(finished_run().folder / part, folder / part)
    strategy, (*first, last) = RUNS[request.param]
    for ranks in first:
        launch(folder, ranks, fit(*strategy, *HALF))
        assert not (folder / "models" / "M3").exists()
    launch(folder, last, fit(*strategy))
    return folder


def lines(folder: Path, number: int) -> list[Trajectory]:
    text = (folder / "iterations" / f"{number:02d}" / "traces.jsonl").read_text()
    return [trajectory_from_json(line) for line in text.splitlines()]


def texts(folder: Path, number: int) -> dict[str, list[list[str]]]:
    return {one.problem.id: [[c.text for c in node.candidates] for node in one.nodes] for one in lines(folder, number)}


def weights(folder: Path, number: int) -> dict[str, torch.Tensor]:
    [file] = (folder / "models" / f"M{number}").glob("*.safetensors")
    return load_file(file)


def curve(folder: Path) -> list[float]:
    found = []
    for path in sorted(folder.glob("self_rewarding/logs/version_*/metrics.csv")):
        with path.open(newline="") as file:
            found += [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    return found


@pytest.mark.parametrize(("number", "problems"), [(2, 10), (3, 12)])
def test_every_problem_is_searched_once_and_as_by_one_process(run: Path, number: int, problems: int):
    searched = [one.problem.id for one in lines(run, number)]
    assert len(searched) == len(set(searched)) == problems
    assert texts(run, number) == texts(finished_run().folder, number)
    assert not list(run.glob("iterations/*/traces.rank-*")), "the parts are merged"


def test_the_loss_is_that_of_one_process(run: Path):
    expected = curve(finished_run().folder)
    assert len(expected) == 11
    assert curve(run) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("number", [2, 3])
def test_the_models_are_those_of_one_process(run: Path, number: int):
    found, expected = weights(run, number), weights(finished_run().folder, number)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=3e-5)


def test_the_results_name_every_model_once(run: Path):
    models = json.loads((run / "results.json").read_text())["models"]
    assert [(model["name"], model["pairs"]) for model in models] == [("M1", 0), ("M2", 20), ("M3", 24)]
