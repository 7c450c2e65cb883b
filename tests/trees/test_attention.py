"""Blockwise attention and the FlexAttention mask against dense attention with the mask written out."""

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from psr.trees.attention import chain_attention
from psr.trees.blockwise import BlockwiseAttention
from psr.trees.packing import Row
from psr.trees.row_mask import RowMask, block_mask, dense_mask, query_blocks
from psr.trees.step_tree import step_tree
from tests.trees.test_step_tree import random_pairs, row_of

HEADS, KEY_HEADS, WIDTH = 6, 2, 16


TOLD = [
    {},
    {"window": 5},
    {"softcap": 2.0},
    {"sinks": True},
    {"window": 9, "softcap": 1.5, "sinks": True},
]
"""What a model may tell its attention."""


def some_row(*seeds: int) -> Row:
    return row_of(*(random_pairs(random.Random(seed)) for seed in seeds))


def inputs(tokens: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    return [torch.randn(h, tokens, WIDTH, generator=generator).to(dtype).requires_grad_() for h in heads]


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """(tokens, heads, width), in float64."""
    key, value = (x.double().repeat_interleave(HEADS // KEY_HEADS, dim=0) for x in (key, value))
    scores = query.double() @ key.transpose(1, 2) / WIDTH**0.5
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(-1, len(seen), 1)], dim=-1)
    return (scores.softmax(-1)[..., : len(seen)] @ value).transpose(0, 1)


def test_the_dense_mask_is_the_paths():
    tree = step_tree([sample for pair in random_pairs(random.Random(1)) for sample in pair])
    mask = dense_mask(torch.tensor(tree.ends), torch.tensor(tree.positions))
    for query in range(len(tree)):
        path, token = set(), query
        while token >= 0:
            path.add(token)
            token = tree.parents[token]
        assert set(mask[query].nonzero().squeeze(1).tolist()) == path


def test_a_window_is_counted_along_the_path():
    """A trunk of 3, a branch of 3, a branch of 2: the second branch's tokens see back to the trunk over the first."""
    ends, positions = torch.tensor([8, 8, 8, 6, 6, 6, 8, 8]), torch.tensor([0, 1, 2, 3, 4, 5, 3, 4])
    mask = dense_mask(ends, positions, window=3)
    assert mask[6].nonzero().squeeze(1).tolist() == [1, 2, 6]
    assert mask[7].nonzero().squeeze(1).tolist() == [2, 6, 7]
    assert RowMask(ends, positions).cut_by(5) and not RowMask(ends, positions).cut_by(6)


@pytest.mark.parametrize("told", TOLD, ids=str)
@pytest.mark.parametrize("size", [1, 5, 16, 1000])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)]
)
def test_blockwise_attention_and_its_gradient_are_the_dense_ones(
    told: dict[str, Any], size: int, dtype: torch.dtype, tolerance: float
):
    row, window, softcap = some_row(0, 1, 2, 3), told.get("window"), told.get("softcap")
    given = inputs(len(row.ends), dtype)
    sinks = torch.linspace(-2, 2, HEADS).to(dtype).requires_grad_() if "sinks" in told else None
    blocks = query_blocks(row.ends, row.position_ids, window, size)
    output = BlockwiseAttention.apply(*given, WIDTH**-0.5, blocks, softcap, sinks)
    expected = dense(*given, dense_mask(row.ends, row.position_ids, window), softcap, sinks)
    assert output.dtype == dtype
    assert torch.allclose(output.double(), expected, atol=tolerance)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    leaves = given if sinks is None else [*given, sinks]
    got = torch.autograd.grad(output, leaves, upstream)
    want = torch.autograd.grad(expected, leaves, upstream.double())
    for one, other in zip(got, want, strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("window", [None, 4, 20])
def test_blocks_hold_no_key_that_none_of_their_queries_sees(window: int | None):
    row = some_row(4, 5, 6)
    mask = dense_mask(row.ends, row.position_ids, window)
    blocks = query_blocks(row.ends, row.position_ids, window, 8)
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == len(mask)
    assert max(block.stop - block.start for block in blocks) < 2 * 8
    for block in blocks:
        keys = [key for start, stop in block.spans for key in range(start, stop)]
        assert set(keys) >= set(mask[block.start : block.stop].any(0).nonzero().squeeze(1).tolist())
        assert torch.equal(block.bias == 0, mask[block.start : block.stop, keys])
        if window is None:
            assert mask[block.start : block.stop, keys].any(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sequences_that_share_nothing_are_computed_one_by_one(dtype: torch.dtype):
    lengths = [3, 1, 20, 20, 7]
    ends = torch.tensor(lengths).cumsum(0).repeat_interleave(torch.tensor(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])
    assert RowMask(ends, positions).chains == lengths
    given = inputs(len(ends), dtype)
    output = chain_attention(*(x[None] for x in given), WIDTH**-0.5, lengths)[0]
    expected = dense(*given, dense_mask(ends, positions))
    assert output.dtype == dtype and torch.allclose(output.double(), expected, atol=1e-5)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = torch.autograd.grad(output, given, upstream)
    want = torch.autograd.grad(expected, given, upstream.double())
    for one, other in zip(got, want, strict=True):
        assert torch.allclose(one.double(), other.double(), atol=1e-5)


def test_a_row_with_a_branch_is_no_row_of_chains():
    assert RowMask(torch.tensor([3, 3, 3, 7, 6, 6, 7]), torch.tensor([0, 1, 2, 0, 1, 2, 1])).chains is None
    assert all(RowMask(some_row(seed).ends, some_row(seed).position_ids).chains is None for seed in range(3))


def test_a_block_never_reaches_over_two_trees_and_a_short_tree_is_whole():
    """Trees of 3, 20 and 7 tokens, the second of two branches."""
    ends = torch.tensor([3, 3, 3, 23, 23, *[12] * 7, *[23] * 11, *[30] * 7])
    positions = torch.tensor([*range(3), *range(11), *range(2, 11), *range(7)])
    found = [(block.start, block.stop, block.spans) for block in query_blocks(ends, positions, size=8)]
    assert found == [
        (0, 3, ((0, 3),)),
        (3, 13, ((3, 13),)),
        (13, 23, ((3, 5), (12, 23))),
        (23, 30, ((23, 30),)),
    ]


@pytest.mark.parametrize("window", [None, 6])
def test_the_flex_attention_mask_is_the_dense_one(window: int | None):
    """FlexAttention itself, without compiling it: that its mask admits the same pairs can be seen on a CPU."""
    row = some_row(7, 8, 9)
    query, key, value = (x.detach() for x in inputs(len(row.ends), torch.float32))
    mask = block_mask(row.ends, row.position_ids, window)
    got = flex_attention(query[None], key[None], value[None], block_mask=mask, enable_gqa=True)
    expected = dense(query, key, value, dense_mask(row.ends, row.position_ids, window))
    assert isinstance(got, Tensor)
    assert torch.allclose(got[0].transpose(0, 1).double(), expected, atol=1e-5)


def test_attention_is_not_the_causal_one():
    """The test of the test: without the branches' mask the outputs differ."""
    row = some_row(0)
    query, key, value = (x.detach().double() for x in inputs(len(row.ends), torch.float64))
    causal = F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True, enable_gqa=True)
    expected = dense(query, key, value, dense_mask(row.ends, row.position_ids))
    assert not torch.allclose(causal[0].transpose(0, 1), expected, atol=1e-2)
