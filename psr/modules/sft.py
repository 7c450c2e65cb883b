"""Supervised fine-tuning as a LightningModule: the loss is on the completions only (M0 -> M1).

Knows the policy and batches of `input_ids`, `attention_mask`, `completion_mask`. Does not know what they say.
"""

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from transformers import PreTrainedModel

from psr.losses import masked_mean, token_logprobs
from psr.modules.policy import check_folder, completion_logits, export_policy, load_policy, load_tokenizer
from psr.modules.schedule import warmup_cosine


class SFTModule(LightningModule):
    """Fine-tunes the policy in a Hugging Face folder and exports it to another.

    Args:
        model: Hugging Face folder to start from.
        export_to: folder that the trained policy is written to at the end of the fit.
        lr: peak learning rate of AdamW; linear warm-up, then cosine to zero.
        warmup_share: share of all optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
    """

    def __init__(
        self,
        model: str,
        export_to: str | None = None,
        lr: float = 1e-6,
        warmup_share: float = 0.03,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_folder(model)
        self.model, self.export_to = model, export_to
        self.lr, self.warmup_share, self.weight_decay = lr, warmup_share, weight_decay
        self.policy: PreTrainedModel | None = None
        self.val_loss, self.val_accuracy = MeanMetric(), MeanMetric()

    def configure_model(self) -> None:
        if self.policy is None:
            self.policy = load_policy(self.model).train()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, total, self.warmup_share))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits where the completions are, and the `input_ids` and `completion_mask` there."""
        assert self.policy is not None
        return completion_logits(self.policy, batch)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        logits, ids, mask = self(batch)
        loss = -masked_mean(token_logprobs(logits, ids), mask[:, 1:])
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/tokens", float(batch["attention_mask"].sum()), reduce_fx="sum")
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        logits, ids, mask = self(batch)
        completion = mask[:, 1:].bool()
        self.val_loss.update(-token_logprobs(logits, ids)[completion])
        self.val_accuracy.update((logits[:, :-1].argmax(-1) == ids[:, 1:])[completion].float())
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log("val/token_accuracy", self.val_accuracy)

    def on_fit_end(self) -> None:
        if self.export_to and self.trainer.is_global_zero:
            assert self.policy is not None
            export_policy(self.policy, load_tokenizer(self.model), self.export_to)
