"""Supervised fine-tuning as a LightningModule: the loss covers only the completions (M0 -> M1).

Knows the policy and packed rows of samples. Does not know what they say.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from psr.modules.schedule import warmup_cosine
from psr.modules.training import RowModule
from psr.policy.lora import LoRA
from psr.trees.packing import Row
from psr.trees.scoring import row_hits


class SFTModule(RowModule):
    """Fine-tunes the policy in a Hugging Face folder and exports it to another.

    Args:
        model: Hugging Face folder to start from.
        export_to: folder that the trained policy is written to at the end of the fit.
        lr: peak learning rate of AdamW; linear warm-up, then cosine to zero.
        warmup_share: share of all optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        lora: train low-rank adapters instead of all weights; what is exported has them merged.
        checkpoint_activations: recompute each layer in the backward pass, which takes less memory and more time.
    """

    def __init__(
        self,
        model: str,
        export_to: str | None = None,
        lr: float = 1e-6,
        warmup_share: float = 0.03,
        weight_decay: float = 0.0,
        lora: LoRA | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(model, lr, warmup_share, weight_decay, lora, checkpoint_activations)
        self.save_hyperparameters()
        self.export_to = export_to
        self.val_loss, self.val_accuracy = MeanMetric(), MeanMetric()

    @cached_property
    def scheduled_steps(self) -> int:
        """Optimizer steps over all epochs; Lightning has divided by the accumulated rows already."""
        return int(self.trainer.estimated_stepping_batches)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "the number of optimizer steps of the schedule": self.scheduled_steps}

    def configure_optimizers(self) -> Any:
        optimizer = self.adamw()
        total = self.scheduled_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, total, self.warmup_share))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, row: Row, row_number: int) -> Tensor:
        losses = -self(row)  # (scored,): prompts are not scored, so they are masked out of the loss
        self.note(row, {"loss": losses})
        self.log("train/tokens", float(len(row.token_ids)), reduce_fx="sum", batch_size=1)
        return row.share * losses.sum()

    def validation_step(self, row: Row, row_number: int) -> None:
        # Token means over the whole validation set; Lightning's own mean would weight every row alike.
        self.val_loss.update(-self(row))
        self.val_accuracy.update(self(row, row_hits).float())
        self.log("val/loss", self.val_loss, prog_bar=True, batch_size=1)
        self.log("val/token_accuracy", self.val_accuracy, batch_size=1)

    def on_fit_end(self) -> None:
        if self.export_to:
            self.export(self.export_to)
