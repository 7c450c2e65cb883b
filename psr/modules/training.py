"""What the trained modules share: optimizer, gradient clipping and metrics per optimizer step.

Knows Lightning, its strategies and rows. Does not know losses.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from psr.data.switches import dev_run
from psr.modules import resuming
from psr.modules.figures import StepFigures
from psr.modules.finite import check_step
from psr.modules.speed import Cost, Speed, peak_flops
from psr.modules.standing import Standing
from psr.policy.checkpoints import WholeCheckpoints
from psr.policy.folder import empty_trainable, export_policy, load_trainable
from psr.policy.lora import adapters_off
from psr.policy.lora_settings import LoRA
from psr.policy.self_check import check_export, check_policy, check_written, tree_row
from psr.policy.sharding import ShardedStrategy, by_mesh, gradient_norm
from psr.policy.tokenizer import PolicyError, check_folder, load_tokenizer
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs
from psr.trees.step_tree import Sample

# The policy is in it on purpose: it is trained without dropout.
warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")

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
        checkpoint_activations: recompute each layer in the backward pass, which takes less memory and more time.
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
        self.rows: list[tuple[int, Tensor]] = []

    @property
    def sharded(self) -> ShardedStrategy | None:
        """The strategy, if it is the one that shards."""
        strategy = self.trainer.strategy
        return strategy if isinstance(strategy, ShardedStrategy) else None

    @property
    def _computed_in(self) -> torch.dtype:
        """The type of the weights as the forward pass sees them."""
        assert self.policy is not None
        return self.policy.dtype if self.sharded is None else self.sharded.compute_dtype

    def setup(self, stage: str) -> None:
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # another one is the user's choice
            self.trainer.strategy.checkpoint_io = WholeCheckpoints()

    def configure_callbacks(self) -> list[Callback]:
        return [Standing()]

    def settings(self) -> dict[str, Any]:
        """What a fit must keep to go on from a checkpoint, by the names of the settings."""
        lora = None if self.lora is None else str(self.lora)
        return {
            "model.lr": self.lr,
            "model.warmup_share": self.warmup_share,
            "model.weight_decay": self.weight_decay,
            "model.lora": lora,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[resuming.NAME] = self.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        resuming.check_same_settings(checkpoint, self.settings())

    def configure_model(self) -> None:
        if self.policy is not None:  # Lightning calls this once per stage
            return
        if self.trainer.precision in ("bf16-true", "16-true"):
            raise PolicyError(
                f"trainer.precision is {self.trainer.precision!r}: steps as small as a policy's are rounded away in "
                "weights of 16 bits; use bf16-mixed, which computes as fast"
            )
        if (strategy := self.sharded) is not None:
            self.policy = empty_trainable(self.model, self.lora, self.checkpoint_activations)
            strategy.shard(self, self.policy, self.model)
        else:
            self.policy = load_trainable(self.model, self.lora, self.checkpoint_activations)

    def on_fit_start(self) -> None:
        """Refuse a model that would not be trained as what it is. All ranks take part."""
        assert self.policy is not None
        check_policy(self.policy, self.model, self, self._computed_in)

    def on_train_start(self) -> None:
        """A dev run keeps nothing; ModelCheckpoint's `save_last` does not know that (Lightning 2.6)."""
        for callback in self.trainer.checkpoint_callbacks if dev_run(self.trainer) else []:
            if isinstance(callback, ModelCheckpoint):
                callback.save_last = False

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

    def note(self, row: Row, figures: dict[str, Tensor]) -> None:
        """Collect what a row says of its optimizer step, "loss" among it; tensors of any shape."""
        self.rows.append((row.number, figures["loss"].detach().sum()))
        self.figures.add(figures)

    def export(self, folder: str | Path) -> None:
        """Write the policy as a plain Hugging Face folder, and read it back. All ranks call this, the first one writes.

        Raises PolicyError where the folder's model does not compute what was trained.
        """
        assert self.policy is not None
        tokenizer = load_tokenizer(self.model)
        if (strategy := self.sharded) is not None:
            strategy.export(self.policy, tokenizer, folder)
            read_back = partial(self._read_back_shards, strategy, Path(folder))
            check_export(self.policy, Path(folder), self, self._computed_in, read_back)
        elif self.trainer.is_global_zero:
            export_policy(self.policy, tokenizer, folder)
            check_written(self.policy, Path(folder))

    def _read_back_shards(self, strategy: ShardedStrategy, folder: Path, samples: list[Sample]) -> Tensor:
        """Log-probabilities of the exported weights, which all ranks share as they do the policy's."""
        assert self.policy is not None
        self.trainer.strategy.barrier()  # until the first rank has written the folder
        with adapters_off(self.policy), strategy.other_weights(self.policy, folder):
            return self(tree_row(samples, self.policy.device))

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

        Raises DivergedError, on all ranks alike, where the loss or the norm is not finite.

        Lightning's own clipping refuses fused optimizers in every mixed precision, though bfloat16 scales no gradients.
        """
        # This hook is the one place that sees an optimizer step's gradients after accumulation and before the step.
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = gradient_norm([p.grad for p in parameters])
        figures = {**self.figures.take(self._over_ranks), "grad_norm": norm}
        self._check_finite(figures)
        measured: dict[str, Any] = {**figures, **({} if self.speed is None else self.speed.take(self.device))}
        for name, value in measured.items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "accuracy", "tokens_per_second", "mfu"))
        if gradient_clip_val and gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val:
            for some in by_mesh(parameters):  # all with the global norm, computed above once
                torch.nn.utils.clip_grads_with_norm_(some, gradient_clip_val, norm)

    def _check_finite(self, figures: dict[str, Tensor]) -> None:
        # Scaled gradients of 16-mixed overflow now and then: the scaler leaves such a step out and scales less.
        scaled = self.trainer.precision == "16-mixed"
        watched = {"loss": figures["loss"]} | ({} if scaled else {"norm of the gradient": figures["grad_norm"]})
        ran_with = {
            **self.settings(),
            "learning rate of this step": f"{self.trainer.optimizers[0].param_groups[0]['lr']:g}",
            "trainer.gradient_clip_val": self.trainer.gradient_clip_val,
            "trainer.precision": self.trainer.precision,
        }
        check_step(self.trainer.global_step + 1, watched, self.rows, ran_with)
        self.rows.clear()

    def _over_ranks(self, sums: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
