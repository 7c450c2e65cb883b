"""A model's own way from last hidden states to logits: its head, and what else it does to them.

Some models scale their logits, cap them or change their type. So a head is not applied bare: the model's forward pass is
run with its base model replaced by one that has been run already. Knows models of transformers. Does not know rows.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast


class _AlreadyRun(nn.Module):
    """Stands where the base model was."""

    def __init__(self, output: BaseModelOutputWithPast) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return self.output


def own_logits(policy: PreTrainedModel, output: BaseModelOutputWithPast, hidden: Tensor) -> Tensor:
    """The logits of the last hidden states `hidden` (tokens, width): (tokens, vocabulary).

    `output` is what the base model returned where they come from.
    """
    return _without_base(policy, output, hidden)(**_nothing(hidden)).logits[0]


def own_logits_float32(policy: PreTrainedModel, output: BaseModelOutputWithPast, hidden: Tensor) -> Tensor:
    """The same computed in float32, whatever the weights are."""
    head = _without_base(policy, output, hidden.float())
    weights = {name: value.float() for name, value in head.named_parameters()}
    return functional_call(head, weights, (), _nothing(hidden)).logits[0]


def _without_base(policy: PreTrainedModel, output: BaseModelOutputWithPast, hidden: Tensor) -> nn.Module:
    """A copy of the policy that shares its head; the policy itself stays as it is."""
    head = copy.copy(policy)
    ran = _AlreadyRun(replace(output, last_hidden_state=hidden[None]))
    head._modules = {**policy._modules, policy.base_model_prefix: ran}
    return head


def _nothing(hidden: Tensor) -> dict[str, Any]:
    """Arguments for a forward pass in which nobody reads token ids."""
    return {"input_ids": torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device), "use_cache": False}
