"""Softmax attention of a packed row on a CPU: no key is computed that no query of its block sees.

Knows blocks of queries with their keys and mask. Does not know trees, models or why a query sees a key.
"""

from typing import Any

import torch
from torch import Tensor

from psr.trees.row_mask import QueryBlock


class BlockwiseAttention(torch.autograd.Function):
    """Softmax attention, one block of queries after the other; probabilities are recomputed in the backward pass.

    queries (heads, tokens, width), keys (key heads, tokens, width) and values (key heads, tokens, value width) ->
    (tokens, heads, value width). Every heads / key heads query heads share a key head (grouped-query attention).
    `softcap` c makes c tanh(s / c) of a score s; `sinks` (heads,) are scores of a key whose value is nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        blocks: tuple[QueryBlock, ...],
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        heads, tokens, _ = query.shape
        output = query.new_empty(tokens, heads, value.shape[2])
        for block in blocks:
            scores, scale = _scores(query, _gather(key, block), scaling, block, softcap)
            probabilities = _probabilities(scores, scale, block, sinks)
            rows = torch.bmm(probabilities, _gather(value, block)).view(heads, -1, value.shape[2])
            output[block.start : block.stop] = rows.transpose(0, 1)
        # Not the probabilities: they grow with queries times keys, the output only with queries.
        ctx.save_for_backward(query, key, value, output, sinks)
        ctx.scaling, ctx.blocks, ctx.softcap = scaling, blocks, softcap
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, sinks = ctx.saved_tensors
        gradient = gradients[0].transpose(0, 1)
        # The softmax backward is dS = P * (dP - rowsum(P * dP)); as in FlashAttention, rowsum(P * dP) = rowsum(O * dO),
        # which needs no probabilities. A sink has no value, so it adds nothing to that sum.
        inner = (gradient * output.transpose(0, 1)).sum(-1, keepdim=True)  # (heads, tokens, 1)
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        d_sinks = None if sinks is None else torch.zeros_like(sinks)
        for block in ctx.blocks:
            keys = _gather(key, block)
            scores, scale = _scores(query, keys, ctx.scaling, block, ctx.softcap)
            probabilities = _probabilities(scores, scale, block, sinks)
            queries, upstream = _grouped(query, key, block), _grouped(gradient, key, block)
            sums = _grouped(inner, key, block)
            # (key heads, group * queries, keys): first dP, then dS in place
            d_scores = torch.bmm(upstream, _gather(value, block).transpose(1, 2))
            d_scores = d_scores.sub_(sums).mul_(probabilities).mul_(ctx.scaling)
            if ctx.softcap is not None:
                d_scores.mul_(1 - (scores / ctx.softcap).square())
            if d_sinks is not None:  # what the keys leave of the probability is the sink's
                rest = 1 - probabilities.sum(-1, keepdim=True)
                d_sinks -= (rest * sums).view(len(sinks), -1).sum(1)
            d_query[:, block.start : block.stop] = torch.bmm(d_scores, keys).view(len(query), -1, query.shape[2])
            # Summing over a group's queries here gives a shared key head the gradients of all its query heads.
            _scatter(d_key, torch.bmm(d_scores.transpose(1, 2), queries), block)
            _scatter(d_value, torch.bmm(probabilities.transpose(1, 2), upstream), block)
        return d_query, d_key, d_value, None, None, None, d_sinks


def _scores(
    query: Tensor, keys: Tensor, scaling: float, block: QueryBlock, softcap: float | None
) -> tuple[Tensor, float]:
    """Scores before the mask, (key heads, queries of all heads of the group, keys), and what is to be multiplied yet.

    Scaling is left to the addition of the mask, which reads all scores anyway; a soft-cap has to come after it.
    """
    scores = torch.bmm(_grouped(query, keys, block), keys.transpose(1, 2))
    return (scores, scaling) if softcap is None else (scores.mul_(scaling / softcap).tanh_().mul_(softcap), 1.0)


def _probabilities(scores: Tensor, scale: float, block: QueryBlock, sinks: Tensor | None) -> Tensor:
    """softmax(scale * scores + bias), of which a sink takes its part; shapes as `scores`."""
    by_query = scores.view(-1, block.stop - block.start, scores.shape[2])  # (heads * queries, keys) by head
    biased = torch.add(block.bias.to(scores.dtype), by_query, alpha=scale)
    if sinks is None:
        return biased.softmax(-1).view(scores.shape)
    column = sinks[:, None, None].expand(-1, biased.shape[1], 1)
    return torch.cat([biased, column], dim=-1).softmax(-1)[..., :-1].reshape(scores.shape)


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
