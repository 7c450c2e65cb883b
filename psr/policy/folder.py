"""The policy: a causal language model as a plain Hugging Face folder, loaded, made and exported.

Knows transformers and adapters. Does not know losses, Lightning, engines or what the policy is asked.
"""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from psr.policy.lora import LoRA, add_adapters, merged_state, quantization, quantized_layers
from psr.policy.tokenizer import PolicyError, check_folder
from psr.trees.attention import use_tree_attention


def load_policy(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    quantized: BitsAndBytesConfig | None = None,
) -> PreTrainedModel:
    """The model of a Hugging Face folder, in `dtype`, on `device`.

    A `quantized` one has its linear layers in 4 bits, and is where transformers puts it: on the GPU of this process.
    """
    model = AutoModelForCausalLM.from_pretrained(
        str(check_folder(folder)), dtype=dtype, local_files_only=True, quantization_config=quantized
    )
    assert isinstance(model, PreTrainedModel)
    if quantized is None:
        torch.nn.Module.to(model, device)
    return model


def new_policy(architecture: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model with random weights: `architecture` is a transformers model type ("qwen2", "llama")."""
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **settings,
    )
    model = AutoModelForCausalLM.from_config(config)
    assert isinstance(model, PreTrainedModel)
    return model


def load_trainable(
    folder: str | Path, lora: LoRA | None = None, checkpoint_activations: bool = False
) -> PreTrainedModel:
    """The policy to train on packed rows: all of it, or adapters alone.

    With `checkpoint_activations` each layer is computed a second time in the backward pass instead of being kept.
    """
    frozen = torch.float32 if lora is None else lora.base_dtype
    return _trainable(load_policy(folder, frozen, quantized=quantization(lora)), lora, checkpoint_activations)


def empty_trainable(
    folder: str | Path, lora: LoRA | None = None, checkpoint_activations: bool = False
) -> PreTrainedModel:
    """The same policy on the meta device: its float32 weights have shapes and no memory; only config.json is read.

    Raises:
        PolicyError: a frozen base in less than float32, which is for one GPU that holds all of it.
    """
    if lora is not None and lora.dtype != "float32":
        raise PolicyError(f"model.lora.dtype is {lora.dtype!r}: sharded weights are float32; leave it out")
    config = AutoConfig.from_pretrained(str(check_folder(folder)), local_files_only=True)
    with torch.device("meta"):
        policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        assert isinstance(policy, PreTrainedModel)
        return _trainable(policy, lora, checkpoint_activations)


def _trainable(policy: PreTrainedModel, lora: LoRA | None, checkpoint_activations: bool) -> PreTrainedModel:
    use_tree_attention(policy)
    if lora is not None:
        add_adapters(policy, lora)
    if checkpoint_activations:
        policy.activation_checkpointing_enable()
    return policy.train()


def _unquantized(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or for one in 4 bits a model without weights that is otherwise the same."""
    if not quantized_layers(model):
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        twin = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    assert isinstance(twin, PreTrainedModel)
    twin.generation_config = model.generation_config
    return twin


def export_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a folder that transformers, SGLang and vLLM load; it appears under its name only when it is complete.

    Adapters are merged in what is written.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    state = merged_state(model)
    _unquantized(model).save_pretrained(str(partial), state_dict=state)
    tokenizer.save_pretrained(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
