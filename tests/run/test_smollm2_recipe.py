"""The smollm2 recipe without its model: how its data is split, where its data folder is found, what its stages read."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from psr.cli.main import main
from psr.errors import UsageError
from psr.files.jsonl import write_jsonl
from psr.prompts.templates import Prompts
from psr.run.recipe import Stage, read_overlay, read_recipe, read_variables, stage_arguments

RECIPE = Path(__file__).parents[2] / "configs" / "smollm2"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data folder as the recipe wants it: 20 problems, 12 pairs on 4 questions, 3 held-out problems."""
    folder = tmp_path / "source"
    worked = [
        {"id": f"t/{i}", "problem": f"{i}+1?", "solution": f"{i}+1 is {i + 1}.", "answer": str(i + 1), "source": "us"}
        for i in range(20)
    ]
    pairs = [
        {"problem": f"question {i % 4}", "previous_steps": [], "chosen": f"right {i}", "rejected": f"wrong {i}"}
        for i in range(12)
    ]
    write_jsonl(folder / "gsm8k_train.jsonl", worked)
    write_jsonl(folder / "prm800k_phase1_train_pairs.jsonl", pairs)
    write_jsonl(folder / "svamp.jsonl", [{"id": f"s/{i}", "problem": "1+1?", "answer": 2} for i in range(3)])
    return folder


def split(source: Path, out: Path, *counts: int) -> None:
    files = ("gsm8k_train.jsonl", "prm800k_phase1_train_pairs.jsonl", "svamp.jsonl")
    main(["data", "split", *(str(source / name) for name in files), str(out), *map(str, counts)])


def test_the_split_parts_problems_and_hides_the_answers_of_the_loops(source: Path, tmp_path: Path):
    split(source, tmp_path / "out", 8, 10, 5, 3)
    ift, loop = rows(tmp_path / "out" / "ift.jsonl"), rows(tmp_path / "out" / "problems.jsonl")
    assert (len(ift), len(loop)) == (8, 10)
    assert not {row["id"] for row in ift} & {row["id"] for row in loop}
    assert all(row.keys() == {"id", "problem"} for row in loop)
    assert len(rows(tmp_path / "out" / "test.jsonl")) == 3


def test_held_out_pairs_are_on_questions_that_no_training_pair_has(source: Path, tmp_path: Path):
    split(source, tmp_path / "out", 8, 10, 5, 3)
    training, heldout = rows(tmp_path / "out" / "eft.jsonl"), rows(tmp_path / "out" / "eft_heldout.jsonl")
    assert (len(training), len(heldout)) == (5, 3)
    assert not {row["problem"] for row in training} & {row["problem"] for row in heldout}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((15, 6, 5, 3), r"ift \+ loop \+ eft_problems \+ validation is 21"),
        ((8, 10, 10, 3), r"eft \+ eft_heldout is 13"),
    ],
)
def test_asking_the_split_for_more_than_there_is_is_an_error(
    source: Path, tmp_path: Path, counts: tuple[int, ...], message: str
):
    with pytest.raises(SystemExit, match=message):
        split(source, tmp_path / "out", *counts)


def test_a_relative_folder_is_meant_from_where_the_command_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = {"variables": {"size": "mine"}, "folders": {"data": "nowhere"}}
    assert read_variables(spec, {"data": "mine"}) == {"size": "mine", "data": str(tmp_path / "mine")}
    assert read_variables({}, {}) == {}


def test_a_missing_data_folder_says_how_to_name_one_and_the_advice_works(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "recipe").mkdir()
    command = (
        "data split {data}/gsm8k_train.jsonl {data}/prm800k_phase1_train_pairs.jsonl {data}/svamp.jsonl data 8 10 5 3"
    )
    recipe = {"name": "mine", "folders": {"data": "nowhere"}, "stages": [{"name": "data", "command": command}]}
    (tmp_path / "recipe" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"'data' is .*nowhere, which does not exist: use --set\.data=DIR"):
        main(["run", "recipe", "--run-dir", "run"])
    assert not (tmp_path / "run").exists()
    main(["run", "recipe", "--run-dir", "run", "--set.data=source"])
    assert len(rows(tmp_path / "run" / "data" / "problems.jsonl")) == 10


def test_a_value_for_no_variable_is_an_error():
    with pytest.raises(UsageError, match=r"--set.dta: the recipe has no such variable, only data"):
        read_variables({"folders": {"data": "."}}, {"dta": "."})


def test_the_recipes_commands_and_overlay_name_files_that_are_there(source: Path, tmp_path: Path):
    spec = read_recipe(RECIPE)
    stages = [Stage(**stage) for stage in spec["stages"]]
    on_top = read_overlay(RECIPE, "smoke", [stage.name for stage in stages])
    values = {**read_variables(spec, {"data": str(source)}), "recipe": str(RECIPE), "seed": "0", "judge": "self"}
    values["best"] = "M4"
    for stage in stages:
        arguments = stage_arguments(stage, values, on_top.get(stage.name), tmp_path)
        paths = [Path(argument) for argument in arguments if argument.endswith((".yaml", ".jsonl"))]
        assert all(path.is_file() for path in paths)
    assert Prompts(**yaml.safe_load((RECIPE / "prompts.yaml").read_text())).step_separator == "\n"
