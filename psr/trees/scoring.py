"""Log-probabilities of the completions in a packed row, without ever holding the logits of more than some tokens.

Knows a causal language model of transformers and rows. Does not know losses or Lightning.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from psr.trees.attention import attention_arguments
from psr.trees.flex import kernel_padding, padded_ends
from psr.trees.packing import Row

CHUNK = 512
"""Positions whose logits exist at the same time."""


def row_logprobs(policy: PreTrainedModel, row: Row, chunk: int = CHUNK, temperature: float = 1.0) -> Tensor:
    """log p(token | its path) of every token that a completion holds, float32 or wider: (scored,).

    They are those of the policy at `temperature`. The logits of a chunk are computed again in the backward pass instead
    of being kept.
    """
    hidden, head = scored_hidden(policy, row), policy.get_output_embeddings()
    parts = [
        checkpoint(_logprobs, head, some, targets, temperature, use_reentrant=False)
        for some, targets in zip(hidden.split(chunk), row.targets.split(chunk), strict=True)
    ]
    return torch.cat(parts)


@torch.no_grad()
def row_hits(policy: PreTrainedModel, row: Row, chunk: int = CHUNK) -> Tensor:
    """Whether the model's most likely token is the one of the completion, for every scored token: (scored,), bool."""
    hidden, head = scored_hidden(policy, row), policy.get_output_embeddings()
    return torch.cat([head(some).argmax(-1) for some in hidden.split(chunk)]) == row.targets


def scored_hidden(policy: PreTrainedModel, row: Row) -> Tensor:
    """The last hidden states at the positions that predict the scored tokens: (scored, width).

    On a GPU the row is padded to one of a few lengths, for each of which attention is compiled once.
    """
    token_ids, position_ids, ends = row.token_ids, row.position_ids, row.ends
    if more := kernel_padding(ends):
        token_ids, position_ids = F.pad(token_ids, (0, more)), F.pad(position_ids, (0, more))
        ends = padded_ends(ends, len(ends) + more)
    output = policy.base_model(
        input_ids=token_ids[None], position_ids=position_ids[None], use_cache=False, **attention_arguments(ends)
    )
    return output.last_hidden_state[0, row.sources]


def _logprobs(head: torch.nn.Module, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")
