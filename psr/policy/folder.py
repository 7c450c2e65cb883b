"""The policy: a causal language model as a plain Hugging Face folder, loaded, created and exported.

Knows transformers and adapters. Does not know losses, Lightning, engines or what the policy is asked.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from psr.policy.lora import LoRA, add_adapters, merged_state
from psr.policy.tokenizer import check_folder
from psr.trees.attention import use_tree_attention


def load_policy(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """The model of a Hugging Face folder, in `dtype`, on `device`."""
    model = AutoModelForCausalLM.from_pretrained(str(check_folder(folder)), dtype=dtype, local_files_only=True)
    assert isinstance(model, PreTrainedModel)
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
    """The policy to train on packed rows: all weights, or only adapters.

    With `checkpoint_activations`, each layer is recomputed in the backward pass instead of keeping its activations.
    """
    # In float32 whatever the folder holds: an update of lr 1e-6 would be lost in a bfloat16 weight.
    return _trainable(load_policy(folder), lora, checkpoint_activations)


def empty_trainable(
    folder: str | Path, lora: LoRA | None = None, checkpoint_activations: bool = False
) -> PreTrainedModel:
    """The same policy on the meta device: float32 weights with shapes but no memory; only config.json is read."""
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


def export_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a folder that transformers, SGLang and vLLM load; it appears under its name only when it is complete.

    Adapters are merged into the exported weights.
    """
    # Whoever finds the folder may load it at once: so it is written beside its place and then renamed.
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an earlier, killed export left
    model.save_pretrained(str(partial), state_dict=merged_state(model))
    tokenizer.save_pretrained(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
