"""What stages were run with is on record: an edited recipe is refused by name, redone from nothing, or accepted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from psr.errors import UsageError
from psr.files.lock import HeldError, hold
from psr.processes.stopping import Interrupted
from psr.run.recipe import run
from psr.run.record import stage_settings
from psr.run.results import put_model, read_results

STAGES = [
    {"name": "words", "command": "data split {recipe}/words.jsonl out 12 --seed {seed}"},
    {
        "name": "sft",
        "command": "fit --config {recipe}/sft.yaml --data.prompts {recipe}/prompts.yaml",
        "seconds_of": "train",
    },
    {"name": "loop", "command": "fit --config {recipe}/loop.yaml --data.judge {judge}"},
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "made", "stages": STAGES}))
    (folder / "words.jsonl").write_text('{"id": 1}\n')
    (folder / "prompts.yaml").write_text("reason: Think.\n")
    (folder / "sft.yaml").write_text("model: {lr: 0.01, lora: {rank: 4}}\ntrainer: {callbacks: [{class_path: Bar}]}\n")
    (folder / "loop.yaml").write_text("model: {lr: 0.001}\n")
    (folder / "other.yaml").write_text("loop: {model: {lr: 0.5}}\n")
    return folder


@pytest.fixture
def start(tmp_path: Path, recipe: Path) -> Callable[..., list[str]]:
    """Runs the recipe; its stages write a file or two where they are called. Returns those that ran."""

    def begin(stop: BaseException | None = None, **options: Any) -> list[str]:
        ran = []

        def execute(words: list[str]) -> None:
            stage = next(name for name in ("words", "sft", "loop") if f"/{name}." in " ".join(words))
            if stop is not None and stage == "loop":
                raise stop
            ran.append(stage)
            Path(stage, "checkpoints").mkdir(parents=True, exist_ok=True)
            with Path(stage, "checkpoints", "last.ckpt").open("a") as file:
                file.write("made\n")
            if stage == "loop":
                put_model(Path("results.json"), {"name": "M2", "seconds": {}})
                Path("latest").unlink(missing_ok=True)
                Path("latest").symlink_to("loop")

        run(recipe, tmp_path / "run", execute=execute, **options)
        return ran

    return begin


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_nothing_is_done_twice_and_nothing_is_refused_where_nothing_changed(
    tmp_path: Path, recipe: Path, start: Callable[..., list[str]]
):
    assert start() == ["words", "sft", "loop"]
    assert start() == []
    recipe.rename(tmp_path / "elsewhere")  # a recipe counts by what it says
    (tmp_path / "recipe").symlink_to(tmp_path / "elsewhere")
    assert start() == []


EDITS = [
    ("sft.yaml", "0.01", "0.02", "sft: model.lr was 0.01 and is 0.02"),
    (
        "sft.yaml",
        "rank: 4",
        "alpha: 1",
        "sft: model.lora.rank was 4 and is None; sft: model.lora.alpha was None and is 1",
    ),
    ("sft.yaml", "Bar", "Line", "sft: trainer.callbacks.0.class_path was Bar and is Line"),
    ("prompts.yaml", "Think.", "Guess.", "sft: data.prompts.reason was Think. and is Guess."),
    ("recipe.yaml", "out 12", "out 13", "words: argument 5 was 12 and is 13"),
    ("words.jsonl", "1", "2", "words: argument 3 was {recipe}/words.jsonl (sha256 "),
]


@pytest.mark.parametrize(("file", "before", "after", "told"), EDITS)
def test_an_edit_of_what_a_finished_stage_ran_with_is_refused_by_name(
    recipe: Path, start: Callable[..., list[str]], file: str, before: str, after: str, told: str
):
    start()
    edit(recipe / file, before, after)
    with pytest.raises(UsageError) as refused:
        start()
    stage = told.partition(":")[0]
    assert f"than they have now: {told}" in str(refused.value)
    assert f"--redo {stage}, or go on with --accept-changes" in str(refused.value)
    edit(recipe / file, after, before)
    assert start() == []


def test_a_stage_under_way_counts_and_one_that_has_not_begun_does_not(
    recipe: Path, start: Callable[..., list[str]], tmp_path: Path
):
    with pytest.raises(KeyError):
        start(stop=KeyError("a kill"))
    edit(recipe / "loop.yaml", "0.001", "0.002")
    with pytest.raises(UsageError, match=r"loop: model\.lr was 0\.001 and is 0\.002"):
        start()
    done = json.loads((tmp_path / "run" / "stages.json").read_text())
    del done["loop"]
    (tmp_path / "run" / "stages.json").write_text(json.dumps(done))
    assert start() == ["loop"]


def test_an_accepted_change_is_noted_once(recipe: Path, start: Callable[..., list[str]], tmp_path: Path):
    start()
    edit(recipe / "sft.yaml", "0.01", "0.02")
    assert start(accept_changes=True) == start() == []
    results = read_results(tmp_path / "run" / "results.json")
    assert results["accepted_changes"] == [{"stage": "sft", "setting": "model.lr", "before": 0.01, "now": 0.02}]
    assert [model["name"] for model in results["models"]] == ["M2"]


def test_a_stage_is_redone_from_nothing_with_all_that_follows(
    recipe: Path, start: Callable[..., list[str]], tmp_path: Path
):
    start()
    folder = tmp_path / "run"
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("of the models before")
    edit(recipe / "sft.yaml", "0.01", "0.02")
    assert start(redo="sft") == ["sft", "loop"]
    for stage in ("words", "sft", "loop"):
        assert (folder / stage / "checkpoints" / "last.ckpt").read_text() == "made\n", (
            "nothing went on from the old one"
        )
    aside = folder / "replaced" / "1"
    moved = {path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_symlink() or path.is_file()}
    checkpoints = {f"{stage}/checkpoints/last.ckpt" for stage in ("sft", "loop")}
    assert moved == {*checkpoints, "latest", "report/report.html", "iterations/01/seconds.json"}
    assert (folder / "latest").is_symlink() and start() == []
    assert start(redo="loop") == ["loop"] and (folder / "replaced" / "2" / "loop").is_dir()
    with pytest.raises(UsageError, match="redo is 'test', and the stages that have run are words, sft, loop"):
        start(redo="test")


def test_models_of_a_stage_that_is_redone_leave_the_results(start: Callable[..., list[str]], tmp_path: Path):
    start()
    with pytest.raises(KeyError):
        start(redo="sft", stop=KeyError("a kill"))
    assert read_results(tmp_path / "run" / "results.json")["models"] == []
    assert start() == ["loop"]


def test_a_second_start_is_refused_as_long_as_the_first_runs(
    start: Callable[..., list[str]], tmp_path: Path, monkeypatch
):
    with hold(tmp_path / "run"):
        monkeypatch.delenv("PSR_HOLDS")
        with pytest.raises(HeldError, match="is in use by process"):
            start()
    assert start() == ["words", "sft", "loop"]


def test_ctrl_c_says_what_is_done_and_what_is_not(start: Callable[..., list[str]]):
    with pytest.raises(Interrupted, match=r"Done: words, sft\. Not done: loop, of which stays what it had written"):
        start(stop=KeyboardInterrupt())
    assert start() == ["loop"]


def test_a_setting_may_move_from_a_file_to_the_command_line(tmp_path: Path):
    (tmp_path / "fit.yaml").write_text("model: {lr: 0.001, layers: 2, name: x, tied: true}\n")
    (tmp_path / "less.yaml").write_text("model: {name: x}\n")
    in_file = stage_settings(["fit", "--config", str(tmp_path / "fit.yaml")], tmp_path)
    options = ["--model.lr=1e-3", "--model.layers", "2", "--model.tied", "true"]
    assert stage_settings(["fit", "--config", str(tmp_path / "less.yaml"), *options], tmp_path) == in_file
    (tmp_path / "less.yaml").write_text('prompts: {separator: "\\n", marker: "", colon: "a: b", none: "null"}\n')
    texts = stage_settings(["--config", str(tmp_path / "less.yaml")], tmp_path)
    assert list(texts.values()) == ["\n", "", "a: b", "null"], "what is text stays apart from what is not"


def test_an_overlay_lies_on_the_files_and_under_the_command_line(tmp_path: Path):
    (tmp_path / "fit.yaml").write_text("model: {lr: 1, width: 1, depth: 1}\n")
    words = ["fit", "--config", str(tmp_path / "fit.yaml"), "--model.depth", "3"]
    found = stage_settings(words, tmp_path, {"model": {"width": 2, "depth": 2}})
    assert found == {"argument 1": "fit", "model.lr": 1, "model.width": 2, "model.depth": 3}


@pytest.mark.parametrize("torn", ['{"sft": 12.5}', '{"sft": {"seconds": 1}}'])
def test_a_record_of_another_kind_is_named(start: Callable[..., list[str]], tmp_path: Path, torn: str):
    start()
    (tmp_path / "run" / "stages.json").write_text(torn)
    with pytest.raises(
        UsageError, match=r"stages\.json: sft is .* which is no record of a stage: take another run_dir"
    ):
        start()
