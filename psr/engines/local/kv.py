"""KV cache: a pool of single tokens for prefixes, an arena of rows for decoding, and both as transformers caches.

Transformers' attention passes a layer's new keys and values to `update` and attends to what that returns; this is all
that a model sees of the classes below. Knows tensors. Does not know which token a slot holds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from psr.engines.base import EngineError

FIRST_SLOTS = 1024


@dataclass(frozen=True)
class KVShape:
    """Shape of one token's keys (or values) in every layer; `size` is the width of a head."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        return 2 * self.layers * self.heads * self.size * self.dtype.itemsize  # keys and values


@torch.inference_mode()
def kv_shape(model: PreTrainedModel) -> KVShape:
    """Found by running the model on one token. Raises EngineError where not all layers see the whole context."""
    # Not from config.json: model families name their key-value heads and head widths differently, or leave them out.
    context, cache = int(model.config.max_position_embeddings), DynamicCache(config=model.config)
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=cache)
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    if len(layers) < len(cache.layers) or min([context, *windows]) < context:
        raise EngineError(
            f"the model ({model.config.model_type}) has layers that do not see its whole context of {context} tokens, "
            "which the in-process engine does not serve: lower max_position_embeddings to the sliding window"
        )
    keys = layers[0].keys  # (1, heads, 1, size)
    assert keys is not None
    return KVShape(len(layers), keys.shape[1], keys.shape[3], keys.dtype, keys.device)


def grown(shape: KVShape, old: list[Tensor], size: tuple[int, ...], kept: tuple[int, ...]) -> list[Tensor]:
    """One tensor (*size, heads, head size) per layer, whose first (*kept) entries are copied from `old`.

    The rest is zeros: uninitialized memory may hold a NaN, and a masked NaN times a probability of 0 is still NaN.
    """
    new: list[Tensor] = []
    for layer in range(shape.layers):
        new.append(torch.zeros(*size, shape.heads, shape.size, dtype=shape.dtype, device=shape.device))
        if old:
            part = tuple(slice(n) for n in kept)
            new[layer][part] = old[layer][part]
    return new


class Pool:
    """Keys and values of single tokens, (slots, heads, size) per layer; slot 0 takes the writes of padding."""

    def __init__(self, shape: KVShape, capacity: int) -> None:
        self._shape, self._most, self._slots = shape, capacity + 1, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def fit(self, slots: int) -> None:
        """Make room for slots 0 to `slots - 1`; doubling keeps the total cost of the copies linear."""
        if slots > self._slots:
            size = min(self._most, max(slots, 2 * self._slots, FIRST_SLOTS))
            for tensors in (self.keys, self.values):
                tensors[:] = grown(self._shape, tensors, (size,), (self._slots,))
            self._slots = size


class PackedCache:
    """Cache of one prefill of packed prompts: reads every pack's context from the pool and writes new tokens to it."""

    def __init__(self, pool: Pool, context: Tensor, slots: Tensor) -> None:
        self._pool, self._context, self._slots = pool, context, slots.flatten()

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """New keys and values (packs, heads, tokens, size) -> those with the context's, (packs, heads, seen, size)."""
        both = []
        for new, pool in ((keys, self._pool.keys[layer]), (values, self._pool.values[layer])):
            pool[self._slots] = new.transpose(1, 2).flatten(0, 1)  # (packs * tokens, heads, size)
            # pool[context] is (packs, cached, heads, size) and comes first, as in the mask: seen = cached + tokens
            both.append(torch.cat([pool[self._context].transpose(1, 2), new], dim=2))
        return both[0], both[1]


class Arena:
    """Keys and values of the sequences under way, (rows, columns, heads, size) per layer, one row each.

    A row is contiguous and written in place: a decoding step adds one column, and copies nothing.
    """

    def __init__(self, shape: KVShape) -> None:
        self._shape, self.rows, self.columns = shape, 0, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def resize(self, rows: int, columns: int, used: int) -> None:
        """Resize to (rows, columns), keeping the first `used` rows."""
        for tensors in (self.keys, self.values):
            tensors[:] = grown(self._shape, tensors, (rows, columns), (used, min(self.columns, columns)))
        self.rows, self.columns = rows, columns

    def load(self, pool: Pool, rows: Tensor, slots: Tensor) -> None:
        """Copy the pool's tokens in `slots` (rows, columns) to the first columns of `rows` (rows,)."""
        for mine, theirs in ((self.keys, pool.keys), (self.values, pool.values)):
            for tensor, source in zip(mine, theirs, strict=True):
                tensor[rows, : slots.shape[1]] = source[slots]

    def store(self, pool: Pool, rows: Tensor, columns: Tensor, slots: Tensor) -> None:
        """Copy single tokens at (rows, columns) to slots of the pool; all three are (tokens,)."""
        for mine, theirs in ((self.keys, pool.keys), (self.values, pool.values)):
            for tensor, target in zip(mine, theirs, strict=True):
                target[slots] = tensor[rows, columns]

    def copy(self, sources: list[int], targets: list[int], columns: int) -> None:
        """Copy the first `columns` of the source rows to the target rows; no row is both."""
        for tensor in (*self.keys, *self.values):
            tensor[targets, :columns] = tensor[sources, :columns]


class ArenaCache:
    """Cache of one decoding step: appends a token to each of the first rows of the arena."""

    def __init__(self, arena: Arena, lengths: Tensor, longest: int) -> None:
        self._arena, self._lengths, self._longest = arena, lengths, longest
        self._rows = torch.arange(len(lengths), device=lengths.device)

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """New keys and values (rows, heads, 1, size) -> those of the rows so far, (rows, heads, longest, size)."""
        both = []
        for new, arena in ((keys, self._arena.keys[layer]), (values, self._arena.values[layer])):
            arena[self._rows, self._lengths] = new[:, :, 0]  # (rows, heads, size)
            # A view, not a copy; columns beyond a row's own length are masked.
            both.append(arena[: len(self._rows), : self._longest].transpose(1, 2))
        return both[0], both[1]
