"""Checkpoints: the last whole one is found by its steps, one that is not is named, and other settings are refused."""

import contextlib
import os
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from psr.cli.main import main
from psr.files.jsonl import write_jsonl
from psr.policy.checkpoints import CheckpointError, check_whole, flaw_of, last_checkpoint
from psr.policy.folder import load_policy

CONFIG = """
model: {class_path: SFTModule, init_args: {lr: 1.0e-3, export_to: M1}}
data:
  class_path: SFTDataModule
  init_args: {ift: ift.jsonl, batch_size: 6, prompts: {reason: "{problem}\\n", step_marker: "", step_separator: "\\n"}}
trainer:
  accelerator: cpu
  max_epochs: 2
  reload_dataloaders_every_n_epochs: 1
  enable_model_summary: false
  enable_progress_bar: false
  logger: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        {dirpath: checkpoints, save_last: true, save_top_k: -1, every_n_epochs: 1, save_on_train_epoch_end: true}
"""


def fit(llama: Path, *options: str) -> None:
    main(["fit", "--config", "fit.yaml", "--model.init_args.model", str(llama), *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    """A fit of two epochs, three optimizer steps each; nobody may change its folder."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "fit.yaml").write_text(CONFIG)
    rows = [{"id": str(i), "problem": f"{i}+1", "solution": f"{i}+1={i + 1}"} for i in range(18)]
    write_jsonl(folder / "ift.jsonl", rows)
    with contextlib.chdir(folder):
        fit(llama)
    return folder


@pytest.fixture
def folder(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be gone on with."""
    copytree(finished, tmp_path / "fit")
    monkeypatch.chdir(tmp_path / "fit")
    return tmp_path / "fit"


def checkpoint(folder: Path, name: str, step: int) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({"global_step": step, "w": torch.ones(1000)}, folder / name)
    return folder / name


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def trainer(folder: Path) -> Any:
    return Trainer(callbacks=[ModelCheckpoint(folder, save_last=True)], accelerator="cpu", logger=False)


def test_steps_and_not_the_clock_say_which_is_the_last(tmp_path: Path):
    old, new = checkpoint(tmp_path, "last.ckpt", 3), checkpoint(tmp_path, "last-stopped-5.ckpt", 5)
    os.utime(new, (0, 0))  # the clock was set back
    assert last_checkpoint(trainer(tmp_path)) == new
    new.unlink()
    assert last_checkpoint(trainer(tmp_path)) == old


def test_one_that_is_torn_is_named_and_the_one_before_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before, torn = checkpoint(tmp_path, "epoch=0-step=3.ckpt", 3), checkpoint(tmp_path, "last.ckpt", 6)
    tear(torn)
    (tmp_path / "last.ckpt.partial").touch()
    assert last_checkpoint(trainer(tmp_path)) == before
    said = capsys.readouterr().err
    assert f"the checkpoint {torn} cannot be read" in said and "last.ckpt.unreadable" in said
    assert {path.name for path in tmp_path.iterdir()} == {before.name, "last.ckpt.unreadable"}
    tear(before)
    assert last_checkpoint(trainer(tmp_path)) is None


def test_a_torn_one_that_is_asked_for_by_name_is_refused(tmp_path: Path):
    path = checkpoint(tmp_path, "last.ckpt", 3)
    check_whole(path)
    tear(path)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt cannot be read \(.+\): name another one, or set `ckpt_path: "
    ):
        check_whole(path)
    assert flaw_of(tmp_path / "none.ckpt")


def test_a_fit_goes_on_from_the_last_whole_one(
    folder: Path, finished: Path, llama: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("last.ckpt", "epoch=1-step=6.ckpt"):
        tear(folder / "checkpoints" / name)
    rmtree(folder / "M1")
    fit(llama, "--ckpt_path", "last")
    said = capsys.readouterr().err
    assert "last.ckpt cannot be read" in said and "epoch=1-step=6.ckpt cannot be read" in said
    ours, theirs = (load_policy(one / "M1").state_dict() for one in (folder, finished))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert flaw_of(folder / "checkpoints" / "last.ckpt") is None


@pytest.mark.parametrize("path", ["last", "checkpoints/last.ckpt"])
@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("--model.init_args.lr", "0.5", r"model\.lr was 0\.001 and is 0\.5"),
        ("--model.init_args.weight_decay", "0.5", r"model\.weight_decay was 0\.0 and is 0\.5"),
        ("--trainer.max_epochs", "7", r"optimizer steps of the schedule was 6 and is 21"),
    ],
)
def test_a_fit_that_goes_on_with_other_settings_is_refused_by_name(
    folder: Path, llama: Path, path: str, setting: str, value: str, told: str
):
    with pytest.raises(SystemExit, match=rf"written with other settings: .*{told}\. Go on with the settings"):
        fit(llama, "--ckpt_path", path, setting, value)
