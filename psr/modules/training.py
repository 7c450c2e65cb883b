"""What the trained modules share: optimizer, gradient clipping and metrics per optimizer step.

Knows Lightning, its strategies and rows. Does not know losses.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from psr.modules.figures import StepFigures
from psr.policy.folder import empty_trainable, export_policy, load_trainable
from psr.policy.lora import LoRA
from psr.policy.sharding import ShardedStrategy, by_mesh, gradient_norm
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs


class RowModule(LightningModule):
    """A policy that is trained on packed rows; subclasses say with which loss.

    Args:
        model: Hugging Face folder to start from.
        lr: learning rate of AdamW.
        warmup_share: share of the optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        lora: train low-rank adapters instead of all weights.
        checkpoint_activations: recompute each layer in the backward pass, which takes less memory and more time.
    """

    def __init__(
        self,
        model: str,
        lr: float,
        warmup_share: float,
        weight_decay: float,
        lora: LoRA | None,
        checkpoint_activations: bool,
    ) -> None:
        super().__init__()
        check_folder(model)
        self.model, self.lr, self.warmup_share, self.weight_decay = model, lr, warmup_share, weight_decay
        self.lora, self.checkpoint_activations = lora, checkpoint_activations
        self.policy: PreTrainedModel | None = None
        self.figures = StepFigures()

    @property
    def sharded(self) -> ShardedStrategy | None:
        """The strategy, if it is the one that shards."""
        strategy = self.trainer.strategy
        return strategy if isinstance(strategy, ShardedStrategy) else None

    def configure_model(self) -> None:
        if self.policy is not None:  # Lightning calls this once per stage
            return
        # Here and not in __init__: only now does the strategy exist, and with it the mesh to shard over.
        if (strategy := self.sharded) is not None:
            self.policy = empty_trainable(self.model, self.lora, self.checkpoint_activations)
            strategy.shard(self, self.policy, self.model)
        else:
            self.policy = load_trainable(self.model, self.lora, self.checkpoint_activations)

    def forward(self, row: Row, score: Callable[[PreTrainedModel, Row], Tensor] = row_logprobs) -> Tensor:
        """Log-probabilities of the row's scored tokens, or another `score` of them: (scored,)."""
        assert self.policy is not None
        return score(self.policy, row)

    def export(self, folder: str | Path) -> None:
        """Write the policy as a plain Hugging Face folder. All ranks call this, rank 0 writes."""
        assert self.policy is not None
        tokenizer = load_tokenizer(self.model)
        if (strategy := self.sharded) is not None:
            strategy.export(self.policy, tokenizer, folder)
        elif self.trainer.is_global_zero:
            export_policy(self.policy, tokenizer, folder)

    def trained_parts(self) -> list[Tensor]:
        """What this rank holds of all trained parameters; writing to these changes the policy."""
        parts = [parameter.detach() for parameter in self.parameters() if parameter.requires_grad]
        return [part.to_local() if isinstance(part, DTensor) else part for part in parts]

    def adamw(self) -> torch.optim.AdamW:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        fused = self.trainer.precision != "16-mixed"  # a fused step unscales gradients itself, after they were clipped
        return torch.optim.AdamW(trained, self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay, fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Once per optimizer step: log the gradient norm and the other metrics, and clip as the Trainer says.

        Lightning's own clipping refuses fused optimizers in every mixed precision, though bfloat16 scales no gradients.
        """
        # This hook is the one place that sees an optimizer step's gradients after accumulation and before the step.
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = gradient_norm([p.grad for p in parameters])
        figures: dict[str, Any] = {**self.figures.take(self._over_ranks), "grad_norm": norm}
        for name, value in figures.items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "accuracy"))
        if gradient_clip_val and gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val:
            for some in by_mesh(parameters):  # all with the global norm, computed above once
                torch.nn.utils.clip_grads_with_norm_(some, gradient_clip_val, norm)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
