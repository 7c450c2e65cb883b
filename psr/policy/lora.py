"""LoRA through peft: adapters in the policy itself, which stays a plain transformers model; merged when exported.

The weights beneath do not change, so they may be held in less than float32: in bfloat16, or in 4 bits (QLoRA, Dettmers
et al. 2023, arXiv 2305.14314). Adapters, their gradients and the sums that merge them are float32 all the same.

Knows peft, bitsandbytes' 4-bit layers and the policy. Does not know losses or Lightning.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import cast_adapter_dtype
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor
from transformers import BitsAndBytesConfig, PreTrainedModel

from psr.policy.tokenizer import PolicyError

ADAPTER = "default"
BaseDType = Literal["float32", "bfloat16", "nf4"]


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) are trained instead of the weights.

    Args:
        rank: rank of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the modules that get one; "all-linear" means every linear layer but the head.
        dtype: what the frozen weights are held in: "float32", "bfloat16", half as much, or "nf4", 4 bits for the linear
            layers and bfloat16 for the rest (`pip install psr[qlora]`, one GPU).
    """

    rank: int = 16
    alpha: float = 32.0
    targets: list[str] | str = "all-linear"
    dtype: BaseDType = "float32"

    @property
    def base_dtype(self) -> torch.dtype:
        """Of the frozen weights that are not quantized."""
        return torch.float32 if self.dtype == "float32" else torch.bfloat16


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
    """The policy with new adapters, which change nothing yet; only they require gradients."""
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")  # type: ignore[arg-type]
    inject_adapter_in_model(config, policy, ADAPTER)
    cast_adapter_dtype(policy, ADAPTER)  # peft makes them in the dtype of what lies beneath
    return policy


def adapted_layers(policy: PreTrainedModel) -> dict[str, LoraLayer]:
    """The layers with an adapter, by name; none where the policy has no adapters."""
    return {name: module for name, module in policy.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def adapters_off(policy: PreTrainedModel) -> Iterator[None]:
    """The policy as it was before its adapters."""
    layers = adapted_layers(policy).values()
    for layer in layers:
        layer.enable_adapters(False)  # type: ignore[operator]
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)  # type: ignore[operator]


def plain_name(name: str) -> str:
    """What a weight is called without adapters."""
    return name.replace(".base_layer.", ".")


def merged_weights(
    policy: PreTrainedModel, gather: Callable[[Tensor], Tensor] = lambda value: value
) -> Iterator[tuple[str, Tensor]]:
    """The weights of a plain model that computes what the policy does with its adapters, one after the other.

    `gather` makes a whole tensor of one that is sharded. A merged weight is the sum in float32 (or wider, where the
    policy is), rounded once to the dtype of the weight beneath; quantized ones are merged and given in bfloat16.
    """
    layers, packed = adapted_layers(policy), quantized_layers(policy)
    for name, value in policy.state_dict().items():
        module, _, kind = name.rpartition(".weight")
        if ".lora_" in name or (module in packed and kind):  # kind: ".absmax" and the like
            continue
        weight = dequantize_module_weight(packed[module]) if module in packed else gather(value)
        layer = layers.get(module.removesuffix(".base_layer")) if module.endswith(".base_layer") else None
        if layer is not None:
            down, up = (gather(part[ADAPTER].weight) for part in (layer.lora_A, layer.lora_B))  # type: ignore
            update = layer.scaling[ADAPTER] * (up @ down)
            weight = (weight + update).to(torch.bfloat16 if module in packed else weight.dtype)
        yield plain_name(name), weight


def quantized_layers(policy: PreTrainedModel) -> dict[str, Any]:
    """The layers whose weights are packed into 4 bits, by name."""
    if "bitsandbytes" not in sys.modules:  # whoever made one has imported it; importing it here would take seconds
        return {}
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in policy.named_modules() if isinstance(module, Linear4bit)}


def merged_state(policy: PreTrainedModel) -> dict[str, Tensor]:
    """All of them at once; the policy stays as it is."""
    return dict(merged_weights(policy))
