"""The mask of a packed row in the forms that attention needs, made once for all layers that ask alike.

A token sees its own path, or with a sliding window the last tokens of it. Knows `ends` (psr/trees/step_tree.py) and
positions. Does not know how attention is computed.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from psr.trees.own_mask import OwnMask

BLOCK = 128
"""Queries computed together on a CPU: with fewer, the overhead of the calls exceeds what the skipped keys save."""


@dataclass(frozen=True)
class QueryBlock:
    """The queries `start`, ..., `stop` - 1, the spans of keys that any of them sees, and the mask among these.

    `bias` is 0 where a query sees a key and -inf elsewhere: (queries, keys).
    """

    start: int
    stop: int
    spans: tuple[tuple[int, int], ...]
    bias: Tensor


@dataclass(frozen=True, eq=False)
class RowMask(OwnMask):
    """Token k of the row is seen by the tokens k, ..., ends[k] - 1; `positions` are counted along a token's path.

    A window of w tokens hides those that are w or more positions back. Both tensors are (tokens,).
    """

    ends: Tensor
    positions: Tensor
    _blocks: dict[int | None, tuple[QueryBlock, ...]] = field(default_factory=dict)
    _flex: dict[int | None, BlockMask] = field(default_factory=dict)

    def blocks(self, window: int | None = None) -> tuple[QueryBlock, ...]:
        """For blockwise attention in layers with this window."""
        window = window if self.cut_by(window) else None
        if window not in self._blocks:
            self._blocks[window] = query_blocks(self.ends, self.positions, window)
        return self._blocks[window]

    def flex(self, window: int | None = None) -> BlockMask:
        """For FlexAttention in layers with this window."""
        window = window if self.cut_by(window) else None
        if window not in self._flex:
            self._flex[window] = block_mask(self.ends, self.positions, window)
        return self._flex[window]

    def cut_by(self, window: int | None) -> bool:
        """Whether the window hides anything that a token of this row would see."""
        return window is not None and window <= self._last

    @cached_property
    def _last(self) -> int:
        return int(self.positions.max())

    @cached_property
    def chains(self) -> list[int] | None:
        """The lengths of the row's trees if none of them branches, else None."""
        # Along a chain all tokens end together, and the next tree ends later. Ends fall only from a token with several
        # children to the first of them, whose subtree closes before its parent's.
        branches = bool((self.ends.diff() < 0).any())
        return None if branches else self.ends.unique_consecutive(return_counts=True)[1].tolist()


def dense_mask(ends: Tensor, positions: Tensor, window: int | None = None) -> Tensor:
    """Which query (rows) sees which key (columns): (tokens, tokens), bool."""
    index = torch.arange(len(ends), device=ends.device)  # (tokens,)
    # A query sees a key that stands before it (causal) and in whose subtree it lies (same path).
    seen = (index[:, None] >= index) & (index[:, None] < ends)
    return seen if window is None else seen & (positions[:, None] - positions < window)


def block_mask(ends: Tensor, positions: Tensor, window: int | None = None) -> BlockMask:
    """The same mask for FlexAttention."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (query >= key) & (query < ends[key])
        return seen if window is None else seen & (positions[query] - positions[key] < window)

    return create_block_mask(sees, None, None, len(ends), len(ends), device=ends.device)


def query_blocks(
    ends: Tensor, positions: Tensor, window: int | None = None, size: int = BLOCK
) -> tuple[QueryBlock, ...]:
    """The row cut into blocks of about `size` queries, each with the keys that it needs."""
    blocks = []
    for root, start, stop in _cuts(ends, size):
        # A key whose subtree ends before the block begins is seen by none of its queries: sibling branches drop out.
        keys = root + (ends[root:stop] > start).nonzero().squeeze(1)  # (keys,)
        if window is not None:  # of those that the block's queries see at all, those that are near enough for one
            keys = keys[positions[keys] > positions[start:stop].min() - window]
        queries = torch.arange(start, stop)[:, None]  # (queries, 1)
        hidden = (queries < keys) | (queries >= ends[keys])  # (queries, keys)
        if window is not None:
            hidden |= positions[queries] - positions[keys] >= window
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


def _spans(index: Tensor) -> tuple[tuple[int, int], ...]:
    """Ascending indices as half-open intervals."""
    cuts = ((index.diff() != 1).nonzero().squeeze(1) + 1).tolist()
    firsts, lasts = [0, *cuts], [*cuts, len(index)]
    return tuple((int(index[a]), int(index[b - 1]) + 1) for a, b in zip(firsts, lasts, strict=True))
