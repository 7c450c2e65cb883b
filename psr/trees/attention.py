"""Attention among the tokens of a packed row of step trees: the one place that decides how it is computed.

On CUDA it is FlexAttention with a block mask. On a CPU it is the blockwise attention below, which never computes keys
that no query of the block sees; or, for sequences that share nothing, torch's own kernel. All are exact, and get into
transformers' own models by its attention interface.

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
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, PreTrainedModel

from psr.trees.flex import flex_attend, flex_mask

NAME = "psr_step_tree"
BLOCK = 128
"""Queries that are computed together on a CPU: fewer, and the calls cost more than the keys that they save."""


def use_tree_attention(policy: PreTrainedModel) -> PreTrainedModel:
    """Have the model compute its attention here; from now on it is called with `attention_arguments`."""
    policy.set_attn_implementation(NAME)
    return policy


def attention_arguments(ends: Tensor) -> dict[str, Any]:
    """What the model is called with, for a row whose token k is seen by the tokens k, ..., ends[k] - 1; (tokens,)."""
    if ends.device.type == "cuda":
        return {"attention_mask": flex_mask(ends)}
    return {"row_mask": RowMask(ends)}


def dense_mask(ends: Tensor) -> Tensor:
    """Which query (rows) sees which key (columns): (tokens, tokens), bool."""
    index = torch.arange(len(ends), device=ends.device)
    return (index[:, None] >= index) & (index[:, None] < ends)


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
        keys = root + (ends[root:stop] > start).nonzero().squeeze(1)
        queries = torch.arange(start, stop)[:, None]
        hidden = (queries < keys) | (queries >= ends[keys])
        bias = torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)
        blocks.append(QueryBlock(start, stop, _spans(keys), bias))
    return tuple(blocks)


def _cuts(ends: Tensor, size: int) -> list[tuple[int, int, int]]:
    """(root, start, stop) of every block: no block reaches over two trees, and those of a tree are of equal length.

    Short trees are whole, which saves many small trees in a row from being computed against each other.
    """
    index = torch.arange(len(ends))
    last = (ends.cummax(0).values == index + 1).nonzero().squeeze(1)  # nothing before sees further: a tree ends
    cuts = []
    for root, end in pairwise([0, *(last + 1).tolist()]):
        parts = max(1, (end - root) // size)
        bounds = [root + (end - root) * part // parts for part in range(parts + 1)]
        cuts += [(root, start, stop) for start, stop in pairwise(bounds)]
    return cuts


@dataclass(frozen=True)
class RowMask:
    """The mask of a row by its `ends`, in the forms that attention on a CPU needs, made once for all layers."""

    ends: Tensor

    @cached_property
    def blocks(self) -> tuple[QueryBlock, ...]:
        return query_blocks(self.ends)

    @cached_property
    def chains(self) -> list[int] | None:
        """The lengths of the row's trees if none of them branches."""
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
        return flex_attend(query, key, value, attention_mask, scaling), None
    assert row_mask is not None, "a model with tree attention is called with `attention_arguments`"
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotary embedding leaves them in float32
    if row_mask.chains is not None and value.dtype != torch.bfloat16:  # where torch's kernel is the slower one
        return chain_attention(query, key, value, scaling, row_mask.chains), None
    with torch.autocast(query.device.type, enabled=False):  # or softmax would go to float32 and back
        output = BlockwiseAttention.apply(query[0], key[0], value[0], scaling, row_mask.blocks)
    return output[None], None


def chain_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, lengths: list[int]) -> Tensor:
    """Causal attention within each of the sequences that stand one after the other; shapes as in `tree_attention`."""
    heads = [x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (query, key, value)]
    outputs = [
        F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scaling)
        for queries, keys, values in zip(*(x.split(lengths, dim=2) for x in heads), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)


AttentionInterface.register(NAME, tree_attention)


class BlockwiseAttention(torch.autograd.Function):
    """Softmax attention, one block of queries after the other; probabilities are computed again for the gradient.

    queries (heads, tokens, width), keys and values (key heads, tokens, width) -> (tokens, heads, width). Every
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
            rows = torch.bmm(probabilities, _gather(value, block)).view(heads, -1, width)
            output[block.start : block.stop] = rows.transpose(0, 1)
        ctx.save_for_backward(query, key, value, output)
        ctx.scaling, ctx.blocks = scaling, blocks
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, output = ctx.saved_tensors
        gradient = gradients[0].transpose(0, 1)
        inner = (gradient * output.transpose(0, 1)).sum(-1, keepdim=True)
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block in ctx.blocks:
            keys = _gather(key, block)
            probabilities = _probabilities(query, keys, ctx.scaling, block)
            queries, upstream = _grouped(query, key, block), _grouped(gradient, key, block)
            d_scores = torch.bmm(upstream, _gather(value, block).transpose(1, 2))
            d_scores = d_scores.sub_(_grouped(inner, key, block)).mul_(probabilities).mul_(ctx.scaling)
            d_query[:, block.start : block.stop] = torch.bmm(d_scores, keys).view(len(query), -1, query.shape[2])
            _scatter(d_key, torch.bmm(d_scores.transpose(1, 2), queries), block)
            _scatter(d_value, torch.bmm(probabilities.transpose(1, 2), upstream), block)
        return d_query, d_key, d_value, None, None


def _probabilities(query: Tensor, keys: Tensor, scaling: float, block: QueryBlock) -> Tensor:
    """softmax(scaling * q k + bias): (key heads, queries of all heads of the group, keys)."""
    scores = torch.bmm(_grouped(query, keys, block), keys.transpose(1, 2))
    by_query = scores.view(-1, block.stop - block.start, keys.shape[1])
    return torch.add(block.bias.to(scores.dtype), by_query, alpha=scaling).softmax(-1).view(scores.shape)


def _grouped(rows: Tensor, keys: Tensor, block: QueryBlock) -> Tensor:
    """The block's part of (heads, tokens, width) as (key heads, heads per key head * queries, width)."""
    return rows[:, block.start : block.stop].reshape(len(keys), -1, rows.shape[2])


def _gather(rows: Tensor, block: QueryBlock) -> Tensor:
    """What the block sees of (key heads, tokens, width)."""
    parts = [rows[:, start:stop] for start, stop in block.spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _scatter(total: Tensor, part: Tensor, block: QueryBlock) -> None:
    """Add gradients of the keys that the block sees to those of all keys."""
    done = 0
    for start, stop in block.spans:
        total[:, start:stop] += part[:, done : done + stop - start]
        done += stop - start
