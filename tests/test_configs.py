"""Every YAML file of configs/ is parsed by the real parser, and everything that it configures is made.

A recipe's files are found through its recipe.yaml; files that nothing names are sweeps, overlays, or fail the test. The
files that configs name (models, data) are tiny stand-ins.
"""

import re
import shutil
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning import LightningDataModule, LightningModule, Trainer

from psr.cli.commands import find
from psr.cli.lightning import PSRLightningCLI, planned
from psr.cli.main import command_parser
from psr.cli.spelling import spelled
from psr.files.jsonl import write_jsonl
from psr.run.recipe import Stage, read_overlay, read_recipe, read_variables, run, stage_arguments
from tests.recipes.tiny_run import ROOT, TINY

CONFIGS = ROOT / "configs"
RECIPES = [*sorted(path.parent for path in CONFIGS.glob("*/recipe.yaml")), TINY]
IN_RECIPES = [path for folder in RECIPES for path in sorted(folder.glob("*.yaml"))]
SWEEPS = [path for path in IN_RECIPES if "parameters" in yaml.safe_load(path.read_text())]
ROW = {  # of every kind of file at once
    "problem": "07+30-10",
    "answer": "27",
    "solution": "07+30=37\n37-10=27 \\boxed{27}",
    "previous_steps": ["07+30=37"],
    "chosen": "37-10=27 \\boxed{27}",
    "rejected": "37-10=17 \\boxed{17}",
}


class ParsedCLI(PSRLightningCLI):
    """All of `psr fit` but the fit."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def stages_of(recipe: Path) -> list[Stage]:
    return [Stage(**stage) for stage in read_recipe(recipe)["stages"]]


def named_by_stages(recipe: Path) -> set[str]:
    """The files that the commands of its stages name, in the recipe's folder or from there."""
    return {name for stage in stages_of(recipe) for name in re.findall(r"\{recipe\}/([\w./-]+)", stage.command)}


def overlays_of(recipe: Path) -> list[str]:
    rest = {path.name for path in recipe.glob("*.yaml")} - named_by_stages(recipe) - {"recipe.yaml"}
    return sorted(name.removesuffix(".yaml") for name in rest if recipe / name not in SWEEPS)


def is_fit(stage: Stage) -> bool:
    return stage.command.split()[0] == "fit"


def cases() -> Iterator[Any]:
    for recipe in RECIPES:
        for stage in stages_of(recipe):
            yield pytest.param(recipe, stage, None, id=f"{recipe.name}-{stage.name}")
        for overlay in overlays_of(recipe):
            on_top = yaml.safe_load((recipe / f"{overlay}.yaml").read_text())
            for stage in stages_of(recipe):
                if stage.name in on_top:
                    yield pytest.param(recipe, stage, overlay, id=f"{recipe.name}-{stage.name}-{overlay}")


def texts(value: Any) -> Iterator[str]:
    """All strings in a parsed YAML document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


def stand_in(name: str, policy: Path) -> None:
    """Put something small where a config names a model or a data file."""
    path = Path(name)
    if path.suffix == ".jsonl" and not path.exists():
        write_jsonl(path, [{"id": str(i), **ROW} for i in range(4)])
    elif path.parent.name == "models" and not path.is_absolute() and not path.exists():
        shutil.copytree(policy, path)
        (path / "chat_template.jinja").write_text("{% for turn in messages %}{{ turn.content }}{% endfor %}")


def arguments_of(
    recipe: Path, stage: Stage, overlay: str | None, run_dir: Path, policy: Path, given: dict[str, Any] | None = None
) -> list[str]:
    """The stage's command line as `psr run` makes it, with a stand-in for every file that it or its configs name."""
    spec = read_recipe(recipe)
    folders = {name: str(run_dir / name) for name in spec.get("folders", {})}
    for name, folder in folders.items():
        if name == "model":
            shutil.copytree(policy, folder, dirs_exist_ok=True)
        Path(folder).mkdir(exist_ok=True)
    values = {
        **read_variables(spec, {**folders, **(given or {})}),
        "recipe": str(recipe),
        "seed": "3",
        "judge": "random",
        "best": "M3",
    }
    on_top = read_overlay(recipe, overlay, [one.name for one in stages_of(recipe)]).get(stage.name)
    arguments = stage_arguments(stage, values, on_top, run_dir)
    for argument in arguments:
        stand_in(argument, policy)
        if argument.endswith(".yaml"):
            for text in texts(yaml.safe_load(Path(argument).read_text())):
                stand_in(text, policy)
    return arguments


def test_every_yaml_file_belongs_to_a_recipe():
    """A config elsewhere would be one that no test reads: give it a recipe folder, or a test here."""
    assert RECIPES[:-1]
    found = set(CONFIGS.rglob("*.yaml")) | set(CONFIGS.rglob("*.yml"))
    elsewhere = {*CONFIGS.glob("sweeps/*.yaml"), *CONFIGS.glob("cluster/*.yaml")}  # test_sweep.py, test_cluster.py
    covered = {*IN_RECIPES} | elsewhere
    assert not [str(path.relative_to(CONFIGS)) for path in sorted(found - covered)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_file_of_a_recipe_is_a_stages_or_an_overlay(recipe: Path):
    for name in named_by_stages(recipe):
        assert (recipe / name).is_file(), f"{recipe.name}/recipe.yaml names {name}"
    stages = [stage.name for stage in stages_of(recipe)]
    assert len(set(stages)) == len(stages)
    for overlay in overlays_of(recipe):
        on_top = read_overlay(recipe, overlay, stages)
        assert on_top, f"{overlay}.yaml is named by no stage and changes none"


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: f"{sweep.parent.name}-{sweep.stem}")
def test_every_trial_of_a_sweep_is_parsed_and_made(sweep: Path, run_dir: Path, llama: Path):
    """Sweeps over a recipe's variables: every combination of values goes through its self-rewarding stage."""
    spec = yaml.safe_load(sweep.read_text())
    assert spec["method"] in ("grid", "random", "bayes") and set(spec["metric"]) == {"name", "goal"}
    assert spec["command"][-1] == "${args}"
    recipe = sweep.parent
    [stage] = [stage for stage in stages_of(recipe) if stage.name == "self_rewarding"]
    seen = set()
    for values in product(*(one["values"] for one in spec["parameters"].values())):
        options = [f"--{name}={value}" for name, value in zip(spec["parameters"], values, strict=True)]
        given = command_parser(run, ["run"]).parse_args([str(recipe), *options]).set
        module = ParsedCLI(args=arguments_of(recipe, stage, None, run_dir, llama, given)).datamodule
        seen.add((repr(module.search), repr(module.judge)))
    assert len(seen) == prod(len(one["values"]) for one in spec["parameters"].values())


@pytest.mark.parametrize(("recipe", "stage", "overlay"), cases())
def test_a_stage_is_parsed_and_everything_in_it_is_made(
    recipe: Path, stage: Stage, overlay: str | None, run_dir: Path, llama: Path
):
    arguments = arguments_of(recipe, stage, overlay, run_dir, llama)
    found, path, options = find(spelled(arguments))
    if found.parsed:
        parser = command_parser(found.function(), path)
        parser.instantiate(parser.parse_args(options))
        return
    command = arguments[0]
    cli = ParsedCLI(args=arguments)
    assert isinstance(cli.model, LightningModule)
    assert isinstance(cli.datamodule, LightningDataModule)
    assert isinstance(cli.trainer, Trainer) and cli.trainer.callbacks
    assert cli.config[command]["data"]["init_args"]["model"] == cli.config[command]["model"]["init_args"]["model"]
    if "--seed_everything" in options:
        assert cli.config[command]["data"]["init_args"]["seed"] == 3
    if overlay is not None:
        on_top = yaml.safe_load((recipe / f"{overlay}.yaml").read_text())[stage.name]
        assert_is_on_top(on_top, cli.config[command].as_dict())


@pytest.mark.parametrize(("recipe", "stage", "overlay"), [case for case in cases() if is_fit(case.values[1])])
def test_a_fit_is_planned_at_its_own_size(
    recipe: Path,
    stage: Stage,
    overlay: str | None,
    run_dir: Path,
    llama: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Its model is made on the meta device: of the recipes for GPUs with the published shapes, else as the stand-in."""
    _, *options = arguments_of(recipe, stage, overlay, run_dir, llama)
    real = recipe / "architecture.json"
    memory = "24" if str(overlay).startswith("24gb") else "80"
    architecture = str(real if real.exists() else llama / "config.json")
    planned(["plan", *options, "--plan.gpu_memory", memory, "--architecture", architecture])
    said = capsys.readouterr().out
    gpus = {"qwen2.5-math-7b": 8, "qwen2.5-math-72b": 32}.get(recipe.name, 1)
    if overlay is not None:
        gpus = {"4-nodes": 32, "8-nodes": 64, "one-gpu": 1, "one-gpu-in-process": 1}.get(overlay, gpus)
    assert f"on {gpus} GPUs of {memory} GB" in said and "it fits" in said


def assert_is_on_top(on_top: dict[str, Any], config: dict[str, Any]) -> None:
    """Every setting of the overlay has arrived."""
    for name, value in on_top.items():
        if isinstance(value, dict):
            assert_is_on_top(value, config[name])
        elif not isinstance(value, list | str):
            assert config[name] == value, name


def test_the_stand_ins_hide_no_unknown_setting(run_dir: Path, llama: Path):
    """The test of the test: one wrong name in a config is an error here."""
    [stage] = [stage for stage in stages_of(TINY) if stage.name == "sft"]
    arguments = arguments_of(TINY, stage, None, run_dir, llama)
    (run_dir / "wrong.yaml").write_text("data: {init_args: {batch_sizes: 3}}")
    with pytest.raises(Exception, match="batch_sizes"):
        ParsedCLI(args=[*arguments, "--config", "wrong.yaml"])
