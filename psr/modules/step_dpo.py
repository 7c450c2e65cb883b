"""Step-wise DPO as a LightningModule (equations 6-8): one epoch is one iteration, M(n) -> M(n + 1).

Knows the policy and packed rows of step pairs. At the start of every epoch the reference is reset: log-probabilities of
all pairs are computed once with the current weights, so no second model stays in memory. Does not know who searched or
judged.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from psr.bounds import Positive, Share, Weight, bounded
from psr.data.rows import PlannedRows, RowsOf
from psr.modules.losses import PreferenceLoss, Preferences, StepDPOLoss, kl_estimate
from psr.modules.reference import reference_logprobs
from psr.modules.schedule import warmup_constant
from psr.modules.training import RowModule
from psr.policy.folder import load_trainable
from psr.policy.lora import adapters_off
from psr.policy.lora_settings import LoRA
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs


class StepDPOModule(RowModule):
    """Trains the policy on step pairs, iteration after iteration.

    Args:
        model: Hugging Face folder of M1.
        lr: learning rate of AdamW; linear warm-up within every iteration, then constant.
        warmup_share: share of an iteration's optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        reference: "previous" compares with M(n), the policy at the start of the iteration; "initial" always with M1.
        loss: which loss, its strength and extra terms.
        lora: train low-rank adapters instead of all weights; every exported M(n) has them merged.
        checkpoint_activations: recompute each layer in the backward pass, which takes less memory and more time.
        peak_tflops: what a GPU can do in bfloat16, for `train/mfu`; found by its name if not given.
    """

    @bounded("model")
    def __init__(
        self,
        model: str,
        lr: Weight = 5e-7,
        warmup_share: Share = 0.03,
        weight_decay: Weight = 0.0,
        reference: Literal["previous", "initial"] = "previous",
        loss: PreferenceLoss | None = None,
        lora: LoRA | None = None,
        checkpoint_activations: bool = False,
        peak_tflops: Positive | None = None,
    ) -> None:
        super().__init__(model, lr, warmup_share, weight_decay, lora, checkpoint_activations, peak_tflops)
        self.save_hyperparameters(ignore=["loss"])
        self.reference, self.loss = reference, loss or StepDPOLoss()
        self.reference_logprobs: dict[int, Tensor] = {}
        self.counts: Tensor | None = None

    def settings(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self.loss).items() if isinstance(value, (bool, int, float, str))}
        own = {f"model.loss.{name}": value for name, value in plain.items() if name != "training" and name[0] != "_"}
        return {**super().settings(), "model.reference": self.reference, "model.loss": type(self.loss).__name__, **own}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adamw()

    def on_train_epoch_start(self) -> None:
        """Reset the reference and, with it, the optimizer's state."""
        super().on_train_epoch_start()
        # AdamW's moments are of the last iteration's loss, whose reference was another.
        self.trainer.optimizers[0].state.clear()
        loader = self.trainer.train_dataloader
        dataset = loader.dataset  # type: ignore[union-attr]
        assert isinstance(dataset, PlannedRows)
        # By the sampler, not the loader: this pass must not count as served rows, which a resume would skip.
        numbers = list(loader.sampler)  # type: ignore[union-attr]
        found = self.compute_reference(RowsOf(dataset, numbers), dataset.store)
        self.reference_logprobs = dict(zip(numbers, found, strict=True))
        self.counts = dataset.counts

    def compute_reference(self, rows: Iterable[Row], store: Path | None) -> list[Tensor]:
        """The reference's log-probabilities of the scored tokens of `rows`, which are this rank's."""
        assert self.policy is not None
        policy: PreTrainedModel = self.policy
        score: Callable[[PreTrainedModel, Row], Tensor] = lambda _, row: self(row)  # noqa: E731 of whole weights
        scope: AbstractContextManager[None] = nullcontext()
        # "previous" is the policy as it is now. M1 is, from the cheapest: the policy without its adapters; the policy
        # with M1's shards read into it; a second model, which goes out of scope after this call.
        if self.reference == "initial" and self.lora is not None:
            scope = adapters_off(policy)
        elif self.reference == "initial" and (strategy := self.sharded) is not None:
            scope = strategy.other_weights(policy, self.model)
        elif self.reference == "initial":
            policy, score = load_trainable(self.model), row_logprobs
            torch.nn.Module.to(policy, self.device)
        conditions = f"{self.trainer.precision}, {self.reference}"  # the adapters count in "previous" alone
        # In the precision of training, so that at the first step every pi / ref is 1.
        with scope, self.trainer.precision_plugin.forward_context():
            return reference_logprobs(policy, rows, self.device, conditions, store, score, self._everywhere)

    def _everywhere(self, condition: bool) -> bool:
        """Whether `condition` holds on all ranks."""
        failing = torch.tensor(float(not condition), device=self.device)
        return float(self.trainer.strategy.reduce(failing, reduce_op="sum")) == 0.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Set by hand: Lightning's schedulers count over the whole fit, and every iteration warms up anew.
        rows = self.trainer.accumulate_grad_batches
        total = -(-int(self.trainer.num_training_batches) // rows)  # optimizer steps of the iteration, rounded up
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * warmup_constant(batch_idx // rows, total, self.warmup_share)

    def training_step(self, row: Row, row_number: int) -> Tensor:
        logprobs = self(row)  # (scored,)
        reference = self.reference_logprobs[row.number].to(logprobs.device)
        # A unit's completions are chosen, rejected: (2 * pairs,) becomes (pairs, 2).
        sums, reference_sums = (row.completion_sums(values).view(-1, 2) for values in (logprobs, reference))
        weights = labels = None
        if self.counts is not None:
            weights, labels = self.counts[row.units.cpu()].to(logprobs.device).unbind(1)
        pairs = Preferences(sums, reference_sums, row.lengths.view(-1, 2), weights, labels)
        losses, chosen_rewards, rejected_rewards = self.loss(pairs)
        self.note(
            row,
            {
                "loss": losses,
                "accuracy": (chosen_rewards > rejected_rewards).float(),
                "margin": chosen_rewards - rejected_rewards,
                "reward_chosen": chosen_rewards,
                "reward_rejected": rejected_rewards,
                "logprob_chosen": pairs.policy[:, 0],
                "logprob_rejected": pairs.policy[:, 1],
                "kl_to_reference": kl_estimate(logprobs.detach(), reference),
            },
        )
        return row.share * losses.sum()  # a sum, as the share divides by the pairs of the whole optimizer step
