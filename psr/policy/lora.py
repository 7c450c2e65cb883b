"""LoRA with peft: adapters inside the policy, which remains a plain transformers model; merged on export.

The weights beneath do not change, so they may be held in less than float32: in bfloat16, or in 4 bits (QLoRA, Dettmers
et al. 2023, arXiv 2305.14314). Adapters, their gradients and the sums that merge them are float32 all the same.

Knows peft, bitsandbytes' 4-bit layers and the policy. Does not know losses or Lightning.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.tuners_utils import cast_adapter_dtype
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor
from transformers import BitsAndBytesConfig, Conv1D, PreTrainedModel

from psr.policy.lora_settings import LoRA, LoRAError
from psr.policy.tokenizer import PolicyError

ADAPTER = "default"
LINEAR = (torch.nn.Linear, Conv1D)
"""And nothing derived from them: what more a router does, no merged weight would hold."""


def base_dtype(lora: LoRA) -> torch.dtype:
    """Of the frozen weights that are not quantized."""
    return torch.float32 if lora.dtype == "float32" else torch.bfloat16


def quantization(lora: LoRA | None) -> BitsAndBytesConfig | None:
    """What transformers needs to read a folder's weights into 4 bits; None where they are not quantized.

    Raises:
        PolicyError: bitsandbytes is not installed.
    """
    if lora is None or lora.dtype != "nf4":
        return None
    if find_spec("bitsandbytes") is None:
        raise PolicyError(
            "model.lora.dtype is 'nf4', which needs bitsandbytes: pip install psr[qlora], or take bfloat16"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def add_adapters(policy: PreTrainedModel, lora: LoRA) -> PreTrainedModel:
    """The policy with new adapters, which change nothing yet; only they require gradients.

    Raises LoRAError for targets that the model lacks, or whose adapters could not be merged in an export.
    """
    targets = linear_layers(policy) if lora.targets == "all-linear" else lora.targets
    transposed = [name for name in linear_layers(policy) if isinstance(policy.get_submodule(name), Conv1D)]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=targets,
        fan_in_fan_out=bool(transposed),  # GPT-2's layers, whose weights are (in, out)
        task_type="CAUSAL_LM",
    )
    try:
        inject_adapter_in_model(config, policy, ADAPTER)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise LoRAError(f"model.lora.targets is {lora.targets!r}, and {policy.config.model_type}: {reason}") from error
    check_mergeable(policy)
    cast_adapter_dtype(policy, ADAPTER)  # peft makes them in the dtype of what lies beneath
    return policy


def linear_layers(policy: PreTrainedModel) -> list[str]:
    """The names of the linear layers but the head."""
    head, packed = policy.get_output_embeddings(), quantized_layers(policy)
    plain = [name for name, one in policy.named_modules() if type(one) in LINEAR and one is not head]
    return [*plain, *packed]


def check_mergeable(policy: PreTrainedModel) -> None:
    """Raise LoRAError where an adapter's layer is no matrix of its own, to which the adapter could be added."""
    embeddings, packed = policy.get_input_embeddings().weight, quantized_layers(policy)
    for name, layer in adapted_layers(policy).items():
        if f"{name}.base_layer" in packed:  # unpacked to be merged
            continue
        base, what = layer.get_base_layer(), ""
        if type(layer) is not Linear or type(base) not in LINEAR:
            what = f"gives an adapter to {name}, a {type(base).__name__}"
        elif base.weight is embeddings:
            what = f"gives an adapter to {name}, whose weight is also that of the embeddings"
        if what:
            raise LoRAError(
                f"model.lora.targets {what}: it could not be merged into an exported model; name linear layers of the "
                "attention or the MLP, for instance [q_proj, v_proj]"
            )


def adapted_layers(policy: PreTrainedModel) -> dict[str, LoraLayer]:
    """The layers with an adapter, by name; none where the policy has no adapters."""
    return {name: module for name, module in policy.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def adapters_off(policy: PreTrainedModel) -> Iterator[None]:
    """The policy without its adapters: what training started from, with no second copy of the weights."""
    layers = adapted_layers(policy).values()
    for layer in layers:
        layer.enable_adapters(False)  # type: ignore[operator]
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)  # type: ignore[operator]


def plain_name(name: str) -> str:
    """The name that a weight has in the model without adapters."""
    return name.replace(".base_layer.", ".")


def merged_weights(
    policy: PreTrainedModel, gather: Callable[[Tensor], Tensor] = lambda value: value
) -> Iterator[tuple[str, Tensor]]:
    """The weights of a plain model equal to the policy with its adapters, one after the other.

    `gather` turns a shard into the whole tensor. A merged weight is the sum in float32 (or wider, where the policy is),
    rounded once to the dtype of the weight beneath; quantized ones are merged and given in bfloat16.
    """
    layers, packed = adapted_layers(policy), quantized_layers(policy)
    for name, value in policy.state_dict().items():
        module, _, kind = name.rpartition(".weight")
        # What has an adapter goes into the weight of its layer, and so does what 4 bits need beside it (".absmax").
        if ".lora_" in name or (module in packed and kind):
            continue
        weight = dequantize_module_weight(packed[module]) if module in packed else gather(value)
        layer = layers.get(module.removesuffix(".base_layer")) if module.endswith(".base_layer") else None
        if layer is not None:
            down, up = (gather(part[ADAPTER].weight) for part in (layer.lora_A, layer.lora_B))  # type: ignore
            change = layer.scaling[ADAPTER] * (up @ down)  # (out, in)
            merged = weight + (change.T if isinstance(layer.get_base_layer(), Conv1D) else change)
            weight = merged.to(torch.bfloat16 if module in packed else weight.dtype)
        yield plain_name(name), weight


def quantized_layers(policy: PreTrainedModel) -> dict[str, Any]:
    """The layers whose weights are packed into 4 bits, by name."""
    if "bitsandbytes" not in sys.modules:  # whoever made one has imported it; importing it here would take seconds
        return {}
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in policy.named_modules() if isinstance(module, Linear4bit)}


def merged_state(policy: PreTrainedModel) -> dict[str, Tensor]:
    """All merged weights at once; the policy itself is unchanged."""
    return dict(merged_weights(policy))
