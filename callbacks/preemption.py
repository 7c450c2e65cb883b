"""Preemption: on a signal (psr/processes/stopping.py) a fit stops so that the same command resumes it.

During training, all ranks stop after the same optimizer step. Supervised training then writes a checkpoint, from which
it resumes in the middle of its epoch; an iteration's epoch of step-wise DPO starts over. A search stops at the next
finished problem, and keeps its finished problems in the traces. The process ends with exit code 75 and leaves a marker
file for `psr run --launch`, which then ends with 75 too; the scripts in configs/cluster requeue the job on that code.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from psr.data.sft import SFTDataModule
from psr.errors import UsageError
from psr.processes.stopping import listen, stop_asked

NAME = "last-stopped-{step}.ckpt"
"""`ckpt_path: last` takes the newest file whose name begins with "last"; ModelCheckpoint's own `last.ckpt` is kept."""


class Preemption(Callback):
    """Stops the fit on SIGTERM or SIGUSR1 so that it can be resumed."""

    def __init__(self) -> None:
        self.stopping = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        launcher = trainer.strategy.launcher
        # Instead of Lightning's own handlers, which are installed only after the model is loaded, and which broadcast
        # to other ranks from inside the signal handler. Lightning's teardown restores the previous ones.
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = lambda: None
        connector._original_handlers = listen(launcher.kill if launcher is not None else None)
        if stage == "fit" and self._folder(trainer) is None:
            raise UsageError("callbacks.preemption.Preemption needs a ModelCheckpoint with `dirpath` and `save_last`")
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if stage == "fit" and every != 1:  # else the loader is made before the checkpoint is read and starts over
            raise UsageError(f"trainer.reload_dataloaders_every_n_epochs is {every}: Preemption needs 1")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # Only between optimizer steps: accumulated gradients are in no checkpoint. The ranks agree by an all-reduce,
        # as signals reach them at different times.
        if self.stopping or trainer.fit_loop._should_accumulate() or not _any_rank(trainer, stop_asked()):
            return
        self.stopping = True
        folder = self._folder(trainer)
        if isinstance(trainer.datamodule, SFTDataModule) and folder is not None:  # type: ignore[attr-defined]
            name = NAME.format(step=trainer.global_step)
            before = {*folder.glob(NAME.format(step="*"))} - {folder / name}
            trainer.save_checkpoint(folder / name)
            # Older ones go only now that this one is complete.
            for path in before if trainer.is_global_zero else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.stopping:  # not in on_train_batch_end: Lightning logs the metrics of the last step after that hook
            raise SIGTERMException

    def _folder(self, trainer: Trainer) -> Path | None:
        """The folder in which `ckpt_path: last` looks."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.save_last and callback.dirpath:
                return Path(callback.dirpath)
        return None


def _any_rank(trainer: Trainer, condition: bool) -> bool:
    """Whether `condition` holds on any rank: a collective, which all ranks call after the same optimizer step."""
    found = torch.tensor(float(condition), device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(found, reduce_op="sum")) > 0
