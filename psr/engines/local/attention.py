"""Attention of the in-process engine: transformers' own kernel, or where that lacks what a model needs, the plain way.

What a model tells its attention layer by layer is heeded: a sliding window, a soft-cap of the scores, attention sinks.
Knows which token sees which before any window, and positions. Does not know packs, rows or the cache.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from psr.trees.own_mask import OwnMask

NAME = "psr_engine"


@dataclass(frozen=True, eq=False)
class Seen(OwnMask):
    """Who sees whom in one forward, for all its layers.

    Args:
        full: 0 where a query sees a key and -inf elsewhere: (sequences, 1, queries, keys).
        queries: positions (sequences, queries).
        keys: positions (sequences, keys).
    """

    full: Tensor
    queries: Tensor
    keys: Tensor
    _within: dict[int, Tensor] = field(default_factory=dict)

    def within(self, window: int | None) -> Tensor:
        """The mask of a layer with this sliding window: keys that are `window` or more positions back are hidden."""
        if window is None:
            return self.full
        if window not in self._within:
            far = self.queries[:, :, None] - self.keys[:, None, :] >= window
            self._within[window] = self.full.masked_fill(far[:, None], -torch.inf) if far.any() else self.full
        return self._within[window]


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen` (sequences, queries, keys) is true and -inf elsewhere: (sequences, 1, queries, keys)."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)[:, None]


def cached_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Seen,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: (sequences, heads, queries, width) to (sequences, queries, heads, width)."""
    mask = attention_mask.within(sliding_window)
    if softcap is None and s_aux is None:
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + mask
    if s_aux is not None:  # a key of this score whose value is nothing
        sinks = s_aux.to(scores.dtype)[None, :, None, None].expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    probabilities = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (probabilities[..., : key.shape[2]] @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, cached_attention)
