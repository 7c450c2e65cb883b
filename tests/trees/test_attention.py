"""Blockwise attention and the FlexAttention mask against dense attention with the mask written out."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from psr.trees.attention import BlockwiseAttention, RowMask, block_mask, chain_attention, dense_mask, query_blocks
from psr.trees.step_tree import step_tree
from tests.trees.test_step_tree import random_pairs, row_of

HEADS, KEY_HEADS, WIDTH = 6, 2, 16


def ends_of(*seeds: int) -> Tensor:
    return row_of(*(random_pairs(random.Random(seed)) for seed in seeds)).ends


def inputs(tokens: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    return [torch.randn(h, tokens, WIDTH, generator=generator).to(dtype).requires_grad_() for h in heads]


def dense(query: Tensor, key: Tensor, value: Tensor, ends: Tensor) -> Tensor:
    """(tokens, heads, width), in float64."""
    key, value = (x.double().repeat_interleave(HEADS // KEY_HEADS, dim=0) for x in (key, value))
    scores = query.double() @ key.transpose(1, 2) / WIDTH**0.5
    return (scores.masked_fill(~dense_mask(ends), -torch.inf).softmax(-1) @ value).transpose(0, 1)


def test_the_dense_mask_is_the_paths():
    tree = step_tree([sample for pair in random_pairs(random.Random(1)) for sample in pair])
    mask = dense_mask(torch.tensor(tree.ends))
    for query in range(len(tree)):
        path, token = set(), query
        while token >= 0:
            path.add(token)
            token = tree.parents[token]
        assert set(mask[query].nonzero().squeeze(1).tolist()) == path


@pytest.mark.parametrize("size", [1, 5, 16, 1000])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)]
)
def test_blockwise_attention_and_its_gradient_are_the_dense_ones(size: int, dtype: torch.dtype, tolerance: float):
    ends = ends_of(0, 1, 2, 3)
    given = inputs(len(ends), dtype)
    output = BlockwiseAttention.apply(*given, WIDTH**-0.5, query_blocks(ends, size))
    expected = dense(*given, ends)
    assert output.dtype == dtype
    assert torch.allclose(output.double(), expected, atol=tolerance)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = torch.autograd.grad(output, given, upstream)
    want = torch.autograd.grad(expected, given, upstream.double())
    for one, other in zip(got, want, strict=True):
        assert torch.allclose(one.double(), other.double(), atol=tolerance * 10)


def test_blocks_hold_no_key_that_none_of_their_queries_sees():
    ends = ends_of(4, 5, 6)
    mask = dense_mask(ends)
    blocks = query_blocks(ends, 8)
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])] and blocks[-1].stop == len(
        ends
    )
    assert max(block.stop - block.start for block in blocks) < 2 * 8
    for block in blocks:
        keys = [key for start, stop in block.spans for key in range(start, stop)]
        assert keys == mask[block.start : block.stop].any(0).nonzero().squeeze(1).tolist()
        assert torch.equal(block.bias == 0, mask[block.start : block.stop, keys])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sequences_that_share_nothing_are_computed_one_by_one(dtype: torch.dtype):
    lengths = [3, 1, 20, 20, 7]
    ends = torch.tensor(lengths).cumsum(0).repeat_interleave(torch.tensor(lengths))
    assert RowMask(ends).chains == lengths
    given = inputs(len(ends), dtype)
    output = chain_attention(*(x[None] for x in given), WIDTH**-0.5, lengths)[0]
    expected = dense(*given, ends)
    assert output.dtype == dtype and torch.allclose(output.double(), expected, atol=1e-5)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = torch.autograd.grad(output, given, upstream)
    want = torch.autograd.grad(expected, given, upstream.double())
    for one, other in zip(got, want, strict=True):
        assert torch.allclose(one.double(), other.double(), atol=1e-5)


def test_a_row_with_a_branch_is_no_row_of_chains():
    assert RowMask(torch.tensor([3, 3, 3, 7, 6, 6, 7])).chains is None
    assert all(RowMask(ends_of(seed)).chains is None for seed in range(3))


def test_a_block_never_reaches_over_two_trees_and_a_short_tree_is_whole():
    """Trees of 3, 20 and 7 tokens, the second of two branches."""
    ends = torch.tensor([3, 3, 3, 23, 23, *[12] * 7, *[23] * 11, *[30] * 7])
    found = [(block.start, block.stop, block.spans) for block in query_blocks(ends, 8)]
    assert found == [
        (0, 3, ((0, 3),)),
        (3, 13, ((3, 13),)),
        (13, 23, ((3, 5), (12, 23))),
        (23, 30, ((23, 30),)),
    ]


def test_the_flex_attention_mask_is_the_dense_one():
    """FlexAttention itself, without compiling it: that its mask admits the same pairs can be seen on a CPU."""
    ends = ends_of(7, 8, 9)
    query, key, value = (x.detach() for x in inputs(len(ends), torch.float32))
    got = flex_attention(query[None], key[None], value[None], block_mask=block_mask(ends), enable_gqa=True)
    assert isinstance(got, Tensor)
    assert torch.allclose(got[0].transpose(0, 1).double(), dense(query, key, value, ends), atol=1e-5)


def test_attention_is_not_the_causal_one():
    """The test of the test: without the branches' mask the outputs differ."""
    ends = ends_of(0)
    query, key, value = (x.detach().double() for x in inputs(len(ends), torch.float64))
    causal = F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True, enable_gqa=True)
    assert not torch.allclose(causal[0].transpose(0, 1), dense(query, key, value, ends), atol=1e-2)
