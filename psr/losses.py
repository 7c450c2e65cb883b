"""Losses as pure modules over per-sequence log-probabilities. Nothing here knows a model, a tokenizer or Lightning."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def token_logprobs(logits: Tensor, input_ids: Tensor) -> Tensor:
    """log p(token t | tokens before t), in float32: (rows, length - 1) for logits (rows, length, vocabulary)."""
    rows, targets = logits[:, :-1].flatten(0, 1).float(), input_ids[:, 1:]
    return -F.cross_entropy(rows, targets.flatten(), reduction="none").view(targets.shape)


def completion_logprobs(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Sum over the completion's tokens of log p(token | before): (rows,). The mask is (rows, length)."""
    return (token_logprobs(logits, input_ids) * completion_mask[:, 1:]).sum(-1)


class StepDPOLoss(nn.Module):
    """Step-wise DPO (equations 6-8), with two optional terms that hold the likelihood of the chosen step up.

    Args:
        beta: strength of the implicit KL constraint.
        nll: weight of the chosen step's negative log-likelihood per token (Pang et al. 2024, arXiv 2404.19733).
        dpop: weight inside the sigmoid of max(0, log ref(chosen) - log pi(chosen)) (DPO-Positive, arXiv 2402.13228).
    """

    def __init__(self, beta: float = 0.1, nll: float = 0.0, dpop: float = 0.0) -> None:
        super().__init__()
        for name, value, low in (("beta", beta, 0.0), ("nll", nll, -1e-9), ("dpop", dpop, -1e-9)):
            if value <= low:
                raise ValueError(f"loss.{name} is {value}: it must be {'positive' if low == 0 else '0 or more'}")
        self.beta, self.nll, self.dpop = beta, nll, dpop

    def forward(
        self, chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, chosen_lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Per-pair losses and the implicit rewards beta * log(pi / ref) of both sides; all arguments are (pairs,)."""
        chosen_rewards = self.beta * (chosen - ref_chosen)
        rejected_rewards = self.beta * (rejected - ref_rejected)
        logits = chosen_rewards - rejected_rewards
        if self.dpop:
            logits = logits - self.beta * self.dpop * (ref_chosen - chosen).clamp(min=0)
        losses = -F.logsigmoid(logits)
        if self.nll:
            losses = losses - self.nll * chosen / chosen_lengths.clamp(min=1)
        return losses, chosen_rewards.detach(), rejected_rewards.detach()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` is 1; 0 where it is 1 nowhere."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / torch.clamp(mask.sum(), min=1)
