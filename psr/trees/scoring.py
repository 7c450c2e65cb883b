"""Log-probabilities of the completions in a packed row, computed in chunks: all logits at once would not fit.

Knows transformers' causal language models and rows. Does not know losses or Lightning.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from psr.trees.attention import attention_arguments
from psr.trees.head import own_logits
from psr.trees.packing import Row

CHUNK = 512
"""Positions whose logits exist at the same time."""


def row_logprobs(policy: PreTrainedModel, row: Row, chunk: int = CHUNK) -> Tensor:
    """log p(token | its path) of every scored token, in float32 or wider: (scored,)."""
    return by_chunks(policy, row, _logprobs, chunk)


@torch.no_grad()
def row_hits(policy: PreTrainedModel, row: Row, chunk: int = CHUNK) -> Tensor:
    """Whether the model's most likely token is the one of the completion, for every scored token: (scored,), bool."""
    return by_chunks(policy, row, lambda logits, targets: logits.argmax(-1) == targets, chunk)


def by_chunks(
    policy: PreTrainedModel, row: Row, score: Callable[[Tensor, Tensor], Tensor], chunk: int = CHUNK
) -> Tensor:
    """`score` of logits (positions, vocabulary) and targets (positions,) at the scored tokens: (scored, ...).

    The logits of a chunk are recomputed in the backward pass instead of being kept.
    """
    # The model without its head: most tokens of a row are prompts, whose logits nobody needs.
    output = policy.base_model(
        input_ids=row.token_ids[None],
        position_ids=row.position_ids[None],
        use_cache=False,
        **attention_arguments(row.ends, row.position_ids),
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


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    # Not in bfloat16, whose 8 bits of precision are coarser than the log-ratios that DPO compares.
    return -F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="none")
