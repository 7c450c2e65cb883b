"""A process reward model as a LightningModule: "+" or "-" after every step of a trajectory, in one forward.

Knows packed trajectories (psr/data/prm.py) and the policy's folder format. The trained model is an ordinary causal
language model: P("+") after a step is read off the next-token distribution, by `Engine.choice_logprobs` too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryRecall, BinarySpecificity

from psr.data.prm import UNLABELLED, PRMDataModule
from psr.modules.policy import load_tokenizer
from psr.modules.sft import SFTModule
from psr.prm_encoding import PRMEncoder


class PRMModule(SFTModule):
    """Trains a model to say after every step whether it is right; exports it at the end of the fit.

    Args:
        model: Hugging Face folder to start from.
        export_to: folder that the PRM is written to.
        lr: peak learning rate of AdamW; linear warm-up, then cosine to zero.
        warmup_share: share of all optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        minus_weight: weight of the "-" labels in the loss; people rate few steps as bad.
    """

    def __init__(
        self,
        model: str,
        export_to: str | None = None,
        lr: float = 1e-5,
        warmup_share: float = 0.03,
        weight_decay: float = 0.0,
        minus_weight: float = 1.0,
    ) -> None:
        super().__init__(model, export_to, lr, warmup_share, weight_decay)
        self.save_hyperparameters()
        self.minus_weight = minus_weight
        self.labels = PRMEncoder(load_tokenizer(model)).labels
        self.figures = torch.nn.ModuleDict(
            {
                "accuracy": BinaryAccuracy(),
                "auroc": BinaryAUROC(),
                "plus_recall": BinaryRecall(),
                "minus_recall": BinarySpecificity(),
            }
        )

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """log p("+") - log p("-") and the label (1, 0) of every rated step of the batch, both (steps,)."""
        assert self.policy is not None
        rated = batch["labels"] != UNLABELLED
        hidden = self.policy.base_model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
        ).last_hidden_state[rated]
        plus, minus = F.linear(hidden, self.policy.get_output_embeddings().weight[list(self.labels)]).unbind(-1)
        return (plus - minus).float(), batch["labels"][rated]

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        logits, labels = self(batch)
        weights = torch.where(labels == 1, 1.0, self.minus_weight)
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), weight=weights, reduction="sum")
        loss = losses / weights.sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        self.log("train/accuracy", ((logits > 0) == (labels == 1)).float().mean(), batch_size=len(labels))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        logits, labels = self(batch)
        self.val_loss.update(F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none"))
        self.log("val/loss", self.val_loss, prog_bar=True)
        for name, metric in self.figures.items():
            metric.update(logits.sigmoid(), labels)  # type: ignore[operator]
            self.log(f"val/{name}", metric)  # type: ignore[arg-type]

    def on_validation_epoch_end(self) -> None:
        """Log beside the accuracy what a rule reaches that does not read the steps."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PRMDataModule)
        self.log("val/always_plus", data.baselines.always_plus)
        self.log("val/length_rule", data.baselines.length_rule)
        self.log("val/balanced_length_rule", data.baselines.balanced_length_rule)
