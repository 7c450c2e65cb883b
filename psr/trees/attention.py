"""Attention among the tokens of a packed row of step trees: the one place that decides how it is computed.

On CUDA it is FlexAttention with a block mask. On a CPU it is the blockwise attention below, which skips the keys that
no query of a block attends to; or, for sequences that share nothing, torch's scaled_dot_product_attention. All are
exact, and plug into transformers' own models through its AttentionInterface.

Knows `ends`, the mask of a row (psr/trees/step_tree.py). Does not know trees, pairs or losses.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward

NAME = "psr_step_tree"
BLOCK = 128
"""Queries computed together on a CPU: with fewer, the overhead of the calls exceeds what the skipped keys save."""


def use_tree_attention(policy: PreTrainedModel) -> PreTrainedModel:
    """Switch the model to this module's attention; from now on its forward needs `attention_arguments`."""
    policy.set_attn_implementation(NAME)
    return policy


def attention_arguments(ends: Tensor) -> dict[str, Any]:
    """Keyword arguments of the model's forward, for a row in which the tokens k, ..., ends[k] - 1 attend to token k.

    `ends` is (tokens,).
    """
    if ends.device.type == "cuda":
        return {"attention_mask": block_mask(ends)}
    return {"row_mask": RowMask(ends)}


def dense_mask(ends: Tensor) -> Tensor:
    """Which query (rows) sees which key (columns): (tokens, tokens), bool."""
    index = torch.arange(len(ends), device=ends.device)  # (tokens,)
    # A query sees a key that stands before it (causal) and in whose subtree it lies (same path).
    return (index[:, None] >= index) & (index[:, None] < ends)


def block_mask(ends: Tensor) -> BlockMask:
    """The same mask for FlexAttention."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < ends[key])

    return create_block_mask(sees, None, None, len(ends), len(ends), device=ends.device)


@dataclass(frozen=True)
class QueryBlock:
    """The queries `start`, ..., `stop` - 1, the spans of keys that any of them sees, and the mask among these.

    `bias` is 0 where a query sees a key and -inf elsewhere: (queries, keys).
    """

    start: int
    stop: int
    spans: tuple[tuple[int, int], ...]
    bias: Tensor


def query_blocks(ends: Tensor, size: int = BLOCK) -> tuple[QueryBlock, ...]:
    """The row cut into blocks of about `size` queries, each with the keys that it needs."""
    blocks = []
    for root, start, stop in _cuts(ends, size):
        # A key whose subtree ends before the block begins is seen by none of its queries: sibling branches drop out.
        keys = root + (ends[root:stop] > start).nonzero().squeeze(1)  # (keys,)
        queries = torch.arange(start, stop)[:, None]  # (queries, 1)
        hidden = (queries < keys) | (queries >= ends[keys])  # (queries, keys)
        bias = torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)
        blocks.append(QueryBlock(start, stop, _spans(keys), bias))
    return tuple(blocks)


def _cuts(ends: Tensor, size: int) -> list[tuple[int, int, int]]:
    """(root, start, stop) of every block: no block spans two trees, and those of a tree are of about equal length.

    A short tree is a block of its own, so that the many small trees of a row are not computed against each other.
    """
    index = torch.arange(len(ends))
    # Where no interval that began so far reaches any further, all open subtrees are closed: the last token of a tree.
    last = (ends.cummax(0).values == index + 1).nonzero().squeeze(1)  # (trees,)
    cuts = []
    for root, end in pairwise([0, *(last + 1).tolist()]):
        parts = max(1, (end - root) // size)  # equal parts of at least `size`, instead of a small remainder at the end
        bounds = [root + (end - root) * part // parts for part in range(parts + 1)]
        cuts += [(root, start, stop) for start, stop in pairwise(bounds)]
    return cuts


@dataclass(frozen=True)
class RowMask:
    """The mask of a row, from its `ends`, in the forms that attention on a CPU needs: computed once for all layers."""

    ends: Tensor

    @cached_property
    def blocks(self) -> tuple[QueryBlock, ...]:
        return query_blocks(self.ends)

    @cached_property
    def chains(self) -> list[int] | None:
        """The lengths of the row's trees if none of them branches, else None."""
        # Along a chain all tokens end together, and the next tree ends later. Ends fall only from a token with several
        # children to the first of them, whose subtree closes before its parent's.
        branches = bool((self.ends.diff() < 0).any())
        return None if branches else self.ends.unique_consecutive(return_counts=True)[1].tolist()


def _spans(index: Tensor) -> tuple[tuple[int, int], ...]:
    """Ascending indices as half-open intervals."""
    cuts = ((index.diff() != 1).nonzero().squeeze(1) + 1).tolist()
    firsts, lasts = [0, *cuts], [*cuts, len(index)]
    return tuple((int(index[a]), int(index[b - 1]) + 1) for a, b in zip(firsts, lasts, strict=True))


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: BlockMask | None,
    scaling: float,
    row_mask: RowMask | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: (1, heads, tokens, width) to (1, tokens, heads, width)."""
    if attention_mask is not None:
        output, _ = flex_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    assert row_mask is not None, "a model with tree attention is called with `attention_arguments`"
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotary embedding leaves them in float32
    if row_mask.chains is not None and value.dtype != torch.bfloat16:  # in bfloat16 torch's CPU kernel is the slower
        return chain_attention(query, key, value, scaling, row_mask.chains), None
    with torch.autocast(query.device.type, enabled=False):  # autocast would send every softmax to float32 and back
        output = BlockwiseAttention.apply(query[0], key[0], value[0], scaling, row_mask.blocks)
    return output[None], None


def chain_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, lengths: list[int]) -> Tensor:
    """Causal attention within each of the concatenated sequences; shapes as in `tree_attention`."""
    # Grouped-query attention: each query head gets its own copy of the key and value head that its group shares.
    heads = [x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (query, key, value)]
    outputs = [  # of each sequence: (1, heads, length, width)
        F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scaling)
        for queries, keys, values in zip(*(x.split(lengths, dim=2) for x in heads), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)


AttentionInterface.register(NAME, tree_attention)


class BlockwiseAttention(torch.autograd.Function):
    """Softmax attention, one block of queries after the other; probabilities are recomputed in the backward pass.

    queries (heads, tokens, width), keys and values (key heads, tokens, width) -> (tokens, heads, width). Groups of
    heads / key heads query heads share a key head (grouped-query attention).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, blocks: tuple[QueryBlock, ...]
    ) -> Tensor:
        heads, tokens, width = query.shape
        output = query.new_empty(tokens, heads, width)
        for block in blocks:
            probabilities = _probabilities(query, _gather(key, block), scaling, block)
            rows = torch.bmm(probabilities, _gather(value, block)).view(heads, -1, width)  # (heads, queries, width)
            output[block.start : block.stop] = rows.transpose(0, 1)
        # Not the probabilities: they grow with queries times keys, the output only with queries.
        ctx.save_for_backward(query, key, value, output)
        ctx.scaling, ctx.blocks = scaling, blocks
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output = ctx.saved_tensors
        gradient = gradients[0].transpose(0, 1)  # (heads, tokens, width)
        # The softmax backward is dS = P * (dP - rowsum(P * dP)); as in FlashAttention, rowsum(P * dP) = rowsum(O * dO),
        # which needs no probabilities.
        inner = (gradient * output.transpose(0, 1)).sum(-1, keepdim=True)  # (heads, tokens, 1)
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block in ctx.blocks:
            keys = _gather(key, block)
            probabilities = _probabilities(query, keys, ctx.scaling, block)
            queries, upstream = _grouped(query, key, block), _grouped(gradient, key, block)
            # (key heads, group * queries, keys): first dP, then dS in place
            d_scores = torch.bmm(upstream, _gather(value, block).transpose(1, 2))
            d_scores = d_scores.sub_(_grouped(inner, key, block)).mul_(probabilities).mul_(ctx.scaling)
            d_query[:, block.start : block.stop] = torch.bmm(d_scores, keys).view(len(query), -1, query.shape[2])
            # Summing over a group's queries here gives a shared key head the gradients of all its query heads.
            _scatter(d_key, torch.bmm(d_scores.transpose(1, 2), queries), block)
            _scatter(d_value, torch.bmm(probabilities.transpose(1, 2), upstream), block)
        return d_query, d_key, d_value, None, None


def _probabilities(query: Tensor, keys: Tensor, scaling: float, block: QueryBlock) -> Tensor:
    """softmax(scaling * q k + bias): (key heads, group * queries, keys)."""
    scores = torch.bmm(_grouped(query, keys, block), keys.transpose(1, 2))
    by_query = scores.view(-1, block.stop - block.start, keys.shape[1])  # (heads, queries, keys), as the bias needs it
    return torch.add(block.bias.to(scores.dtype), by_query, alpha=scaling).softmax(-1).view(scores.shape)


def _grouped(rows: Tensor, keys: Tensor, block: QueryBlock) -> Tensor:
    """The block's part of (heads, tokens, width) as (key heads, group * queries, width)."""
    # Heads of a group are adjacent, so a reshape is enough; one matrix product per key head then serves all of them.
    return rows[:, block.start : block.stop].reshape(len(keys), -1, rows.shape[2])


def _gather(rows: Tensor, block: QueryBlock) -> Tensor:
    """What the block sees of (key heads, tokens, width)."""
    parts = [rows[:, start:stop] for start, stop in block.spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _scatter(total: Tensor, part: Tensor, block: QueryBlock) -> None:
    """Add the gradients of the keys that the block sees to those of all keys; several blocks see the same key."""
    done = 0
    for start, stop in block.spans:
        total[:, start:stop] += part[:, done : done + stop - start]
        done += stop - start
