"""A process reward model as a LightningModule: "+" or "-" after every step of a solution, all in one forward.

Knows packed rows of labelled steps (psr/data/prm.py) and the policy's folder format. The trained model is an ordinary
causal language model: P("+") after a step is read off the next-token distribution, by `Engine.choice_logprobs` too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryRecall, BinarySpecificity
from transformers import PreTrainedModel

from psr.data.prm import PRMDataModule
from psr.modules.sft import SFTModule
from psr.policy.lora import LoRA
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.prm import PRMEncoder
from psr.trees.packing import Row
from psr.trees.scoring import by_chunks


class PRMModule(SFTModule):
    """Trains a model to say after every step whether it is right; exports it at the end of the fit.

    Args:
        model: Hugging Face folder to start from.
        export_to: folder that the PRM is written to.
        lr: peak learning rate of AdamW; linear warm-up, then cosine to zero.
        warmup_share: share of all optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        minus_weight: weight of "-" labels in the loss; people rate few steps as bad.
        lora: train low-rank adapters instead of all weights; what is exported has them merged.
        checkpoint_activations: recompute each layer in the backward pass, which takes less memory and more time.
    """

    def __init__(
        self,
        model: str,
        export_to: str | None = None,
        lr: float = 1e-5,
        warmup_share: float = 0.03,
        weight_decay: float = 0.0,
        minus_weight: float = 1.0,
        lora: LoRA | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(model, export_to, lr, warmup_share, weight_decay, lora, checkpoint_activations)
        self.save_hyperparameters()
        self.minus_weight = minus_weight
        self.labels = PRMEncoder(load_tokenizer(model)).labels
        self.measures = torch.nn.ModuleDict(
            {
                "accuracy": BinaryAccuracy(),
                "auroc": BinaryAUROC(),
                "plus_recall": BinaryRecall(),
                "minus_recall": BinarySpecificity(),
            }
        )

    def rated(self, row: Row) -> tuple[Tensor, Tensor]:
        """log p("+") - log p("-") in float32 and the label (1 or 0) of every rated step of the row, both (steps,)."""
        plus, minus = self(row, self._label_logits)[row.members].unbind(-1)
        return plus - minus, (row.targets[row.members] == self.labels[0]).long()

    def _label_logits(self, policy: PreTrainedModel, row: Row) -> Tensor:
        """The logits of "+" and "-" in float32 where a scored token is predicted: (scored, 2)."""
        return by_chunks(policy, row, lambda logits, _: logits[:, list(self.labels)].float())

    def training_step(self, row: Row, row_number: int) -> Tensor:
        logits, labels = self.rated(row)
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        losses = torch.where(labels == 1, 1.0, self.minus_weight) * losses
        self.note(row, {"loss": losses, "accuracy": ((logits > 0) == (labels == 1)).float()})
        self.log("train/tokens", float(len(row.token_ids)), reduce_fx="sum", batch_size=1)
        return row.share * losses.sum()

    def validation_step(self, row: Row, row_number: int) -> None:
        logits, labels = self.rated(row)
        self.val_loss.update(F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none"))
        self.log("val/loss", self.val_loss, prog_bar=True, batch_size=1)
        for name, measure in self.measures.items():
            measure.update(logits.sigmoid(), labels)  # type: ignore[operator]
            self.log(f"val/{name}", measure, batch_size=1)  # type: ignore[arg-type]

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of rules that do not read the steps beside that of the PRM."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PRMDataModule)
        self.log("val/always_plus", data.baselines.always_plus)
        self.log("val/length_rule", data.baselines.length_rule)
        self.log("val/balanced_length_rule", data.baselines.balanced_length_rule)
