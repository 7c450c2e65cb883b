"""Losses against loops and against the paper's formula (equations 6-8), the gradient through a real model included."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from psr.data.batching import Sample, pad
from psr.encoding import Encoder
from psr.losses import StepDPOLoss, completion_logprobs, masked_mean, token_logprobs
from psr.modules.step_dpo import sequence_logprobs


def random_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator) * 3
    ids = torch.randint(11, (3, 6), generator=generator)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0]])
    return logits, ids, mask


def test_token_logprobs_are_those_of_the_next_token():
    logits, ids, _ = random_batch()
    got = token_logprobs(logits, ids)
    assert got.shape == (3, 5)
    for row in range(3):
        for t in range(5):
            exponentials = logits[row, t].double().exp()
            expected = math.log(exponentials[ids[row, t + 1]] / exponentials.sum())
            assert got[row, t].item() == pytest.approx(expected, abs=1e-5)


def test_token_logprobs_of_bfloat16_logits_are_computed_in_float32():
    logits, ids, _ = random_batch()
    rounded = logits.bfloat16()
    got = token_logprobs(rounded, ids)
    assert got.dtype == torch.float32
    assert torch.allclose(got, token_logprobs(rounded.float(), ids))


def test_completion_logprobs_sum_over_the_completion_alone():
    logits, ids, mask = random_batch()
    each = token_logprobs(logits, ids)
    got = completion_logprobs(logits, ids, mask)
    for row in range(3):
        expected = sum(each[row, t - 1].item() for t in range(1, 6) if mask[row, t])
        assert got[row].item() == pytest.approx(expected, abs=1e-5)


def test_masked_mean_sees_only_what_the_mask_shows():
    values = torch.tensor([1.0, 5.0, 3.0])
    assert masked_mean(values, torch.tensor([1, 0, 1])) == 2.0
    assert masked_mean(values, torch.tensor([0, 0, 0])) == 0.0


def reference_logprob(model: PreTrainedModel, sample: Sample) -> Tensor:
    """log p(completion | prompt) of one sequence, token by token, without padding."""
    ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
    logits = model(ids).logits[0]
    total = torch.zeros((), dtype=logits.dtype)
    for t in range(len(sample.prompt_ids), len(sample)):
        total = total + logits[t - 1].log_softmax(-1)[ids[0, t]]
    return total


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_loss_and_gradient_of_every_parameter_follow_the_papers_formula(encoder: Encoder, policy: Path, beta: float):
    prompts = [encoder.reason("3+4-5"), (*encoder.reason("13+4"), *encoder.plain("13+4=17\n")), encoder.reason("9")]
    chosen = [
        encoder.completion(text, final) for text, final in (("3+4=7\n", False), ("17 \\boxed{17}", True), ("9", True))
    ]
    rejected = [
        encoder.completion(text, final) for text, final in (("3", True), ("13+4=18:;.?\n", False), ("8\n", False))
    ]
    pairs = [(Sample(p, c), Sample(p, r)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]

    model = AutoModelForCausalLM.from_pretrained(str(policy), dtype=torch.float32).eval()
    frozen = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a policy that has moved away from its reference
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    exact, exact_frozen = copy.deepcopy(model).double(), copy.deepcopy(frozen).double()

    total, margins = torch.zeros((), dtype=torch.float64), []
    for best, worst in pairs:
        won = reference_logprob(exact, best) - reference_logprob(exact_frozen, best)
        lost = reference_logprob(exact, worst) - reference_logprob(exact_frozen, worst)
        margins.append(abs((won - lost).item()))
        total = total - torch.log(torch.sigmoid(beta * won - beta * lost))
    expected = total / len(pairs)
    expected.backward()

    batch = pad([c for c, _ in pairs] + [r for _, r in pairs])
    with torch.no_grad():
        ref_chosen, ref_rejected = sequence_logprobs(frozen, batch).chunk(2)
    pi_chosen, pi_rejected = sequence_logprobs(model, batch).chunk(2)
    lengths = torch.tensor([len(ids) for ids in chosen])
    losses, _, _ = StepDPOLoss(beta)(pi_chosen, pi_rejected, ref_chosen, ref_rejected, lengths)
    losses.mean().backward()

    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-4)
    assert min(margins) > 0.01, "the policy equals its reference: the test proves too little"
    names = [name for name, _ in model.named_parameters()]
    assert len(names) >= 20
    for name, got in model.named_parameters():
        want = exact.get_parameter(name).grad
        assert got.grad is not None and want is not None, name
        assert want.norm() > 1e-6, name
        assert (got.grad.double() - want).norm() < 1e-3 * want.norm(), name


PAIR = {
    "chosen": torch.tensor([-3.0, -1.0]),
    "rejected": torch.tensor([-2.0, -5.0]),
    "ref_chosen": torch.tensor([-1.0, -4.0]),
    "ref_rejected": torch.tensor([-2.5, -2.0]),
    "chosen_lengths": torch.tensor([2, 4]),
}


def logsigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_rewards_are_beta_times_the_log_ratio_and_carry_no_gradient():
    chosen = PAIR["chosen"].clone().requires_grad_()
    losses, chosen_rewards, rejected_rewards = StepDPOLoss(0.1)(**{**PAIR, "chosen": chosen})
    assert chosen_rewards.tolist() == pytest.approx([-0.2, 0.3])
    assert rejected_rewards.tolist() == pytest.approx([0.05, -0.3])
    assert losses.tolist() == pytest.approx([-logsigmoid(-0.25), -logsigmoid(0.6)])
    assert losses.requires_grad and not chosen_rewards.requires_grad and not rejected_rewards.requires_grad


def test_a_policy_that_is_its_reference_loses_log_two_whatever_beta():
    same = {**PAIR, "ref_chosen": PAIR["chosen"], "ref_rejected": PAIR["rejected"]}
    for beta in (0.01, 0.1, 2.0):
        assert StepDPOLoss(beta)(**same)[0].tolist() == pytest.approx([math.log(2)] * 2)


def test_nll_adds_the_chosen_steps_likelihood_per_token():
    plain = StepDPOLoss(0.1)(**PAIR)[0]
    assert (StepDPOLoss(0.1, nll=0.5)(**PAIR)[0] - plain).tolist() == pytest.approx([0.5 * 3 / 2, 0.5 * 1 / 4])


def test_dpop_punishes_only_a_chosen_step_below_its_reference():
    got = StepDPOLoss(0.1, dpop=5.0)(**PAIR)[0]
    assert got.tolist() == pytest.approx([-logsigmoid(-0.25 - 0.1 * 5.0 * 2.0), -logsigmoid(0.6)])


def test_extreme_margins_stay_finite():
    far = {**PAIR, "chosen": torch.tensor([-1e5, 1e5]), "rejected": torch.tensor([1e5, -1e5])}
    losses = StepDPOLoss(1.0)(**far)[0]
    assert torch.isfinite(losses).all()
    assert torch.allclose(losses, -F.logsigmoid(torch.tensor([-2e5 + 1.0 - 2.5, 2e5 + 4.0 - 2.0])), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"loss\.beta is 0\.0: it must be positive"),
        ({"beta": -1.0}, r"loss\.beta is -1\.0"),
        ({"nll": -0.1}, r"loss\.nll is -0\.1: it must be 0 or more"),
        ({"dpop": -2.0}, r"loss\.dpop is -2\.0"),
    ],
)
def test_a_strength_that_cannot_work_is_named(settings: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        StepDPOLoss(**settings)
