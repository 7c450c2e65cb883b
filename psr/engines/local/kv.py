"""KV cache: a pool of single tokens for prefixes, an arena of rows for decoding, and both as transformers caches.

Transformers' attention passes a layer's new keys and values to `update` and attends to what that returns; this is all
that a model sees of the classes below. Knows tensors. Does not know which token a slot holds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from psr.engines.base import EngineError
from psr.policy.self_check import WRONG

FIRST_SLOTS = 1024


@dataclass(frozen=True)
class KVShape:
    """Of one token's keys and values in every layer; a head's values may be of another size than its keys."""

    layers: int
    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        return self.layers * self.heads * (self.key_size + self.value_size) * self.dtype.itemsize


@torch.inference_mode()
def kv_shape(model: PreTrainedModel) -> KVShape:
    """Asks the model itself, with one token. Raises EngineError where its layers keep something else."""
    cache = DynamicCache(config=model.config)
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=cache)
        kept = [(layer.keys, layer.values) for layer in cache.layers if isinstance(layer, DynamicLayer)]
    except WRONG:  # a model that has no use for such a cache
        kept = []
    shapes = {(*keys.shape, *values.shape) if keys is not None and values is not None else () for keys, values in kept}
    if len(kept) < len(cache.layers) or len(shapes) != 1 or () in shapes:
        raise EngineError(
            f"the in-process engine does not serve {model.config.model_type}: it keeps keys and values of one shape, "
            "and the layers of this model keep others, or something else; use the SGLang engine"
        )
    keys, values = kept[0]
    assert keys is not None and values is not None
    return KVShape(len(kept), keys.shape[1], keys.shape[3], values.shape[3], keys.dtype, keys.device)


def grown(shape: KVShape, head: int, old: list[Tensor], size: tuple[int, ...], kept: tuple[int, ...]) -> list[Tensor]:
    """One tensor (*size, heads, `head`, the size of one) per layer, its beginning (*kept) taken from `old`.

    The rest is zeros: uninitialized memory may hold a NaN, and a masked NaN times a probability of 0 is still NaN.
    """
    new: list[Tensor] = []
    for layer in range(shape.layers):
        new.append(torch.zeros(*size, shape.heads, head, dtype=shape.dtype, device=shape.device))
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
            for tensors, head in ((self.keys, self._shape.key_size), (self.values, self._shape.value_size)):
                tensors[:] = grown(self._shape, head, tensors, (size,), (self._slots,))
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
        """Make it (rows, columns), keeping the first `used` rows."""
        for tensors, head in ((self.keys, self._shape.key_size), (self.values, self._shape.value_size)):
            tensors[:] = grown(self._shape, head, tensors, (rows, columns), (used, min(self.columns, columns)))
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
