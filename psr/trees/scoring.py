"""Log-probabilities of the completions in a packed row, computed in chunks: all logits at once would not fit.

Knows transformers' causal language models and rows. Does not know losses or Lightning.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from psr.trees.attention import attention_arguments
from psr.trees.flex import kernel_padding, padded_ends
from psr.trees.head import own_logits
from psr.trees.packing import Row

CHUNK = 512
"""Positions whose logits exist at the same time."""


def row_logprobs(policy: PreTrainedModel, row: Row, chunk: int = CHUNK, temperature: float = 1.0) -> Tensor:
    """log p(token | its path) of every scored token, in float32 or wider, of the policy at `temperature`: (scored,)."""
    return by_chunks(policy, row, partial(_logprobs, temperature=temperature), chunk)


@torch.no_grad()
def row_hits(policy: PreTrainedModel, row: Row, chunk: int = CHUNK) -> Tensor:
    """Whether the model's most likely token is the one of the completion, for every scored token: (scored,), bool."""
    return by_chunks(policy, row, lambda logits, targets: logits.argmax(-1) == targets, chunk)


def by_chunks(
    policy: PreTrainedModel, row: Row, score: Callable[[Tensor, Tensor], Tensor], chunk: int = CHUNK
) -> Tensor:
    """`score` of logits (positions, vocabulary) and targets (positions,) at the scored tokens: (scored, ...).

    The logits of a chunk are recomputed in the backward pass instead of being kept. On a GPU the row is padded to one
    of a few lengths, for each of which attention is compiled once.
    """
    token_ids, positions, ends = row.token_ids, row.position_ids, row.ends
    if more := kernel_padding(ends):
        token_ids, positions = F.pad(token_ids, (0, more)), F.pad(positions, (0, more))
        ends = padded_ends(ends, len(ends) + more)
    # The model without its head: most tokens of a row are prompts, whose logits nobody needs.
    output = policy.base_model(
        input_ids=token_ids[None],
        position_ids=positions[None],
        use_cache=False,
        **attention_arguments(ends, positions),
    )
    hidden = output.last_hidden_state[0, row.sources]  # (scored, width): where the scored tokens are predicted
    # With a vocabulary of 150,000, logits are the largest tensors of a training step: (scored, vocabulary), with their
    # gradient and float32 copies. Checkpointing bounds both passes to one chunk, for one more product with the head.
    return torch.cat(
        [
            checkpoint(_scored, policy, some, targets, score, use_reentrant=False)
            for some, targets in zip(hidden.split(chunk), row.targets.split(chunk), strict=True)
        ]
    )


def _scored(
    policy: PreTrainedModel, hidden: Tensor, targets: Tensor, score: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    return score(own_logits(policy, hidden), targets)


def _logprobs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    # Not in bfloat16, whose 8 bits of precision are coarser than the log-ratios that DPO compares.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")
