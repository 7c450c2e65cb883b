"""What FlexAttention needs to stay fast on a GPU: few lengths, one mask function, and an eye on the compiler.

The kernel is compiled for every length anew, which takes seconds; past a limit of recompilations torch computes all
scores of a row at once instead, with one warning. So rows are padded to a few lengths that are known before the first
step (`padded_length`), all rows share one mask function, and it is an error where torch would not compile.

Knows `ends` and positions, the mask of a row (psr/trees/step_tree.py). Does not know trees, models or losses.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

BLOCK = 128
"""Tokens of a block of the mask: lengths are multiples of it."""
FEWEST = 256
"""Shorter rows are padded to this length."""
STEPS = 4
"""Lengths from one power of two to the next: at most a fifth of a row is padding, an eighth on average."""
GRAPHS = 3
"""Compiled for a length: the mask, attention with gradients, and attention without, for the reference."""
LIMIT = 64
"""Compilations of one function that are allowed."""


def uses_flex(device: torch.device) -> bool:
    """Whether attention of rows on this device is FlexAttention's."""
    return device.type == "cuda"


def padded_length(tokens: int) -> int:
    """The length that a row of so many tokens is padded to: 256, 384, 512, 640, 768, 896, 1024, 1280, ..."""
    if tokens <= FEWEST:
        return FEWEST
    below = 1 << ((tokens - 1).bit_length() - 1)  # the largest power of two that is smaller
    step = max(BLOCK, below // STEPS)
    return -(-tokens // step) * step


def lengths_up_to(tokens: int) -> list[int]:
    """All lengths of rows of at most so many tokens."""
    found, length = [], padded_length(1)
    while length < padded_length(tokens):
        found.append(length)
        length = padded_length(length + 1)
    return [*found, length]


def kernel_padding(ends: Tensor) -> int:
    """Tokens that a row needs behind its own: none on a CPU, where nothing is compiled."""
    return padded_length(len(ends)) - len(ends) if uses_flex(ends.device) else 0


def padded_ends(ends: Tensor, length: int) -> Tensor:
    """`ends` with tokens behind that see themselves alone and are seen by nobody else: (length,)."""
    more = torch.arange(len(ends) + 1, length + 1, device=ends.device)
    return torch.cat([ends, more])


def flex_mask(ends: Tensor, positions: Tensor, window: int | None = None) -> BlockMask:
    """Which token sees which, for FlexAttention; on a GPU the mask is made by a compiled function, block by block.

    Uncompiled it would hold every (query, key) pair of the row. `ends` and `positions` are (tokens,).
    """
    beyond = torch.full_like(positions, -1) if window is None else positions - window
    make: Any = compiled(_block_mask) if ends.device.type == "cuda" else _block_mask
    return make(ends, positions, beyond)


def _block_mask(ends: Tensor, positions: Tensor, beyond: Tensor) -> BlockMask:
    # The mask function is made inside what is compiled. A compiled `create_block_mask` would inspect the one it is
    # given, and each row gives another: it would be compiled anew for every row.
    return create_block_mask(_Sees(ends, positions, beyond), None, None, len(ends), len(ends), device=ends.device)


def flex_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention under the mask: queries (1, heads, tokens, width), keys and values with as many heads or fewer.

    `softcap` c makes c tanh(s / c) of a score s; `sinks` (heads,) are scores of a key whose value is nothing. Returns
    (1, tokens, heads, width) in the dtype of the values. On a CPU torch computes it uncompiled: for tests.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotary embedding leaves them in float32
    grouped = query.shape[1] // key.shape[1]
    if query.shape[1] & (query.shape[1] - 1):  # the kernel's grouping is for powers of two
        key, value = key.repeat_interleave(grouped, dim=1), value.repeat_interleave(grouped, dim=1)
    attend: Any = compiled(flex_attention) if query.device.type == "cuda" else flex_attention
    output, aux = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else _Softcap(softcap),
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=sinks is not None),
    )
    if sinks is not None:
        # With a sink b, the sum of exponentials exp(lse) becomes exp(lse) + exp(b): probabilities shrink by the ratio.
        output = output * torch.sigmoid(aux.lse - sinks[None, :, None])[..., None].to(output.dtype)
    return output.transpose(1, 2)


class _Sees:
    """The mask function of a row: a token sees keys on its own path whose position is above `beyond`, all (tokens,).

    One class for all rows, and the window in a tensor as well: the compiler takes them for inputs, not for new code.
    """

    def __init__(self, ends: Tensor, positions: Tensor, beyond: Tensor) -> None:
        self.ends, self.positions, self.beyond = ends, positions, beyond

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < self.ends[key]) & (self.positions[key] > self.beyond[query])


class _Softcap:
    """The score function of a model that caps its scores."""

    def __init__(self, cap: float) -> None:
        self.cap = cap

    def __call__(self, score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.cap * torch.tanh(score / self.cap)


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled for every length anew; an error where torch would compute it uncompiled."""
    import torch._dynamo

    # Its own limit of recompilations is 8, after which it gives up on the function, with a warning.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, LIMIT)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    warnings.filterwarnings("error", message="flex_attention called without torch.compile")
    return torch.compile(function, dynamic=False)


def compilations() -> int:
    """How many graphs torch has compiled in this process."""
    import torch._dynamo.utils

    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


class CompilationWatch:
    """Warns, once, when torch has compiled more than the lengths that it has seen account for.

    A length needs GRAPHS of them: the mask, and attention with and without gradients.
    """

    def __init__(self) -> None:
        self.lengths: set[int] = set()
        self._before, self._warned = compilations(), False

    def see(self, tokens: int) -> None:
        self.lengths.add(padded_length(tokens))

    def check(self) -> int:
        """Compilations since the watch began."""
        count = compilations() - self._before
        if count > GRAPHS * len(self.lengths) and not self._warned:
            self._warned = True
            warnings.warn(
                f"torch has compiled {count} graphs for rows of {len(self.lengths)} lengths "
                f"({', '.join(map(str, sorted(self.lengths)))}), and {GRAPHS} for each would do: training waits for "
                "the compiler. TORCH_LOGS=recompiles says why",
                stacklevel=2,
            )
        return count
