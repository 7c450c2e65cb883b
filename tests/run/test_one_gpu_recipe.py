"""The one-GPU recipes from public data to M4, with a tiny model in the place of Qwen's, on whatever there is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from psr.curation.sources import BENCHMARKS, located, read_source
from psr.errors import UsageError
from psr.files.jsonl import DataError, write_jsonl
from psr.files.tables import read_table
from psr.policy.folder import export_policy, new_policy
from psr.run.recipe import read_recipe, read_variables
from tests.conftest import TINY, train_bpe
from tests.recipes.tiny_run import ROOT, command, run_to_end

RECIPES = [ROOT / "configs" / name for name in ("qwen2.5-math-1.5b", "qwen2.5-math-7b")]
FIRST = ("We multiply.", "Let us multiply.", "Take the product.", "Add it up.")
"""How a solution may begin: a model that has learned one way alone would have no two steps to choose from."""
LEAKED = "What is 3 times 14?"


def rated(number: int) -> dict[str, Any]:
    """A trajectory in PRM800K's own format: two steps, each with a good and a bad candidate."""
    steps = [("We add the two numbers.", "We subtract."), (f"So it is {number + 2}.", f"So it is {number + 9}.")]
    completions = [[{"text": good, "rating": 1}, {"text": bad, "rating": -1}] for good, bad in steps]
    labelled = [{"completions": some, "chosen_completion": 0, "human_completion": None} for some in completions]
    return {"question": {"problem": f"What is {number} plus 2?"}, "label": {"steps": labelled}}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the public sets as files, a few rows each; one problem of every training set is in a benchmark."""
    folder = tmp_path_factory.mktemp("data")
    worked = [
        {
            "problem": f"What is {n} times {k}?",
            "solution": f"{FIRST[(n + k) % len(FIRST)]} So it is {n * k}.",
            "answer": str(n * k),
        }
        for n in range(2, 9)
        for k in range(11, 17)
    ]
    write_jsonl(folder / "math.jsonl", worked)
    write_jsonl(folder / "numinamath.jsonl", worked)
    ratings = [rated(n) for n in range(80)]
    ratings[3]["question"]["problem"] = LEAKED
    write_jsonl(folder / "prm800k.jsonl", ratings)
    for name in BENCHMARKS:
        held_out = [{"problem": f"What is {n} minus 2?", "answer": str(n - 2)} for n in range(12)]
        write_jsonl(folder / f"{name}.jsonl", [*held_out, {"problem": LEAKED, "answer": "42"}])
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama: with qwen2, transformers would put its own tokenizer in the place of this one."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = train_bpe("digits")
    export_policy(new_policy("llama", {**TINY, "max_position_embeddings": 2048}, tokenizer), tokenizer, folder)
    return folder


@pytest.mark.slow
def test_from_public_data_to_m4_in_one_command(tmp_path: Path, data: Path, model: Path):
    """Every stage of the recipe as its command says it. A random model needs more training to write steps at all."""
    recipe = shutil.copytree(RECIPES[0], tmp_path / "recipe")
    smoke = yaml.safe_load((recipe / "smoke.yaml").read_text())
    smoke["sft"] |= {"model": {"init_args": {"lr": 1e-2}}, "trainer": {"max_epochs": 25}}
    (recipe / "smoke.yaml").write_text(yaml.safe_dump(smoke))
    options = ["--overlay", "smoke", f"--set.model={model}", f"--set.data={data}", "--set.eft_heldout=20"]
    run = run_to_end(command(tmp_path / "run", *options, recipe=recipe, judge="self"), tmp_path / "run")
    assert run.code == 0, run.stderr[-3000:]
    stages = json.loads((run.folder / "stages.json").read_text())
    assert list(stages) == [stage["name"] for stage in read_recipe(recipe)["stages"]]
    files = [run.folder / "data" / f"{name}.jsonl" for name in ("problems", "ift", "eft", "eft.heldout")]
    assert not [path.name for path in files if LEAKED in path.read_text()]
    assert [row.keys() for row in read_table(files[0], ["id", "problem"])]
    models = json.loads((run.folder / "results.json").read_text())["models"]
    assert [one["name"] for one in models] == ["M1", "M2", "M3", "M4"]
    evaluated = json.loads((run.folder / "benchmarks" / "evaluation.json").read_text())["results"]
    assert {(row["model"], row["benchmark"]) for row in evaluated} == {
        (name, benchmark) for name in ("M1", "M4") for benchmark in ("math500", "gsm8k-test")
    }
    assert (run.folder / "models" / "PRM" / "config.json").is_file()


def test_a_set_comes_from_the_hub_or_from_a_folder(data: Path, tmp_path: Path):
    assert located("hub/gsm8k-test") == "gsm8k-test", "the short name of a set on the hub"
    assert located("openai/gsm8k") == "openai/gsm8k", "and a hub name is left alone"
    assert located("my/rows.jsonl") == "my/rows.jsonl"
    assert located(f"{data}/gsm8k-test") == str(data / "gsm8k-test.jsonl")
    assert next(iter(read_source(f"{data}/math500")))["answer"] == "-2"
    with pytest.raises(DataError, match=rf"no numinamath\.jsonl or .*\.parquet in {tmp_path}: put one there"):
        located(f"{tmp_path}/numinamath")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_recipes_name_sets_by_hub_name_or_in_a_folder(
    recipe: Path, data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = read_recipe(recipe)
    on_hub = read_variables(spec, {"model": str(model)})
    assert (on_hub["problems"], on_hub["ratings"]) == ("hub/math", "hub/prm800k")
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mine.jsonl", [{"problem": "1+1?"}])
    ours = read_variables(spec, {"model": str(model), "data": str(data), "problems": "mine.jsonl"})
    assert ours["problems"] == str(tmp_path / "mine.jsonl"), "the stages work in the run directory"
    assert ours["kept_out"] == f"[{', '.join(f'{data}/{name}' for name in sorted_like(spec))}]"
    with pytest.raises(UsageError, match=r"'data' is .*nowhere, which does not exist"):
        read_variables(spec, {"model": str(model), "data": "nowhere"})


def sorted_like(spec: dict[str, Any]) -> list[str]:
    """The benchmarks in the order of the recipe; all that psr knows are kept out."""
    names = [name.rpartition("/")[2] for name in spec["variables"]["kept_out"].strip("[]").split(", ")]
    assert set(names) == set(BENCHMARKS)
    return names
