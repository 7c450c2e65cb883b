"""How far a stage is, on a terminal and in a log alike, in the place of Lightning's own bars.

A fit of a fixed number of steps is one phase. One that searches between its epochs has a phase for each: what comes
between shows its own progress.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from psr.terminal.progress import Progress, progress
from psr.terminal.quiet import quiet_libraries


class StageProgress(ProgressBar):
    """A bar of the optimizer steps or batches where there is a terminal, else a line every half minute."""

    def __init__(self) -> None:
        super().__init__()
        quiet_libraries()  # before the Trainer is made, which has the most to say
        self._shown, self._phase = ExitStack(), Progress("", 0)
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def _begin(self, title: str, total: int, before: int = 0) -> None:
        self._end()
        if self._enabled:
            self._phase = self._shown.enter_context(progress(title, total, before))

    def _advance(self, count: int, note: str | None = None) -> None:
        self._phase.advance(count, note)
        if self._phase.done == self._phase.total:  # before callbacks search and evaluate, and tables are printed
            self._end()

    def _end(self) -> None:
        self._shown.close()
        self._phase = Progress("", 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_steps > 0:
            self._begin("training, steps", trainer.max_steps, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_steps <= 0:
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self._begin(f"training, {epoch}, batches", int(self.total_train_batches))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        whole = trainer.global_step if trainer.max_steps > 0 else batch_idx + 1
        self._advance(whole - self._phase.done, self._figures(trainer, pl_module))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._phase.advance(0, "validating")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_several("testing, batches", trainer.num_test_batches)

    def on_test_batch_end(self, *_: Any) -> None:
        self._advance(1)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_several("predicting, batches", trainer.num_predict_batches)

    def on_predict_batch_end(self, *_: Any) -> None:
        self._advance(1)

    def _begin_several(self, title: str, batches: Sequence[int | float]) -> None:
        """A single batch is no phase: what is done with it shows its own progress."""
        if (total := int(sum(batches))) > 1:
            self._begin(title, total)

    def _figures(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """What was logged with `prog_bar=True`, without the number of the logger's version."""
        found = self.get_metrics(trainer, pl_module)
        return ", ".join(f"{name} {value:.3f}" for name, value in found.items() if isinstance(value, float))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()
