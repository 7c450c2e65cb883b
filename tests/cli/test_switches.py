"""Lightning's own switches on the tiny recipe's stages: each works, or is refused by name."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from psr.cli.main import main
from tests.recipes.tiny_run import JUDGE, TINY, contents, finished_run

SFT = ("fit", "--config", str(TINY / "sft.yaml"), "--data.init_args.prompts", str(TINY / "prompts.yaml"))
LOOP = (
    *("fit", "--config", str(TINY / "self_rewarding.yaml"), "--data.init_args.prompts", str(TINY / "prompts.yaml")),
    *("--data.init_args.judge.kind", JUDGE, "--trainer.logger", "false"),
)
WORK = [
    ("fast_dev_run", "true"),
    ("fast_dev_run", "2"),
    ("profiler", "simple"),
    ("detect_anomaly", "true"),
    ("deterministic", "true"),
]
REFUSED = [
    ("overfit_batches", "2"),
    ("limit_train_batches", "0.5"),
    ("limit_train_batches", "3"),
    ("gradient_clip_val", "-1"),
    ("accumulate_grad_batches", "4"),
]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run directory in which the loop is still to be done."""
    shutil.copytree(
        finished_run().folder, tmp_path / "run", ignore=shutil.ignore_patterns("self_rewarding", "iterations")
    )
    monkeypatch.chdir(tmp_path / "run")
    yield tmp_path / "run"
    torch.use_deterministic_algorithms(False)  # `trainer.deterministic` is for the whole process


@pytest.mark.parametrize("stage", [SFT, LOOP], ids=["sft", "loop"])
def test_a_dev_run_does_all_of_it_once_and_keeps_nothing(run_dir: Path, stage: tuple[str, ...]):
    before = contents(run_dir)
    main([*stage, "--trainer.fast_dev_run", "true"])
    assert contents(run_dir) == before


def test_a_dev_run_after_a_finished_loop_does_not_go_on_from_its_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    shutil.copytree(finished_run().folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    before = contents(tmp_path / "run")
    main([*LOOP, "--trainer.fast_dev_run", "true"])
    said = "".join(capfd.readouterr())
    assert "M1 searches: 1 of 1" in said and "Restor" not in said + caplog.text, said[-2000:]
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(("name", "value"), WORK[2:])
def test_a_switch_that_works(run_dir: Path, name: str, value: str):
    few = ("--data.init_args.problems_per_iteration", "[2]", "--trainer.max_epochs", "1", "--trainer.callbacks", "null")
    main([*LOOP, *few, "--trainer.callbacks+=SelfRewardingLoop", f"--trainer.{name}", value])
    assert (run_dir / "iterations" / "02" / "traces.jsonl").is_file()


@pytest.mark.parametrize("stage", [SFT, LOOP], ids=["sft", "loop"])
@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_switch_that_would_mean_something_else_is_refused(
    run_dir: Path, stage: tuple[str, ...], name: str, value: str
):
    with pytest.raises(SystemExit, match=f"psr: trainer.{name} is {value}"):
        main([*stage, f"--trainer.{name}", value])


@pytest.mark.parametrize(("name", "value"), [("max_steps", "3"), ("max_time", "00:00:00:10")])
def test_an_iteration_is_not_ended_within(run_dir: Path, name: str, value: str):
    with pytest.raises(SystemExit, match=f"psr: trainer.{name} would end the fit within an iteration"):
        main([*LOOP, f"--trainer.{name}", value])
