"""LoRA with peft: adapters inside the policy, which remains a plain transformers model; merged on export.

Knows peft and the policy. Does not know losses or Lightning.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor
from transformers import Conv1D, PreTrainedModel

from psr.errors import PSRError

ADAPTER = "default"
LINEAR = (torch.nn.Linear, Conv1D)
"""And nothing derived from them: what more a router or a quantized layer does, no merged weight would hold."""


class LoRAError(PSRError, ValueError):
    """Adapters that cannot be had on this model; the message names the targets."""


@dataclass(frozen=True)
class LoRA:
    """Trains low-rank adapters (Hu et al. 2021, arXiv 2106.09685) instead of the weights.

    Args:
        rank: rank of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the modules that get one; "all-linear" means every linear layer but the head. Experts that a
            model holds as one tensor are no linear layers, and get none.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: list[str] | str = "all-linear"


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
    return policy


def linear_layers(policy: PreTrainedModel) -> list[str]:
    """The names of the linear layers but the head."""
    head = policy.get_output_embeddings()
    return [name for name, one in policy.named_modules() if type(one) in LINEAR and one is not head]


def check_mergeable(policy: PreTrainedModel) -> None:
    """Raise LoRAError where an adapter's layer is no matrix of its own, to which the adapter could be added."""
    embeddings = policy.get_input_embeddings().weight
    for name, layer in adapted_layers(policy).items():
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
            change = layer.scaling[ADAPTER] * (up @ down)  # (out, in)
            weight = weight + (change.T if isinstance(layer.get_base_layer(), Conv1D) else change).to(weight.dtype)
        yield plain_name(name), weight


def merged_state(policy: PreTrainedModel) -> dict[str, Tensor]:
    """All merged weights at once; the policy itself is unchanged."""
    return dict(merged_weights(policy))
