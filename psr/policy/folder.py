"""The policy: a causal language model as a plain Hugging Face folder, loaded, created and exported.

Knows transformers and adapters. Does not know losses, Lightning, engines or what the policy is asked.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from psr.files.whole import replacing
from psr.policy.lora import LoRA, add_adapters, merged_state
from psr.policy.reading import read_config, read_model
from psr.policy.tokenizer import PolicyError, check_folder
from psr.trees.attention import use_tree_attention


def check_finite(name: str, value: Tensor, folder: str | Path) -> None:
    """Raise PolicyError where the weight `name` of the model in, or on its way to, `folder` holds NaN or infinity."""
    if not bool(value.isfinite().all()):
        raise not_finite(name, folder)


def not_finite(name: str, folder: str | Path) -> PolicyError:
    return PolicyError(
        f"{folder}: the weight {name} holds NaN or infinity, as after a training that diverged or on a damaged disk. "
        "Such a model is neither written nor read: make it anew, with a lower learning rate perhaps"
    )


def load_policy(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """The model of a Hugging Face folder, in `dtype`, on `device`.

    Raises PolicyError where there is no model, where it cannot be read, or where a weight is not finite.
    """
    model = read_model(check_folder(folder), dtype)
    torch.nn.Module.to(model, device)
    for name, value in model.state_dict().items():
        check_finite(name, value, folder)
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
    """The same policy on the meta device: its float32 weights have shapes and no memory; only config.json is read."""
    config = read_config(check_folder(folder))
    with torch.device("meta"):
        policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        assert isinstance(policy, PreTrainedModel)
        policy = _trainable(policy, lora, checkpoint_activations)
    if (Path(folder) / "generation_config.json").is_file():  # exported with the weights: it names what ends a text
        policy.generation_config = GenerationConfig.from_pretrained(str(folder))
    return policy


def _trainable(policy: PreTrainedModel, lora: LoRA | None, checkpoint_activations: bool) -> PreTrainedModel:
    use_tree_attention(policy)
    if lora is not None:
        add_adapters(policy, lora)
    # Without dropout, which would make a policy differ from its reference before the first step.
    policy.eval()
    if checkpoint_activations:
        policy.activation_checkpointing_enable()
        for layer in policy.modules():
            layer.training = isinstance(layer, GradientCheckpointingLayer)  # else transformers would not checkpoint it
    return policy


def export_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write a folder that transformers, SGLang and vLLM load; it appears under its name only when it is complete.

    Whoever finds the folder may load it at once. Adapters are merged into the exported weights.

    Raises:
        PolicyError: a weight is not finite; nothing is written then.
        StorageError: the system refuses to store it.
    """
    weights = merged_state(model)
    for name, value in weights.items():
        check_finite(name, value, folder)
    with replacing(folder) as partial:
        model.save_pretrained(str(partial), state_dict=weights)
        tokenizer.save_pretrained(str(partial))
