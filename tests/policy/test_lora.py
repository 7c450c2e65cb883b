"""LoRA: it changes nothing at first, what is exported computes what was trained, and off is the model without it."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from psr.policy.folder import export_policy, load_policy, load_trainable
from psr.policy.lora import LoRA, LoRAError, adapted_layers, adapters_off, add_adapters, merged_state
from psr.policy.self_check import check_written
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.policy.tokenizer import load_tokenizer
from psr.trees.attention import use_tree_attention
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs
from tests.families import GPT, RIGHT, UNTIED, make_model
from tests.trees.test_step_tree import random_pairs, row_of


def row() -> Row:
    return row_of(*(random_pairs(random.Random(seed)) for seed in range(3)))


def logprobs(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return row_logprobs(model, row())


def adapted(folder: Path, lora: LoRA | None = None) -> PreTrainedModel:
    """A policy in float64 whose adapters have been trained, or so it looks."""
    policy = add_adapters(use_tree_attention(load_policy(folder, torch.float64)), lora or LoRA(rank=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return policy


def test_new_adapters_change_nothing_and_alone_are_trained(policy: Path):
    plain, ours = load_trainable(policy), load_trainable(policy, LoRA(rank=4))
    assert torch.equal(logprobs(ours), logprobs(plain))
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    linear = {name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(adapted_layers(ours)) == linear - {"lm_head"} and len(linear) == 2 * 7 + 1


def test_targets_name_the_layers(llama: Path):
    ours = load_trainable(llama, LoRA(rank=2, targets=["q_proj", "v_proj"]))
    assert {name.rpartition(".")[2] for name in adapted_layers(ours)} == {"q_proj", "v_proj"}


def test_what_is_exported_computes_what_was_trained(policy: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase):
    ours = adapted(policy)
    export_policy(ours, tokenizer, tmp_path / "M2")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "M2", dtype=torch.float64)
    assert set(exported.state_dict()) == set(load_policy(policy).state_dict())
    got = logprobs(use_tree_attention(exported))
    assert torch.allclose(got, logprobs(ours), rtol=0, atol=1e-6)  # transformers' RMSNorm computes in float32
    assert (got - logprobs(use_tree_attention(load_policy(policy, torch.float64)))).abs().max() > 0.1
    assert adapted_layers(ours), "the policy in training keeps its adapters"


def test_without_adapters_what_is_exported_is_the_policys_own_state(llama: Path):
    model = load_policy(llama)
    assert {name: value.data_ptr() for name, value in merged_state(model).items()} == {
        name: value.data_ptr() for name, value in model.state_dict().items()
    }


def test_adapters_off_is_the_model_without_them_for_as_long(policy: Path):
    ours = adapted(policy)
    on, plain = logprobs(ours), logprobs(use_tree_attention(load_policy(policy, torch.float64)))
    with adapters_off(ours):
        assert torch.equal(logprobs(ours), plain)
    assert torch.equal(logprobs(ours), on)
    with pytest.raises(RuntimeError, match="out of memory"), adapters_off(ours):
        raise RuntimeError("out of memory")
    assert torch.equal(logprobs(ours), on)


def test_adapters_get_the_same_gradient_with_activation_checkpointing(llama: Path):
    gradients = []
    for checkpointing in (False, True):
        ours = load_trainable(llama, LoRA(rank=4), checkpointing)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in ours.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape) * 0.1)
        row_logprobs(ours, row()).sum().backward()
        gradients.append([p.grad for p in ours.parameters() if p.requires_grad])
        assert all(p.grad is None for p in ours.parameters() if not p.requires_grad)
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 0 and torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "gemma2", "gpt_oss", "granite"])
def test_adapters_of_every_family_are_in_what_is_exported(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
):
    """GPT-2's weights are transposed; experts that are one tensor get no adapter, and are exported as they were."""
    policy = add_adapters(use_tree_attention(make_model(*RIGHT[name])), LoRA(rank=4))
    before = logprobs(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    assert (logprobs(policy) - before).abs().max() > 0.1
    export_policy(policy, tokenizer, tmp_path / "M2")
    assert check_written(policy, tmp_path / "M2") < 1e-4


@pytest.mark.parametrize(
    ("architecture", "settings", "targets", "reason"),
    [
        ("llama", UNTIED, ["embed_tokens"], "gives an adapter to model.embed_tokens, a Embedding"),
        (
            "llama",
            {**UNTIED, "tie_word_embeddings": True},
            ["q_proj", "lm_head"],
            "lm_head, whose weight is also that of",
        ),
        ("llama", UNTIED, ["input_layernorm"], "LlamaRMSNorm.* is not supported"),
        ("llama", UNTIED, ["nonsense"], r"targets is \['nonsense'\], and llama: Target modules .* not found"),
        ("gpt2", GPT, ["wte"], "transformer.wte, a Embedding"),
        ("mixtral", RIGHT["mixtral"][1], ["experts"], "MixtralExperts.* is not supported"),
    ],
)
def test_adapters_that_could_not_be_merged_are_refused_at_once(
    architecture: str, settings: dict[str, Any], targets: list[str], reason: str
):
    with pytest.raises(LoRAError, match=reason):
        add_adapters(make_model(architecture, settings), LoRA(rank=2, targets=targets))


@pytest.mark.parametrize("tied", [True, False])
def test_larger_embeddings_and_an_added_pad_token_survive_training_and_export(tied: bool, tmp_path: Path):
    """The embeddings have 64 rows, as models round them up; the tokenizer has 42 tokens and gets one more."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    model = make_model("llama", {**UNTIED, "tie_word_embeddings": tied})
    model.resize_token_embeddings(64)
    export_policy(model, tokenizer, tmp_path / "M0")
    policy = load_trainable(tmp_path / "M0", LoRA(rank=4))
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    export_policy(policy, load_tokenizer(tmp_path / "M0"), tmp_path / "M1")
    assert check_written(policy, tmp_path / "M1") < 1e-5
    exported = load_policy(tmp_path / "M1").eval()
    assert exported.get_input_embeddings().weight.shape[0] == 64
    assert (exported.get_input_embeddings().weight is exported.get_output_embeddings().weight) == tied
    assert load_tokenizer(tmp_path / "M1").pad_token == "<padding>"
