"""The loop M1 -> M2 -> M3 ...: one epoch of the fit is one iteration of the method.

    epoch n begins    the DataModule lets M(n) search and judge new problems, and serves its step pairs
                      the StepDPOModule resets reference and optimizer
    epoch n           the engine sleeps; step-wise DPO on those pairs
    epoch n ends      this callback exports the policy as M(n + 1), has the trainer give back what memory it can, and
                      hands the weights to the engine

Lightning's order of hooks decides what goes where: `train_dataloader()` of an epoch runs before `on_train_epoch_start`,
so the engine must have the weights that search by the end of the previous epoch.
"""

import asyncio
import sys
import time
from contextlib import ExitStack
from typing import Any

from lightning import Callback, LightningModule, Trainer

from psr.data.self_rewarding import SelfRewardingDataModule
from psr.data.traces import searched
from psr.errors import PSRError, UsageError
from psr.files.lock import hold
from psr.modules.step_dpo import StepDPOModule
from psr.run.folder import add_seconds


class SelfRewardingLoop(Callback):
    """Exports M(n + 1) after every iteration and loads it into the engine that searches next."""

    def __init__(self) -> None:
        self.started = 0.0
        self.held = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data = loop_data(trainer)
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if every != 1:
            raise UsageError(
                f"trainer.reload_dataloaders_every_n_epochs is {every}: set it to 1, for new data at every iteration"
            )
        if trainer.max_epochs != len(data.problems_per_iteration):
            raise UsageError(
                f"trainer.max_epochs is {trainer.max_epochs} and data.problems_per_iteration names "
                f"{len(data.problems_per_iteration)} iterations: the two must be equal"
            )
        self._hold_run(data)

    def _hold_run(self, data: SelfRewardingDataModule) -> None:
        """Keep other fits out of the run directory; under `psr run` it is held already."""
        error = None
        if data.ranks.first:
            try:
                self.held.enter_context(hold(data.run.root))
            except PSRError as caught:  # raised again below, once all ranks know
                error = caught
        data.ranks.settle(error)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.held.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After Ctrl-C, say what the search has come to."""
        self.held.close()
        data = loop_data(trainer)
        number = min(trainer.current_epoch + 2, len(data.problems_per_iteration) + 1)
        if isinstance(exception, KeyboardInterrupt) and data.ranks.first:
            count = searched(data.run.traces(number))
            told = f"M{number - 1} has searched {count} of {len(data.problems_of(number))} problems, which stay"
            print(f"psr: {told}", file=sys.stderr)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()
        asyncio.run(loop_data(trainer).sleep())  # a colocated engine's memory goes to the trainer

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._spent(trainer, "reference")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, StepDPOModule)
        data, number = loop_data(trainer), trainer.current_epoch + 2  # epoch 0 trains M2
        self._spent(trainer, "train")
        pl_module.export(data.run.model(number))
        pl_module.rest()  # on every rank: the first one's server may use the GPUs of all
        data.ranks.wait()  # other ranks load the folder that rank 0 has just written
        asyncio.run(data.serve(number))
        self._spent(trainer, "export")

    def _spent(self, trainer: Trainer, part: str) -> None:
        """What the iteration has done since the last call was `part` of it."""
        now = time.monotonic()
        if trainer.is_global_zero:
            add_seconds(loop_data(trainer).run.iteration(trainer.current_epoch + 2), part, now - self.started)
        self.started = now


def loop_data(trainer: Trainer) -> SelfRewardingDataModule:
    """The DataModule of the fit. Raises TypeError where it is another kind."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, SelfRewardingDataModule):
        raise TypeError(f"the self-rewarding callbacks need data: SelfRewardingDataModule, not {type(data).__name__}")
    return data
