"""What FlexAttention needs to stay fast on a GPU: few lengths, one mask function, and an eye on the compiler.

The kernel is compiled for every length anew, which takes seconds; past a limit of recompilations torch computes all
scores of a row at once instead, with one warning. So rows are padded to a few lengths that are known before the first
step (`padded_length`), all rows share the code of one mask function, and it is an error where torch would not compile.

Knows `ends` and positions, the mask of a row (psr/trees/step_tree.py). Does not know trees, models or losses.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

BLOCK = 128
"""Tokens of a block of the mask: lengths are multiples of it."""
FEWEST = 256
"""Shorter rows are padded to this length."""
STEPS = 4
"""Lengths from one power of two to the next: at most a fifth of a row is padding, an eighth on average."""
GRAPHS = 2
"""Compiled for a length: attention with gradients, and attention without, for the reference."""
TOGETHER = 8
"""Blocks of queries whose mask exists token by token at the same time."""
NARROWEST = 16
"""Width of a head that the kernel wants at least."""
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
    """Which token sees which, for FlexAttention; `ends` and `positions` are (tokens,), a multiple of BLOCK.

    Computed here and not by a compiled `create_block_mask`, which takes longer to compile than the kernel does, for
    every length and again without gradients. Uncompiled, that would hold every (query, key) pair of the row at once.
    """
    beyond = torch.full_like(positions, -1) if window is None else positions - window

    # A function and not an object: its code is the same for all rows, and the compiler takes the tensors for inputs.
    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < ends[key]) & (positions[key] > beyond[query])

    tokens = torch.arange(len(ends), device=ends.device)
    zero = tokens[0]
    counts = []  # of the pairs in every (query block, key block) that see each other
    for queries in tokens.split(TOGETHER * BLOCK):
        seen = sees(zero, zero, queries[:, None], tokens[None])  # (queries, tokens)
        counts.append(seen.view(-1, BLOCK, len(ends) // BLOCK, BLOCK).sum(dim=(1, 3)))
    count = torch.cat(counts)  # (query blocks, key blocks)
    full = count == BLOCK * BLOCK
    return BlockMask.from_kv_blocks(
        *_listed((count > 0) & ~full), *_listed(full), BLOCK, mask_mod=sees, seq_lengths=(len(ends), len(ends))
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of (query blocks, key blocks), bool: how many key blocks each query block has, and the numbers of these first."""
    numbers = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], numbers.int()[None, None]


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
    width = value.shape[-1]
    if (more := NARROWEST - width) > 0:  # zeros change neither scores nor what is summed up
        query, key, value = (F.pad(x, (0, more)) for x in (query, key, value))
    if query.shape[1] & (query.shape[1] - 1):  # the kernel's grouping is for powers of two
        key, value = key.repeat_interleave(grouped, dim=1), value.repeat_interleave(grouped, dim=1)
    attend: Any = compiled(flex_attention) if query.device.type == "cuda" else flex_attention
    output, aux = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else soft_cap(softcap),
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=sinks is not None),
    )
    if sinks is not None:
        # With a sink b, the sum of exponentials exp(lse) becomes exp(lse) + exp(b): probabilities shrink by the ratio.
        output = output * torch.sigmoid(aux.lse - sinks[None, :, None])[..., None].to(output.dtype)
    return output[..., :width].transpose(1, 2)


@cache  # or every layer would give the compiler another function
def soft_cap(cap: float) -> Callable[..., Tensor]:
    """The score function of a model that caps its scores."""

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


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

    A length needs GRAPHS of them: attention with and without gradients.
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
