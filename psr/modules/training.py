"""What the trained modules share: the optimizer, clipping and logging by optimizer step.

Knows Lightning, its strategies and rows. Does not know losses.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from transformers import PreTrainedModel

from psr.modules.figures import StepFigures
from psr.modules.speed import Cost, Speed, peak_flops
from psr.policy.folder import empty_trainable, export_policy, load_trainable
from psr.policy.lora import LoRA
from psr.policy.sharding import ShardedStrategy, by_mesh, gradient_norm
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs

# Every row is counted on its way to the GPU, by the module; psr's DataModules have no hook of their own there.
warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")


class RowModule(LightningModule):
    """A policy that is trained on packed rows; subclasses say with which loss.

    Args:
        model: Hugging Face folder to start from.
        lr: learning rate of AdamW.
        warmup_share: share of the optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        lora: train low-rank adapters instead of all weights.
        checkpoint_activations: compute each layer again in the backward pass, which takes less memory and more time.
        peak_tflops: what a GPU can do in bfloat16, for `train/mfu`; found by its name if not given.
    """

    def __init__(
        self,
        model: str,
        lr: float,
        warmup_share: float,
        weight_decay: float,
        lora: LoRA | None,
        checkpoint_activations: bool,
        peak_tflops: float | None,
    ) -> None:
        super().__init__()
        check_folder(model)
        self.model, self.lr, self.warmup_share, self.weight_decay = model, lr, warmup_share, weight_decay
        self.lora, self.checkpoint_activations = lora, checkpoint_activations
        self.policy: PreTrainedModel | None = None
        self.figures, self.peak_tflops = StepFigures(), peak_tflops
        self.speed: Speed | None = None

    @property
    def sharded(self) -> ShardedStrategy | None:
        """The strategy, if it is the one that shards."""
        strategy = self.trainer.strategy
        return strategy if isinstance(strategy, ShardedStrategy) else None

    def configure_model(self) -> None:
        if self.policy is not None:
            return
        if (strategy := self.sharded) is not None:
            self.policy = empty_trainable(self.model, self.lora, self.checkpoint_activations)
            strategy.shard(self, self.policy, self.model)
        else:
            self.policy = load_trainable(self.model, self.lora, self.checkpoint_activations)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count what is trained on, while it is still the host's."""
        assert self.policy is not None
        if self.trainer.training and isinstance(batch, Row):
            if self.speed is None:
                self.speed = Speed(Cost.of(self.policy), peak_flops(self.device, self.peak_tflops))
            self.speed.add(batch)
        return batch

    def on_train_epoch_start(self) -> None:
        self._pause()

    def on_validation_start(self) -> None:
        self._pause()

    def _pause(self) -> None:
        if self.speed is not None:
            self.speed.pause()

    def forward(self, row: Row, score: Callable[[PreTrainedModel, Row], Tensor] = row_logprobs) -> Tensor:
        """Log-probabilities of the row's scored tokens, or another `score` of them: (scored,)."""
        assert self.policy is not None
        return score(self.policy, row)

    def export(self, folder: str | Path) -> None:
        """Write the policy as a plain Hugging Face folder. All ranks call this, the first one writes."""
        assert self.policy is not None
        tokenizer = load_tokenizer(self.model)
        if (strategy := self.sharded) is not None:
            strategy.export(self.policy, tokenizer, folder)
        elif self.trainer.is_global_zero:
            export_policy(self.policy, tokenizer, folder)

    def rest(self) -> None:
        """Lend a server on the same GPUs, at the end of an epoch, all that the next one makes anew.

        What stays is what `psr plan` counts during a search. Gradients would otherwise live on until the next backward
        pass, and torch would keep for itself what it has freed.
        """
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad(set_to_none=True)
            if self.sharded is None:  # sharded checkpoints hold a complete state: it would only be made again
                optimizer.state.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def adamw(self) -> torch.optim.AdamW:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        fused = self.trainer.precision != "16-mixed"  # there gradients are scaled, and are clipped after unscaling only
        return torch.optim.AdamW(trained, self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay, fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Once per optimizer step: log the gradient's norm and the other figures, and clip as the Trainer says.

        Lightning's own clipping refuses fused optimizers in every mixed precision, though bfloat16 scales no gradients.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = gradient_norm([p.grad for p in parameters])
        figures: dict[str, Any] = {**self.figures.take(self._over_ranks), "grad_norm": norm}
        if self.speed is not None:
            figures |= self.speed.take(self.device)
        for name, value in figures.items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "accuracy", "tokens_per_second", "mfu"))
        if gradient_clip_val and gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val:
            for some in by_mesh(parameters):
                torch.nn.utils.clip_grads_with_norm_(some, gradient_clip_val, norm)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
