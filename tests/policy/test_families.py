"""Families that attend, scale or route otherwise than Llama: trained and served as what they are, or refused."""

import asyncio
import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from psr.engines.base import Completion, EngineError, Sampling
from psr.engines.local import LocalEngine
from psr.policy.context import context_of
from psr.policy.folder import load_policy
from psr.policy.masks import UnsupportedModel
from psr.policy.self_check import check_policy
from psr.trees.attention import attention_arguments, use_tree_attention
from psr.trees.row_mask import RowMask
from psr.trees.scoring import row_logprobs
from tests import pair_by_pair
from tests.engines.serving import serve
from tests.families import REFUSED, RIGHT, UNTIED, make_model, save_model
from tests.trees.test_step_tree import random_pairs, row_of


def in_float64(name: str) -> PreTrainedModel:
    """Nearly: some of transformers' modules compute in float32 whatever the weights are."""
    model = make_model(*RIGHT[name]).double()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    return model


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", RIGHT)
def test_loss_and_gradient_are_those_of_the_pairs_one_by_one(name: str):
    """Chains three times as long as the windows, in trees with branches."""
    plain = in_float64(name)
    ours = use_tree_attention(copy.deepcopy(plain))
    groups = [random_pairs(random.Random(seed)) for seed in range(3)]
    samples = [sample for group in groups for pair in group for sample in pair]
    expected = torch.stack([pair_by_pair.logprobs(plain, sample).sum() for sample in samples])
    row = row_of(*groups)
    got = row.completion_sums(row_logprobs(ours, row, chunk=7))
    assert torch.allclose(got, expected, rtol=0, atol=1e-5)
    weights = torch.linspace(-1, 1, len(samples), dtype=torch.float64)
    want, found = gradients(plain, (weights * expected).sum()), gradients(ours, (weights * got).sum())
    assert want.keys() == found.keys()
    for parameter, value in want.items():
        assert torch.allclose(found[parameter], value, rtol=1e-4, atol=1e-5 * float(value.abs().max())), parameter


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt_oss"])
def test_single_sequences_longer_than_the_window_are_no_plain_chains(name: str):
    plain = in_float64(name)
    sample = random_pairs(random.Random(0))[-1][0]
    assert len(sample) > 6, "longer than the window"
    row = row_of([(sample, sample)])
    assert row.position_ids.max() + 1 == len(sample) and RowMask(row.ends, row.position_ids).chains is not None
    expected = pair_by_pair.logprobs(plain, sample)
    with torch.no_grad():
        assert torch.allclose(row_logprobs(use_tree_attention(plain), row), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RIGHT)
def test_a_family_that_is_right_passes_its_check(name: str):
    policy = use_tree_attention(make_model(*RIGHT[name]))
    assert check_policy(policy, name, lambda row, score: score(policy, row), torch.float32) < 1e-4
    row = row_of(random_pairs(random.Random(0)))
    assert row_logprobs(policy, row).requires_grad, "as it was before"


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_would_be_wrong_is_refused_with_the_reason(name: str, tmp_path: Path):
    architecture, settings, reason = REFUSED[name]
    policy = use_tree_attention(make_model(architecture, settings))
    with pytest.raises(UnsupportedModel, match=rf"psr cannot train the {architecture} in M1: .*{reason}"):
        check_policy(policy, "M1", lambda row, score: score(policy, row), torch.float32)
    with pytest.raises(EngineError, match=r"the in-process engine (cannot|does not) serve"):
        serve(save_model(tmp_path / "M1", architecture, settings), lambda engine: engine.health())


PROMPTS = [(5, 9, 3, 20, 7, 7, 11, 30, 4, 12), (5, 9, 3, 20, 7, 6, 2, 8), (5, 9, 3), (31, 2)]
"""Some of which begin alike, and are longer than the windows."""


async def asked(engine: LocalEngine) -> tuple[list[list[Completion]], list[list[float]]]:
    return await asyncio.gather(
        engine.generate(PROMPTS, Sampling(max_new_tokens=12)), engine.choice_logprobs(PROMPTS, [4, 9])
    )


@pytest.mark.parametrize("name", RIGHT)
def test_the_engine_generates_what_transformers_does(name: str, tmp_path: Path):
    folder = save_model(tmp_path / "M1", *RIGHT[name])
    completions, scores = serve(folder, asked)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.set_attn_implementation("eager")
    for prompt, [one], found in zip(PROMPTS, completions, scores, strict=True):
        ids = torch.tensor([prompt])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert one.token_ids == tuple(made[0, len(prompt) :].tolist())
        with torch.no_grad():
            logprobs = model(made).logits[0, len(prompt) - 1 :].log_softmax(-1)
        assert found == pytest.approx(logprobs[0, [4, 9]].tolist(), abs=1e-3)
        drawn = logprobs[:-1].gather(1, torch.tensor(one.token_ids)[:, None]).sum()
        assert one.logprob == pytest.approx(float(drawn), abs=1e-3)


def test_a_window_that_no_check_can_afford_is_refused_where_attention_is_not_told_of_it(
    monkeypatch: pytest.MonkeyPatch,
):
    """By what the model's masks say at the end of its context: 80 tokens are more than the check's tree has."""
    from transformers.models.mistral import modeling_mistral

    policy = use_tree_attention(make_model("mistral", {**UNTIED, "sliding_window": 80}))
    check_policy(policy, "M1", lambda row, score: score(policy, row), torch.float32)
    attention = modeling_mistral.MistralAttention
    original = attention.forward

    def untold(self: Any, *arguments: Any, **named: Any) -> Any:
        window, self.config.sliding_window = self.config.sliding_window, None
        try:
            return original(self, *arguments, **named)
        finally:
            self.config.sliding_window = window

    monkeypatch.setattr(attention, "forward", untold)
    with pytest.raises(UnsupportedModel, match="told of no window, and its mask at position 95 is another one"):
        check_policy(policy, "M1", lambda row, score: score(policy, row), torch.float32)


def test_longrope_is_trained_and_served_up_to_where_its_factors_change(tmp_path: Path):
    """Beyond, the longest sequence of a row would choose the factors of all."""
    rope = {
        "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4, "factor": 4.0,
        "original_max_position_embeddings": 24,
    }  # fmt: skip
    settings = {**UNTIED, "rope_parameters": rope, "sliding_window": None, "original_max_position_embeddings": 24}
    folder = save_model(tmp_path / "M1", "phi3", settings)
    assert context_of(load_policy(folder).config) == 24
    [[one]] = serve(folder, lambda engine: engine.generate([PROMPTS[0]], Sampling(max_new_tokens=50)))
    assert len(one.token_ids) == 24 - len(PROMPTS[0]) or one.finish_reason == "eos"


def test_what_a_row_is_called_with_reaches_every_attention_function_as_it_is():
    """Also through models that hand on no arguments of ours, such as StableLM."""
    mask = attention_arguments(torch.tensor([2, 2]), torch.tensor([0, 1]))["attention_mask"]
    assert isinstance(mask, RowMask) and len(mask.shape) == mask.ndim == 4
