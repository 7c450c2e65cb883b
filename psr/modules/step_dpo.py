"""Step-wise DPO as a LightningModule (equations 6-8): one epoch is one iteration, M(n) -> M(n + 1).

Knows the policy and batches of step pairs. At the start of every epoch the reference is reset: its log-probabilities of
all pairs are computed once with the weights of that moment, so no second model stays in memory. Does not know who
searched or judged.
"""

from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor
from transformers import PreTrainedModel

from psr.losses import StepDPOLoss, completion_logprobs
from psr.modules.policy import check_folder, completion_logits, load_policy
from psr.modules.schedule import warmup_constant


class StepDPOModule(LightningModule):
    """Trains the policy on step pairs, iteration after iteration.

    Args:
        model: Hugging Face folder of M1.
        lr: learning rate of AdamW; linear warm-up within every iteration, then constant.
        warmup_share: share of an iteration's optimizer steps that warms up.
        weight_decay: AdamW's decoupled weight decay.
        reference: "previous" compares with M(n), the policy at the start of the iteration; "initial" always with M1.
        loss: strength and extra terms of the loss.
    """

    def __init__(
        self,
        model: str,
        lr: float = 5e-7,
        warmup_share: float = 0.03,
        weight_decay: float = 0.0,
        reference: Literal["previous", "initial"] = "previous",
        loss: StepDPOLoss | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["loss"])
        check_folder(model)
        self.model, self.lr, self.warmup_share, self.weight_decay = model, lr, warmup_share, weight_decay
        self.reference, self.loss = reference, loss or StepDPOLoss()
        self.policy: PreTrainedModel | None = None
        self.reference_logprobs = torch.empty(0, 2)

    def configure_model(self) -> None:
        if self.policy is None:
            self.policy = load_policy(self.model).train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Log-probabilities of the completions (rows,)."""
        assert self.policy is not None
        return sequence_logprobs(self.policy, batch)

    def on_train_epoch_start(self) -> None:
        """Reset the reference and, with it, the optimizer's state."""
        self.trainer.optimizers[0].state.clear()
        assert self.policy is not None
        same = self.reference == "previous"
        reference = self.policy if same else load_policy(self.model, self.policy.dtype, self.device)
        with self.trainer.precision_plugin.forward_context():  # rounded as in training: a ratio starts at exactly 1
            self.reference_logprobs = reference_logprobs(reference, self.trainer.train_dataloader, self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        accumulate = self.trainer.accumulate_grad_batches
        total = -(-int(self.trainer.num_training_batches) // accumulate)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * warmup_constant(batch_idx // accumulate, total, self.warmup_share)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        chosen, rejected = self(batch).chunk(2)
        ref_chosen, ref_rejected = self.reference_logprobs[batch["index"].cpu()].to(chosen.device).unbind(1)
        lengths = batch["completion_mask"].sum(-1).chunk(2)[0]
        losses, chosen_rewards, rejected_rewards = self.loss(chosen, rejected, ref_chosen, ref_rejected, lengths)
        pairs = len(chosen)
        figures = {
            "loss": losses.mean(),
            "accuracy": (chosen_rewards > rejected_rewards).float().mean(),
            "margin": (chosen_rewards - rejected_rewards).mean(),
            "reward_chosen": chosen_rewards.mean(),
            "reward_rejected": rejected_rewards.mean(),
            "logprob_chosen": chosen.detach().mean(),
            "logprob_rejected": rejected.detach().mean(),
        }
        for name, value in figures.items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "accuracy"), batch_size=pairs)
        return figures["loss"]


def sequence_logprobs(policy: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """log p(completion | prompt) of every row, in float32: (rows,)."""
    return completion_logprobs(*completion_logits(policy, batch))


@torch.no_grad()
def reference_logprobs(policy: PreTrainedModel, batches: Any, device: torch.device) -> Tensor:
    """Reference log-probabilities of (chosen, rejected) of every pair, by the pair's index: (pairs, 2) on the CPU."""
    training = policy.training
    policy.eval()
    indices, values = [], []
    for batch in batches:
        on_device = {name: tensor.to(device) for name, tensor in batch.items()}
        values.append(torch.stack(sequence_logprobs(policy, on_device).chunk(2), dim=1).cpu())
        indices.append(batch["index"])
    policy.train(training)
    ordered = torch.empty(sum(map(len, indices)), 2)
    ordered[torch.cat(indices)] = torch.cat(values).float()
    return ordered
