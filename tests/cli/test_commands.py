"""The table of commands: every one exists, and a word that names none gets the nearest."""

import inspect

import pytest

from psr.cli.classes import KINDS, names_of
from psr.cli.commands import COMMANDS, Group, find, leaves
from psr.cli.main import main
from psr.errors import UsageError


@pytest.mark.parametrize("name", leaves())
def test_a_command_is_a_documented_function(name: str):
    function = leaves()[name].function()
    assert inspect.isfunction(function) and function.__doc__


def test_commands_are_found_by_their_words():
    command, path, rest = find(["data", "eft", "prm800k", "--source", "x"])
    assert command.where == "psr.commands.eft:prm800k"
    assert path == ["data", "eft", "prm800k"] and rest == ["--source", "x"]


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(["repot"], "report"), (["evalute"], "evaluate"), (["data", "itf"], "ift"), (["model", "ftech"], "fetch")],
)
def test_an_unknown_word_names_the_nearest_command(words: list[str], nearest: str):
    with pytest.raises(UsageError, match=f"{words[-1]!r} is no command: did you mean {nearest!r}"):
        find(words)


def test_a_word_like_no_command_lists_them():
    with pytest.raises(UsageError, match=r"'xyzzy' is no command: there are run, fit, .*, serve"):
        find(["xyzzy"])


@pytest.mark.parametrize("name", ["data", "model", "analyse"])
def test_a_group_says_what_it_is_and_lists_its_commands(name: str, capsys: pytest.CaptureFixture[str]):
    group = COMMANDS.commands[name]
    assert isinstance(group, Group)
    for words, code in (([name, "--help"], 0), ([name], 2)):
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == code
        shown = " ".join(capsys.readouterr().out.split())
        assert group.line in shown
        for inner, command in group.commands.items():
            assert f"{inner} {command.line}" in shown


def test_the_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out.startswith("psr ")


# Classes by their short names


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("model", ["PRMModule", "SFTModule", "SolverModule", "StepDPOModule"]),
        ("data", ["BenchmarkDataModule", "PRMDataModule", "SFTDataModule", "SelfRewardingDataModule"]),
        ("engine", ["LocalEngine", "SGLangEngine"]),
        ("loss", ["StepDPOLoss", "StepIPOLoss"]),
    ],
)
def test_the_classes_of_a_setting(kind: str, names: list[str]):
    assert [name for name in names_of(KINDS[kind]) if not name.startswith("Boring")][: len(names)] == names


@pytest.mark.parametrize(
    ("options", "setting", "right"),
    [
        (["--model", "StepDPOModul"], "model", "StepDPOModule"),
        (["--data", "SelfRewarding"], "data", "SelfRewardingDataModule"),
        (["--model", "StepDPOModule", "--model.loss", "StepDPOLos"], "model.loss", "StepDPOLoss"),
        (["--data", "SelfRewardingDataModule", "--data.engine", "LocalEngin"], "data.engine", "LocalEngine"),
        (["--trainer.callbacks+=Preemptio"], "trainer.callbacks", "Preemption"),
        (["--trainer.logger", "WandbLoger"], "trainer.logger", "WandbLogger"),
        (["--trainer.strategy.class_path", "ShardedStrateg"], "trainer.strategy", "ShardedStrategy"),
    ],
)
def test_a_wrong_class_names_the_right_ones(options: list[str], setting: str, right: str):
    with pytest.raises(SystemExit) as exit:
        main(["fit", *options])
    wrong = options[-1].rpartition("=")[2]
    said = str(exit.value.code)
    assert said.startswith(f"psr: {setting} is {wrong!r}, and there is no such class: did you mean {right}? known are ")
