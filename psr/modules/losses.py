"""Losses as pure modules over per-completion log-probabilities. Nothing here knows a model, a tokenizer or Lightning.

Every preference loss takes the log-probabilities of a `Preferences` and returns (losses, rewards of the chosen side,
rewards of the rejected side), each (pairs,).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psr.bounds import Bounds, Positive, Weight, bounded


@dataclass(frozen=True)
class Preferences:
    """Step pairs as a loss sees them; the sides' tensors are (pairs, 2), the chosen side first.

    `policy` and `reference` are log pi and log ref summed over the tokens of the step, `lengths` its number of tokens.
    `weights` multiply the losses, `labels` are the probabilities that the chosen side is the better one; both are
    (pairs,), and all 1 where they are None.
    """

    policy: Tensor
    reference: Tensor
    lengths: Tensor
    weights: Tensor | None = None
    labels: Tensor | None = None

    @property
    def log_ratios(self) -> Tensor:
        return self.policy - self.reference


Smoothing = Annotated[float, Bounds(0, 0.5, below=True)]


class PreferenceLoss(nn.Module, ABC):
    """What all preference losses share: implicit rewards, length normalisation, the likelihood term.

    Args:
        beta: strength of the implicit KL constraint.
        nll: weight of the chosen step's negative log-likelihood per token (Pang et al. 2024, arXiv 2404.19733).
        length_normalised: log-ratios are per token instead of per step (Lambert et al. 2024, arXiv 2411.15124).
    """

    @bounded("loss")
    def __init__(self, beta: Positive = 0.1, nll: Weight = 0.0, length_normalised: bool = False) -> None:
        super().__init__()
        self.beta, self.nll, self.length_normalised = beta, nll, length_normalised

    @abstractmethod
    def compare(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The losses of pairs with these log-ratios, per step or per token; all (pairs,)."""

    def forward(self, pairs: Preferences) -> tuple[Tensor, Tensor, Tensor]:
        """Per-pair losses, and the implicit rewards beta * log(pi / ref) of both sides, without gradient."""
        # Steps differ in length, so a sum of log-ratios weighs long steps more; dividing by tokens removes that.
        ratios = pairs.log_ratios / pairs.lengths if self.length_normalised else pairs.log_ratios  # (pairs, 2)
        chosen, rejected = ratios.unbind(1)
        losses = self.compare(chosen, rejected)
        if pairs.labels is not None:  # the expected loss, over which of the two sides is the better one
            losses = pairs.labels * losses + (1 - pairs.labels) * self.compare(rejected, chosen)
        if self.nll:  # DPO lowers both likelihoods as long as the rejected one falls faster; this holds the chosen up
            losses = losses - self.nll * pairs.policy[:, 0] / pairs.lengths[:, 0]
        if pairs.weights is not None:
            losses = pairs.weights * losses
        chosen_rewards, rejected_rewards = (self.beta * ratios.detach()).unbind(1)
        return losses, chosen_rewards, rejected_rewards


class StepDPOLoss(PreferenceLoss):
    """Step-wise DPO (equations 6-8; Rafailov et al. 2023, arXiv 2305.18290), the sigmoid loss.

    Args:
        beta: strength of the implicit KL constraint.
        nll: weight of the chosen step's negative log-likelihood per token (Pang et al. 2024, arXiv 2404.19733).
        dpop: weight inside the sigmoid of max(0, log ref(chosen) - log pi(chosen)) (DPO-Positive, arXiv 2402.13228).
        label_smoothing: probability that a verdict is wrong (conservative DPO, Mitchell 2023,
            https://ericmitchell.ai/cdpo.pdf); below 0.5.
        length_normalised: log-ratios are per token instead of per step (Lambert et al. 2024, arXiv 2411.15124).
    """

    @bounded("loss")
    def __init__(
        self,
        beta: Positive = 0.1,
        nll: Weight = 0.0,
        dpop: Weight = 0.0,
        label_smoothing: Smoothing = 0.0,
        length_normalised: bool = False,
    ) -> None:
        super().__init__(beta, nll, length_normalised)
        self.dpop, self.label_smoothing = dpop, label_smoothing

    def compare(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        # `chosen` is log(pi / ref): the penalty acts only where the chosen step got less likely than in the reference.
        logits = self.beta * (chosen - rejected - self.dpop * (-chosen).clamp(min=0))
        smoothing = self.label_smoothing
        # The expected loss if a verdict is the wrong way round with this probability.
        return -(1 - smoothing) * F.logsigmoid(logits) - smoothing * F.logsigmoid(-logits)


class StepIPOLoss(PreferenceLoss):
    """IPO: the squared distance of the log-ratio margin from 1 / (2 beta) (Azar et al. 2023, arXiv 2310.12036, eq. 17).

    The margin has a finite target, while the sigmoid loss pushes it further and further where verdicts are certain.
    TRL's `ipo` is this loss with `length_normalised`, which by its comment is how the authors computed their results.
    """

    def compare(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return (chosen - rejected - 1 / (2 * self.beta)).square()


def kl_estimate(policy: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(ref || pi) on tokens sampled by the reference: pi / ref - 1 - log(pi / ref), 0 or more.

    `policy` and `reference` are log-probabilities of the tokens. Source: http://joschu.net/blog/kl-approx.html (k3).
    """
    log_ratio = policy - reference
    # Unlike -log_ratio, unbiased as well, it is never negative and has a lower variance.
    return torch.expm1(log_ratio) - log_ratio
