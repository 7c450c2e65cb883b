"""After Ctrl-C: how far the training was, and how much of it the last checkpoint holds."""

import sys

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from psr.policy.checkpoints import last_checkpoint, steps_of


class Standing(Callback):
    """Says which optimizer steps are lost when the fit is interrupted."""

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt):
            return
        made, last = trainer.global_step, last_checkpoint(trainer)
        if last is None:
            print(f"psr: {made} optimizer steps were made, and there is no checkpoint: they are lost", file=sys.stderr)
        else:
            held = steps_of(last)
            print(
                f"psr: {made} optimizer steps were made; {last} holds {held}, the {made - held} after it are lost",
                file=sys.stderr,
            )
