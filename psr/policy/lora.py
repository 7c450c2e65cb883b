"""LoRA through peft: adapters in the policy itself, which stays a plain transformers model; merged when exported.

Knows peft and the policy. Does not know losses or Lightning.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from psr.bounds import Count, Positive, bounded

ADAPTER = "default"


@bounded("lora")
@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) are trained instead of the weights.

    Args:
        rank: rank of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the modules that get one; "all-linear" means every linear layer but the head.
    """

    rank: Count = 16
    alpha: Positive = 32.0
    targets: list[str] | str = "all-linear"


def add_adapters(policy: PreTrainedModel, lora: LoRA) -> PreTrainedModel:
    """The policy with new adapters, which change nothing yet; only they require gradients."""
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")  # type: ignore[arg-type]
    inject_adapter_in_model(config, policy, ADAPTER)
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

    `gather` makes a whole tensor of one that is sharded.
    """
    layers = adapted_layers(policy)
    for name, value in policy.state_dict().items():
        if ".lora_" in name:
            continue
        weight = gather(value)
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        if layer is not None:
            down, up = (gather(part[ADAPTER].weight) for part in (layer.lora_A, layer.lora_B))  # type: ignore
            weight = weight + (layer.scaling[ADAPTER] * (up @ down)).to(weight.dtype)
        yield plain_name(name), weight


def merged_state(policy: PreTrainedModel) -> dict[str, Tensor]:
    """All of them at once; the policy stays as it is."""
    return dict(merged_weights(policy))
