"""LoRA with peft: adapters inside the policy, which remains a plain transformers model; merged on export.

Knows peft and the policy. Does not know losses or Lightning.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

ADAPTER = "default"


@dataclass(frozen=True)
class LoRA:
    """Trains low-rank adapters (Hu et al. 2021, arXiv 2106.09685) instead of the weights.

    Args:
        rank: rank of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the modules that get an adapter; "all-linear" means every linear layer except the head.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: list[str] | str = "all-linear"


def add_adapters(policy: PreTrainedModel, lora: LoRA) -> PreTrainedModel:
    """Add new adapters, which do not change the output yet; only they require gradients."""
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")  # type: ignore[arg-type]
    # Into the model itself, instead of peft's wrapper around it: everything else still sees a PreTrainedModel.
    inject_adapter_in_model(config, policy, ADAPTER)
    return policy


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

    `gather` turns a shard into the whole tensor.
    """
    layers = adapted_layers(policy)
    for name, value in policy.state_dict().items():
        if ".lora_" in name:  # goes into the weight of its layer
            continue
        weight = gather(value)
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        if layer is not None:
            down, up = (gather(part[ADAPTER].weight) for part in (layer.lora_A, layer.lora_B))  # type: ignore
            # (out, rank) @ (rank, in); a new tensor, since the policy goes on training with its adapters apart
            weight = weight + (layer.scaling[ADAPTER] * (up @ down)).to(weight.dtype)
        yield plain_name(name), weight


def merged_state(policy: PreTrainedModel) -> dict[str, Tensor]:
    """All merged weights at once; the policy itself is unchanged."""
    return dict(merged_weights(policy))
