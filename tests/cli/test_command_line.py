"""The command line as a user meets it: help, spellings, and one clear message for everything given wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lightning  # noqa: F401 - its log handler keeps the stderr of the moment: imported later, that of one test
import pytest

from psr.cli.commands import COMMANDS
from psr.cli.main import main
from psr.files.jsonl import read_jsonl, write_jsonl
from tests.recipes.tiny_run import JUDGE, TINY, contents, environment, finished_run

SFT = ("fit", "--config", str(TINY / "sft.yaml"), "--data.init_args.prompts", str(TINY / "prompts.yaml"))
LOOP = (
    *("fit", "--config", str(TINY / "self_rewarding.yaml"), "--data.init_args.prompts", str(TINY / "prompts.yaml")),
    *("--data.init_args.judge.kind", JUDGE, "--trainer.logger", "false"),
)
TEST = ("test", "--config", str(TINY / "test.yaml"), "--data.init_args.prompts", str(TINY / "prompts.yaml"))
EFT = (
    *("data", "eft", "models/M1", "data/ift.jsonl", "data/made.jsonl", "LocalEngine"),
    *("--prompts", str(TINY / "prompts.yaml")),
)

Fails = Callable[..., str]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory in which the loop is still to be done, but older models and results lie about."""
    folder = tmp_path / "run"
    shutil.copytree(
        finished_run().folder, folder, ignore=shutil.ignore_patterns("self_rewarding", "iterations", "test")
    )
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fails(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail: gives its message, and checks that it is one and that nothing was overwritten."""

    def run(*arguments: str, code: int = 1) -> str:
        before = contents(run_dir)
        with pytest.raises(SystemExit) as exit:
            main(list(arguments))
        said = capsys.readouterr().err
        if isinstance(exit.value.code, str):  # the interpreter prints it to stderr and exits with 1
            message = exit.value.code
            assert code == 1 and message.startswith("psr: ") and "\n" not in message and len(message) < 600
            assert not any(line.startswith(("error:", "usage:")) for line in said.splitlines())
        else:
            assert exit.value.code == code
            [message] = [line for line in said[said.index("error: ") :].split("\n\n") if line]
        assert "Traceback" not in said + message
        after = contents(run_dir)
        assert {name: after.get(name) for name in before} == before
        return message

    return run


def appended(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


# Help


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.commands.items():
        assert f"    {name} " in shown and command.line in " ".join(shown.split())


def test_help_of_run_has_a_line_for_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["run", "--help"])
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("seed of data, weights, sampling and training", "{self,random,verifier}", "name of a YAML file"):
        assert text in shown


@pytest.mark.parametrize(
    ("option", "name", "texts"),
    [
        (
            "--data.help",
            "psr.data.self_rewarding.SelfRewardingDataModule",
            ("how a problem is searched", "who judges", "how many new problems each iteration searches"),
        ),
        ("--data.help", "psr.data.sft.SFTDataModule", ("longer samples are left out", "templates and step format")),
        ("--model.help", "psr.modules.step_dpo.StepDPOModule", ("learning rate of AdamW", "always with M1")),
        ("--model.help", "psr.modules.sft.SFTModule", ("share of all optimizer steps that warms up",)),
    ],
)
def test_help_of_a_class_has_a_line_for_every_setting(
    option: str, name: str, texts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit:
        main(["fit", option, name])
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in texts:
        assert text in shown


def test_help_of_a_data_command_has_a_line_for_every_setting_of_the_search(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["data", "eft", "--help"])
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("--search.width", "candidates per step (w)", "at most so many pairs at one prefix"):
        assert text in shown


def test_a_real_process_gives_the_help_of_a_fit():
    called = [sys.executable, "-m", "psr.cli.main", "fit", "--help"]
    done = subprocess.run(called, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ("--trainer.max_epochs", "--model", "--data", "--seed_everything", "--config"):
        assert text in done.stdout


# Spellings


@pytest.mark.parametrize("spelling", [["--run-dir", "{}"], ["--run_dir", "{}"], ["--run-dir={}"], ["--run_dir={}"]])
def test_options_take_dashes_or_underscores(spelling: list[str], capsys: pytest.CaptureFixture[str]):
    folder = finished_run().folder
    main(["run", str(TINY), *(word.format(folder) for word in spelling), "--judge", JUDGE])
    assert capsys.readouterr().out.count("done before") == 6


def test_values_keep_their_dashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "with-dashes_and-more"
    sizes = ["--ift=2", "--eft=1", "--loop=1", "--validation=1", "--test=1"]
    main(["data", "arithmetic", str(out), *sizes])
    assert len(read_jsonl(out / "ift.jsonl")) == 2


# Wrong settings


def test_an_unknown_key_in_a_config(fails: Fails, run_dir: Path):
    (run_dir / "more.yaml").write_text("model: {init_args: {learning_rate: 1}}")
    assert "'learning_rate' is not accepted" in fails(*SFT, "--config", "more.yaml")


def test_an_unknown_key_of_a_nested_setting(fails: Fails, run_dir: Path):
    (run_dir / "more.yaml").write_text("data: {init_args: {search: {widht: 3}}}")
    assert "widht" in fails(*LOOP, "--config", "more.yaml")


def test_an_unknown_option(fails: Fails):
    message = fails(*SFT, "--trainer.max_stepss", "3")
    assert "--trainer.max_stepss" in message and "psr fit --help" in message


def test_an_unknown_key_in_the_config_of_a_data_command(fails: Fails, run_dir: Path):
    (run_dir / "more.yaml").write_text("{out: data, iftt: 3}")
    assert "iftt" in fails("data", "arithmetic", "--config", "more.yaml")


def test_a_missing_config_file(fails: Fails):
    assert "nowhere.yaml" in fails("fit", "--config", "nowhere.yaml")


@pytest.mark.parametrize("value", ["oracle", "1"])
def test_an_unknown_judge_names_the_known_ones(fails: Fails, value: str):
    message = fails(*LOOP, "--data.init_args.judge.kind", value)
    assert "kind" in message and f"Got value: {value}" in message and "'self', 'random', 'verifier'" in message


def test_a_search_without_candidates(fails: Fails):
    message = fails(*LOOP, "--data.init_args.search.width", "0")
    assert "search.width is 0: it must be at least 1" in message


def test_a_loss_without_strength(fails: Fails):
    message = fails(*LOOP, "--model.init_args.loss.beta", "0")
    assert "loss.beta is 0.0: it must be positive" in message


def test_a_template_without_its_placeholder(fails: Fails):
    message = fails(*LOOP, "--data.init_args.prompts.judge", "Which is better?")
    assert "prompts.judge lacks {problem}, {steps}, {a}, {b}" in message


def test_iterations_and_epochs_that_differ(fails: Fails):
    message = fails(*LOOP, "--trainer.max_epochs", "3")
    assert "trainer.max_epochs is 3" in message and "names 2 iterations" in message


def test_dataloaders_that_are_not_reloaded(fails: Fails):
    message = fails(*LOOP, "--trainer.reload_dataloaders_every_n_epochs", "0")
    assert "reload_dataloaders_every_n_epochs is 0: set it to 1" in message


def test_more_new_problems_than_there_are(fails: Fails):
    message = fails(*LOOP, "--data.init_args.problems_per_iteration", "[100, 100]")
    assert "asks for 200 new problems" in message and "data/problems.jsonl has 120" in message


def test_the_verifier_as_the_judge_without_a_verifier(fails: Fails):
    message = fails(*LOOP, "--data.init_args.judge.kind", "verifier", "--data.init_args.verifier", "null")
    assert "judge.kind is 'verifier'" in message and "data.verifier" in message


# Wrong files


@pytest.mark.parametrize("stage", [SFT, LOOP, TEST], ids=["sft", "loop", "test"])
def test_a_missing_model_folder(fails: Fails, stage: tuple[str, ...]):
    message = fails(*stage, "--model.init_args.model", "models/M9")
    assert "no model in models/M9: expected a Hugging Face folder" in message


def test_a_missing_model_folder_of_a_data_command(fails: Fails, run_dir: Path):
    (run_dir / "models" / "M1").rename(run_dir / "models" / "Mx")
    assert "no model in models/M1" in fails(*EFT)


def test_a_model_whose_tokenizer_would_be_another_one(fails: Fails):
    settings = "{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}"
    message = fails("model", "init", "models/M1", "qwen2", settings)
    assert "architecture is 'qwen2'" in message and "llama" in message


@pytest.mark.parametrize(
    ("stage", "name"),
    [(SFT, "ift"), (SFT, "eft"), (LOOP, "problems"), (LOOP, "eft_heldout"), (TEST, "test")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_empty_file(fails: Fails, run_dir: Path, stage: tuple[str, ...], name: str):
    (run_dir / "data" / f"{name}.jsonl").write_text("\n")
    assert fails(*stage) == f"psr: data/{name}.jsonl: the file holds no rows"


def test_a_missing_file(fails: Fails, run_dir: Path):
    (run_dir / "data" / "problems.jsonl").unlink()
    assert fails(*LOOP) == "psr: data/problems.jsonl: no such file"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "x", "problem": ', "not JSON (Expecting value at column 24)"),
        ('["x"]', "expected an object, found list"),
        ('{"id": "x", "text": "1+1"}', "field 'problem' is missing; the row has id, text"),
    ],
)
def test_a_malformed_line(fails: Fails, run_dir: Path, line: str, reason: str):
    appended(run_dir / "data" / "problems.jsonl", line)
    assert fails(*LOOP) == f"psr: data/problems.jsonl, line 121: {reason}"


def test_an_id_that_occurs_twice(fails: Fails, run_dir: Path):
    path = run_dir / "data" / "problems.jsonl"
    first = read_jsonl(path, ["id"])[0]["id"]
    appended(path, json.dumps({"id": first, "problem": "07+30-10"}))
    assert f"the id {first!r} occurs 2 times" in fails(*LOOP)


def test_a_prompt_that_does_not_fit_into_the_models_context(fails: Fails, run_dir: Path):
    rows = [{"id": str(i), "problem": "07" + "+30-10" * 25} for i in range(22)]
    write_jsonl(run_dir / "data" / "problems.jsonl", rows)
    message = fails(*LOOP)
    assert "prompt of 153 tokens" in message and "context of 128 tokens" in message and "shorten" in message


def test_an_iteration_without_pairs(fails: Fails):
    message = fails(*LOOP, "--data.init_args.min_margin", "99")
    assert "the search by M1 left no step pair: 10 problems, min_margin 99" in message
    assert "iterations/02/traces.jsonl" in message and "search.temperature" in message


def test_judge_data_from_a_model_that_has_nothing_to_tell_apart(fails: Fails):
    message = fails(*EFT, "--search.max_step_tokens", "1", "--search.max_iterations", "1")
    assert "models/M1 left no pair of a right and a wrong step" in message and "search.temperature" in message


def test_traces_of_other_weights(fails: Fails, run_dir: Path):
    source = finished_run().folder / "iterations" / "03" / "traces.jsonl"
    (run_dir / "iterations" / "02").mkdir(parents=True)
    shutil.copy(source, run_dir / "iterations" / "02" / "traces.jsonl")
    message = fails(*LOOP)
    assert "traces.jsonl, line 1: searched by weights 'M2', not 'M1'" in message


# Wrong recipes


def test_a_folder_without_a_recipe(fails: Fails, tmp_path: Path):
    assert f"no recipe in {tmp_path}: expected {tmp_path / 'recipe.yaml'}" in fails("run", str(tmp_path))


def test_an_unknown_overlay(fails: Fails, run_dir: Path):
    message = fails("run", str(TINY), "--run-dir", str(run_dir), "--judge", JUDGE, "--overlay", "fast")
    assert "overlay is 'fast'" in message and "fast.yaml" in message


def test_an_overlay_for_a_stage_that_is_not_there(fails: Fails, run_dir: Path, tmp_path: Path):
    recipe = tmp_path / "recipe"
    shutil.copytree(TINY, recipe)
    (recipe / "odd.yaml").write_text("dpo: {trainer: {max_epochs: 1}}")
    message = fails("run", str(recipe), "--run-dir", str(run_dir), "--judge", JUDGE, "--overlay", "odd")
    assert "odd.yaml names the stages dpo; the recipe has arithmetic" in message


@pytest.mark.parametrize(
    ("options", "held"),
    [(["--judge", "self"], "judge 'random'"), (["--judge", JUDGE, "--seed", "7"], "seed 0")],
)
def test_a_run_directory_of_another_run(fails: Fails, run_dir: Path, options: list[str], held: str):
    message = fails("run", str(TINY), "--run-dir", str(run_dir), *options)
    assert f"holds a run with {held}" in message and "choose another run_dir" in message


def test_a_run_directory_of_other_variables(fails: Fails, run_dir: Path, tmp_path: Path):
    recipe = tmp_path / "recipe"
    shutil.copytree(TINY, recipe)
    with (recipe / "recipe.yaml").open("a") as file:
        file.write("variables: {width: 3}\n")
    message = fails("run", str(recipe), "--run-dir", str(run_dir), "--judge", JUDGE, "--set.width=4")
    assert "holds a run with set None: choose another run_dir" in message


def test_a_stage_that_fails_ends_a_real_run_with_its_message_alone(run_dir: Path):
    """The same as a process: exit code 1, the message last on stderr, and started again it goes on from there."""
    done = json.loads((run_dir / "stages.json").read_text())
    del done["test"]
    (run_dir / "stages.json").write_text(json.dumps(done))
    test = run_dir / "data" / "test.jsonl"
    whole = test.read_bytes()
    appended(test, "{")
    before = contents(run_dir)
    called = [sys.executable, "-m", "psr.cli.main", "run", str(TINY), "--run-dir", str(run_dir), "--judge", JUDGE]
    failed = subprocess.run(called, env=environment(), capture_output=True, text=True)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("psr: data/test.jsonl, line 13: not JSON")
    after = contents(run_dir)
    assert json.loads(after.pop("stages.json"))["test"]["seconds"] is None, "begun, and not done"
    assert after == {name: content for name, content in before.items() if name != "stages.json"}
    test.write_bytes(whole)
    mended = subprocess.run(called, env=environment(), capture_output=True, text=True)
    assert mended.returncode == 0 and "self_rewarding: done before" in mended.stdout


def test_a_fit_that_is_started_again_keeps_its_wandb_run(tmp_path: Path):
    """The id is on disk from the start, whatever becomes of the first process."""
    from psr.cli.lightning import run_id

    first = run_id(tmp_path / "sft")
    assert first and run_id(tmp_path / "sft") == first
    assert run_id(tmp_path / "other") != first
