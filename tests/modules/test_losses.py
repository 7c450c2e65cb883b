"""Losses against hand-worked values and, through a real model, the paper's formula (equations 6-8) and its gradient."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from psr.modules.losses import PreferenceLoss, Preferences, StepDPOLoss, StepIPOLoss, kl_estimate
from psr.prompts.encoder import Encoder
from psr.trees.attention import use_tree_attention
from psr.trees.scoring import row_logprobs
from psr.trees.step_tree import Sample
from tests import pair_by_pair
from tests.trees.test_step_tree import row_of

# Two pairs. Log-ratios of the chosen: -2 and 3, of the rejected: 0.5 and -3, so the margins are -2.5 and 6.
PAIRS = Preferences(
    policy=torch.tensor([[-3.0, -2.0], [-1.0, -5.0]]),
    reference=torch.tensor([[-1.0, -2.5], [-4.0, -2.0]]),
    lengths=torch.tensor([[2, 5], [4, 3]]),
)


def losses_of(loss: PreferenceLoss, pairs: Preferences = PAIRS) -> list[float]:
    return loss(pairs)[0].tolist()


def test_dpo():
    """arXiv 2305.18290, equation 7: log(1 + e^-(beta * margin)) = log(1 + e^0.25), log(1 + e^-0.6)."""
    assert losses_of(StepDPOLoss(0.1)) == pytest.approx([0.825939, 0.437488], abs=1e-6)


def test_cdpo():
    """Mitchell 2023, equation 3: 0.9 * 0.825939 + 0.1 * log(1 + e^-0.25); 0.9 * 0.437488 + 0.1 * log(1 + e^0.6)."""
    assert losses_of(StepDPOLoss(0.1, label_smoothing=0.1)) == pytest.approx([0.800939, 0.497488], abs=1e-6)


def test_dpop():
    """arXiv 2402.13228: 5 * max(0, 2) is taken off the first margin: log(1 + e^1.25); the second is DPO."""
    assert losses_of(StepDPOLoss(0.1, dpop=5.0)) == pytest.approx([1.501929, 0.437488], abs=1e-6)


def test_ipo():
    """arXiv 2310.12036, equation 17: (margin - 1 / (2 * 0.1))^2 = (-2.5 - 5)^2, (6 - 5)^2."""
    assert losses_of(StepIPOLoss(0.1)) == pytest.approx([56.25, 1.0])


@pytest.mark.parametrize("loss", [StepDPOLoss, StepIPOLoss])
def test_nll(loss: type[PreferenceLoss]):
    """arXiv 2404.19733: half of -log pi(chosen) per token, 0.5 * 3 / 2 and 0.5 * 1 / 4, is added."""
    plain, with_nll = losses_of(loss(0.1)), losses_of(loss(0.1, nll=0.5))
    assert [b - a for a, b in zip(plain, with_nll, strict=True)] == pytest.approx([0.75, 0.125])


def test_length_normalised():
    """arXiv 2411.15124: margins -2/2 - 0.5/5 = -1.1 and 3/4 + 3/3 = 1.75."""
    expected = [math.log1p(math.exp(0.11)), math.log1p(math.exp(-0.175))]
    assert losses_of(StepDPOLoss(0.1, length_normalised=True)) == pytest.approx(expected)
    assert losses_of(StepIPOLoss(0.1, length_normalised=True)) == pytest.approx([37.21, 10.5625])
    _, chosen, rejected = StepDPOLoss(0.1, length_normalised=True)(PAIRS)
    assert (chosen - rejected).tolist() == pytest.approx([-0.11, 0.175])


@pytest.mark.parametrize("loss", [StepDPOLoss(0.1, nll=1.0, dpop=2.0), StepIPOLoss(0.1, nll=1.0)])
def test_rewards_are_beta_times_the_log_ratio_and_carry_no_gradient(loss: PreferenceLoss):
    policy = PAIRS.policy.clone().requires_grad_()
    losses, chosen_rewards, rejected_rewards = loss(Preferences(policy, PAIRS.reference, PAIRS.lengths))
    assert chosen_rewards.tolist() == pytest.approx([-0.2, 0.3])
    assert rejected_rewards.tolist() == pytest.approx([0.05, -0.3])
    assert losses.requires_grad and not chosen_rewards.requires_grad and not rejected_rewards.requires_grad


def test_a_policy_that_is_its_reference_loses_log_two_whatever_beta():
    same = Preferences(PAIRS.policy, PAIRS.policy, PAIRS.lengths)
    for beta in (0.01, 0.1, 2.0):
        assert losses_of(StepDPOLoss(beta), same) == pytest.approx([math.log(2)] * 2)


def test_extreme_margins_stay_finite():
    far = Preferences(torch.tensor([[-1e5, 1e5], [1e5, -1e5]]), PAIRS.reference, PAIRS.lengths)
    losses = StepDPOLoss(1.0, label_smoothing=0.1)(far)[0]
    assert torch.isfinite(losses).all()
    plain = StepDPOLoss(1.0)(far)[0]
    assert torch.allclose(plain, -F.logsigmoid(torch.tensor([-2e5 + 1.0 - 2.5, 2e5 + 4.0 - 2.0])), rtol=1e-4)


def test_the_kl_estimate_is_never_negative_and_its_mean_over_the_reference_is_the_kl():
    """One token of a vocabulary of three; http://joschu.net/blog/kl-approx.html, the estimator k3."""
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.25, 0.35, 0.4])
    estimates = kl_estimate(policy.log(), reference.log())
    assert estimates[0].item() == pytest.approx(2 - 1 - math.log(2))
    assert (estimates >= 0).all()
    kl = (reference * (reference / policy).log()).sum()
    assert (reference * estimates).sum().item() == pytest.approx(kl.item())


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        (StepDPOLoss, {"beta": 0.0}, r"loss\.beta is 0\.0: it must be above 0"),
        (StepDPOLoss, {"beta": -1.0}, r"loss\.beta is -1\.0"),
        (StepDPOLoss, {"nll": -0.1}, r"loss\.nll is -0\.1: it must be at least 0"),
        (StepDPOLoss, {"dpop": -2.0}, r"loss\.dpop is -2\.0"),
        (StepDPOLoss, {"label_smoothing": 0.5}, r"loss\.label_smoothing is 0\.5: it must be at least 0 and below 0\.5"),
        (StepDPOLoss, {"label_smoothing": -0.1}, r"loss\.label_smoothing is -0\.1"),
        (StepIPOLoss, {"beta": 0.0}, r"loss\.beta is 0\.0: it must be above 0"),
    ],
)
def test_a_strength_that_cannot_work_is_named(loss: type[PreferenceLoss], settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        loss(**settings)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_loss_and_gradient_of_every_parameter_follow_the_papers_formula(encoder: Encoder, policy: Path, beta: float):
    """The formula as it stands in the paper, sequence by sequence, against the packed rows; in float64."""
    prompts = [encoder.reason("3+4-5"), (*encoder.reason("3+4-5"), *encoder.plain("3+4=7\n")), encoder.reason("9")]
    chosen = [
        encoder.completion(text, final) for text, final in (("3+4=7\n", False), ("7 \\boxed{7}", True), ("9", True))
    ]
    rejected = [encoder.completion(text, final) for text, final in (("3", True), ("7:;.?\n", False), ("8\n", False))]
    pairs = [[Sample(p, c), Sample(p, r)] for p, c, r in zip(prompts, chosen, rejected, strict=True)]

    exact_reference = pair_by_pair.exact_policy(policy)
    exact = copy.deepcopy(exact_reference)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a policy that has moved away from its reference
        for parameter in exact.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    ours, our_reference = (use_tree_attention(copy.deepcopy(model)) for model in (exact, exact_reference))

    total, margins = torch.zeros((), dtype=torch.float64), []
    for best, worst in pairs:
        won, lost = (log_ratio(exact, exact_reference, sample) for sample in (best, worst))
        margins.append(abs((won - lost).item()))
        total = total - torch.log(torch.sigmoid(beta * won - beta * lost))
    expected = total / len(pairs)
    expected.backward()

    row = row_of(pairs[:2], pairs[2:])
    with torch.no_grad():
        reference = row.completion_sums(row_logprobs(our_reference, row)).view(-1, 2)
    sums = row.completion_sums(row_logprobs(ours, row)).view(-1, 2)
    losses, _, _ = StepDPOLoss(beta)(Preferences(sums, reference, row.lengths.view(-1, 2)))
    losses.mean().backward()

    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-12)
    assert min(margins) > 0.01, "the policy equals its reference: the test proves too little"
    wanted = dict(exact.named_parameters())
    assert len(wanted) >= 20
    for name, got in ours.named_parameters():
        want = wanted[name].grad
        assert got.grad is not None and want is not None, name
        assert want.norm() > 1e-6, name
        assert (got.grad - want).norm() < 1e-10 * want.norm(), name


def log_ratio(policy: Any, reference: Any, sample: Sample) -> Tensor:
    """log pi(completion | prompt) - log ref(completion | prompt)."""
    with torch.no_grad():
        frozen = pair_by_pair.logprobs(reference, sample).sum()
    return pair_by_pair.logprobs(policy, sample).sum() - frozen


@pytest.mark.parametrize("loss", [StepDPOLoss(0.1, nll=0.5, dpop=2.0), StepIPOLoss(0.1, nll=0.5)])
def test_weights_multiply_the_loss_of_a_pair(loss: PreferenceLoss):
    weighted = replace(PAIRS, weights=torch.tensor([0.2, 1.0]))
    plain = losses_of(loss)
    assert losses_of(loss, weighted) == pytest.approx([0.2 * plain[0], plain[1]])


def test_soft_labels_are_the_probability_that_the_chosen_side_is_better():
    """0.9 * 0.825939 + 0.1 * log(1 + e^-0.25), as with label_smoothing 0.1; the second label is certain."""
    soft = replace(PAIRS, labels=torch.tensor([0.9, 1.0]))
    assert losses_of(StepDPOLoss(0.1), soft) == pytest.approx([0.800939, 0.437488], abs=1e-6)
    # IPO: 0.9 * (-2.5 - 5)^2 + 0.1 * (2.5 - 5)^2
    assert losses_of(StepIPOLoss(0.1), soft) == pytest.approx([51.25, 1.0])


@pytest.mark.parametrize("loss", [StepDPOLoss(0.1, dpop=2.0), StepIPOLoss(0.1)])
def test_an_even_label_prefers_neither_side(loss: PreferenceLoss):
    even = replace(PAIRS, labels=torch.tensor([0.5, 0.5]))
    turned = Preferences(PAIRS.policy.flip(1), PAIRS.reference.flip(1), PAIRS.lengths.flip(1), labels=even.labels)
    assert losses_of(loss, even) == pytest.approx(losses_of(loss, turned))
