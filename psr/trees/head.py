"""A model's own way from last hidden states to logits: its head, and what else it does to them.

Some models scale their logits, cap them or change their type. So a head is not applied bare: the model's forward pass
is run with its base model replaced by one that has been run already. Knows transformers' models. Does not know rows.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast


@dataclass
class BaseModelRan(MoeModelOutputWithPast):
    """What any base model may have returned, so far as heads ask for it."""

    cross_attentions: None = None
    shared_kv_states: None = None


def own_logits(policy: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits of the base model's last hidden states (tokens, width): (tokens, vocabulary)."""
    return _without_base(policy, hidden)(**_nothing(hidden)).logits[0]


def own_logits_float32(policy: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The same computed in float32, whatever the weights are."""
    head = _without_base(policy, hidden.float())
    weights = {name: value.float() for name, value in head.named_parameters()}
    return functional_call(head, weights, (), _nothing(hidden)).logits[0]


def _without_base(policy: PreTrainedModel, hidden: Tensor) -> PreTrainedModel:
    """A shallow copy of the policy whose base model has been run; the policy itself stays as it is."""
    head, base = copy.copy(policy), policy.base_model_prefix
    head._modules = {name: module for name, module in policy._modules.items() if name != base}
    ran = BaseModelRan(last_hidden_state=hidden[None])
    head.__dict__[base] = lambda *arguments, **named: ran
    return head


def _nothing(hidden: Tensor) -> dict[str, Any]:
    """Arguments for a forward pass in which nobody reads token ids."""
    return {"input_ids": torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device), "use_cache": False}
