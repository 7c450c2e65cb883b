"""Told to stop in the middle of an epoch, a fit ends with 75, and the same command goes on with the very next step."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from psr.processes.stopping import PREEMPTED
from tests.ranks.launch import SHARDED
from tests.ranks.test_training import CONFIG, policies_and_samples
from tests.recipes.tiny_run import LIMIT, environment

pytestmark = pytest.mark.slow

STEPS = 72
CALLBACKS = """
    - {class_path: Preemption}
    - class_path: ModelCheckpoint
      init_args: {dirpath: checkpoints, save_last: true, every_n_epochs: 1, save_on_train_epoch_end: true}
"""
TWO = ["--trainer.devices", "2", *SHARDED]


def command(folder: Path, options: list[str]) -> list[str]:
    config = CONFIG.replace("enable_checkpointing: false", "enable_checkpointing: true").replace(
        "max_epochs: 1", "max_epochs: 8, reload_dataloaders_every_n_epochs: 1"
    )
    (folder / "fit.yaml").write_text(config)
    (folder / "callbacks.yaml").write_text(f"trainer:\n  callbacks:{CALLBACKS}\nckpt_path: last\n")
    logs = ["--trainer.logger.save_dir", ".", "--trainer.logger.flush_logs_every_n_steps", "1"]
    places = ["--model.init_args.model", "qwen2", "--model.init_args.export_to", "M1"]
    configs = ["--config", "fit.yaml", "--config", "callbacks.yaml"]
    return [sys.executable, "-m", "psr.cli.main", "fit", *configs, *places, *logs, *options]


def start(folder: Path, options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, options),
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def losses(folder: Path) -> dict[int, float]:
    found = {}
    for path in sorted(folder.glob("lightning_logs/version_*/metrics.csv")):
        with path.open(newline="") as file:
            found |= {
                int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")
            }
    return found


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unharmed")
    policies_and_samples(folder)
    process = start(folder, ["--trainer.devices", "1"])
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said[-3000:]
    assert len(losses(folder)) == STEPS
    return folder


@pytest.mark.parametrize(
    ("options", "number"),
    [(["--trainer.devices", "1"], signal.SIGTERM), (TWO, signal.SIGTERM), (TWO, signal.SIGUSR1)],
    ids=["one", "two", "two, SLURM"],
)
def test_it_stops_and_goes_on(tmp_path: Path, unharmed: Path, options: list[str], number: int):
    policies_and_samples(tmp_path)
    process, end = start(tmp_path, options), time.monotonic() + LIMIT
    while len(losses(tmp_path)) < 12:  # nine steps an epoch
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-3000:]
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == PREEMPTED, said[-3000:]
    done = losses(tmp_path)
    [stopped] = (tmp_path / "checkpoints").glob("last-stopped-*.ckpt")
    assert f"-{len(done)}.ckpt" in stopped.name and len(done) < STEPS
    again = start(tmp_path, options)
    _, said = again.communicate(timeout=LIMIT)
    assert again.returncode == 0, said[-3000:]
    assert losses(tmp_path) == pytest.approx(losses(unharmed), rel=1e-3, abs=1e-4), "no step is missing or made twice"
    ours, theirs = (
        {k: v for f in (x / "M1").glob("*.safetensors") for k, v in load_file(f).items()} for x in (tmp_path, unharmed)
    )
    assert max(float((ours[name] - value).abs().max()) for name, value in theirs.items()) < 1e-3
