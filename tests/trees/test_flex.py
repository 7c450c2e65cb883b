"""FlexAttention's side of tree attention, as far as it goes without a GPU: torch computes it uncompiled here."""

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import PreTrainedModel

from psr.policy.folder import load_policy
from psr.records import StepPair
from psr.trees import attention, flex
from psr.trees.attention import use_tree_attention
from psr.trees.packing import Row, plan_rows
from psr.trees.row_mask import RowMask, dense_mask
from psr.trees.scoring import row_logprobs
from tests.obvious_pairs import pair_groups
from tests.trees.test_attention import HEADS, TOLD, WIDTH, dense, inputs
from tests.trees.test_step_tree import random_pairs, row_of


def a_row() -> Row:
    return row_of(*(random_pairs(random.Random(seed)) for seed in range(3)))


@pytest.fixture
def on_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch that a GPU takes: the row is padded, and attention is FlexAttention's."""
    for module in (flex, attention):
        monkeypatch.setattr(module, "uses_flex", lambda device: True)
    # Nothing but this check stands between a CPU and gradients; the uncompiled path has them.
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)


def loss_and_gradient(model: PreTrainedModel) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    logprobs = row_logprobs(model, a_row())
    logprobs.square().sum().backward()
    return logprobs.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.fixture
def blockwise(policy: Path) -> tuple[PreTrainedModel, tuple[Tensor, list[Tensor]]]:
    model = use_tree_attention(load_policy(policy, torch.float64))
    return model, loss_and_gradient(model)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_padded_rows_on_flex_attention_give_the_blockwise_loss_and_gradient(
    blockwise: tuple[PreTrainedModel, tuple[Tensor, list[Tensor]]], request: pytest.FixtureRequest
):
    model, (logprobs, gradients) = blockwise
    request.getfixturevalue("on_flex")
    got, found = loss_and_gradient(model)
    assert torch.allclose(got, logprobs, rtol=0, atol=1e-6)  # transformers' RMSNorm computes in float32
    for one, other in zip(found, gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.usefixtures("on_flex")
@pytest.mark.parametrize("told", TOLD, ids=str)
def test_it_heeds_what_a_model_tells_its_attention(told: dict[str, Any]):
    """Window, soft-cap and sinks, with their gradients."""
    torch._dynamo.reset()  # what is uncompiled is traced all the same, with a second soft-cap for a dynamic one
    row, window, softcap = a_row(), told.get("window"), told.get("softcap")
    length = flex.padded_length(len(row.ends))
    ends, positions = flex.padded_ends(row.ends, length), F.pad(row.position_ids, (0, length - len(row.ends)))
    given = inputs(length, torch.float64)
    sinks = torch.linspace(-2, 2, HEADS).double().requires_grad_() if "sinks" in told else None
    mask = RowMask(ends, positions).flex(window)
    output = flex.flex_attend(*(x[None] for x in given), mask, WIDTH**-0.5, softcap, sinks)[0]
    expected = dense(*given, dense_mask(ends, positions, window), softcap, sinks)
    assert torch.allclose(output, expected, atol=1e-6)
    leaves = given if sinks is None else [*given, sinks]
    got, want = (torch.autograd.grad(one.square().sum(), leaves) for one in (output, expected))
    for one, other in zip(got, want, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_under_autocast_it_computes_in_bfloat16(llama: Path, on_flex: None):
    """Where rotary embedding leaves queries and keys in float32, and values are bfloat16."""
    model = use_tree_attention(load_policy(llama))
    with torch.no_grad():
        exact = row_logprobs(model, a_row())
        with torch.autocast("cpu", torch.bfloat16):
            assert (row_logprobs(model, a_row()) - exact).abs().mean() < 0.05


@pytest.mark.parametrize("window", [None, 2])
def test_padding_sees_itself_and_is_seen_by_nothing(window: int | None):
    ends = torch.tensor([4, 2, 4, 4])
    padded = flex.padded_ends(ends, 7)
    positions = torch.tensor([0, 1, 1, 2])
    mask = dense_mask(padded, torch.cat([positions, torch.zeros(3, dtype=torch.long)]), window)
    assert torch.equal(mask[:4, :4], dense_mask(ends, positions, window))
    assert (
        torch.equal(mask[4:, 4:], torch.eye(3, dtype=torch.bool)) and not mask[4:, :4].any() and not mask[:4, 4:].any()
    )


def test_lengths_are_few_and_padding_is_little():
    lengths = flex.lengths_up_to(8192)
    assert lengths[:6] == [256, 384, 512, 640, 768, 896] and lengths[-1] == 8192 and len(lengths) == 19
    assert all(length % flex.BLOCK == 0 for length in lengths)
    found = {tokens: flex.padded_length(tokens) for tokens in range(1, 8193)}
    assert set(found.values()) == set(lengths)
    assert all(tokens <= length and flex.padded_length(length) == length for tokens, length in found.items())
    assert max((length - tokens) / length for tokens, length in found.items() if tokens > 512) <= 0.2


@pytest.mark.parametrize("row_tokens", [1024, 4096, 8192])
def test_an_epoch_needs_few_lengths(row_tokens: int):
    """Trajectories as long as the paper's: the rows of an epoch are of about equal cost, and so of a few lengths."""
    rng = random.Random(0)
    groups = []
    for problem in range(150):
        pairs, prompt = [], (0,) * rng.randint(60, 300)
        for depth in range(rng.randint(4, 14)):
            chosen, rejected = ((problem, depth, *[side] * rng.randint(20, 100)) for side in (1, 2))
            pairs.append(StepPair(str(problem), depth, prompt, chosen, rejected, 1))
            prompt += chosen
        groups += pair_groups(pairs, rng)
    rows = plan_rows(groups, 32, row_tokens).rows
    tokens = [sum(tree.tokens for tree in row.trees) for row in rows]
    lengths = {flex.padded_length(one) for one in tokens}
    assert len(rows) > 40 and len(lengths) <= 7 and lengths <= set(flex.lengths_up_to(max(tokens)))
    assert sum(map(flex.padded_length, tokens)) < 1.15 * sum(tokens)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_rows_of_one_length_share_their_graphs_with_and_without_a_window(cap: float | None):
    """The compiler is asked, on a CPU, and its graphs are run as they are."""
    torch._dynamo.reset()
    graphs = CompileCounter()
    attend: Any = torch.compile(flex_attention, backend=graphs, dynamic=False)
    for seed, window in enumerate((None, 5, 9)):
        row = row_of(random_pairs(random.Random(seed)))
        ends = flex.padded_ends(row.ends, 256)
        mask = flex.flex_mask(ends, F.pad(row.position_ids, (0, 256 - len(row.ends))), window)
        score_mod = None if cap is None else flex.soft_cap(cap)
        attend(*(torch.ones(1, 2, 256, 16) for _ in range(3)), score_mod=score_mod, block_mask=mask)
    assert graphs.frame_count == 1


@pytest.mark.parametrize("window", [None, 5])
def test_the_blocks_of_a_mask_are_those_that_torch_finds(window: int | None):
    row = row_of(*(random_pairs(random.Random(seed)) for seed in range(40)))
    length = flex.padded_length(max(len(row.ends), (flex.TOGETHER + 1) * flex.BLOCK))  # more than are made together
    ends = flex.padded_ends(row.ends, length)
    mask = flex.flex_mask(ends, F.pad(row.position_ids, (0, length - len(row.ends))), window)
    assert mask.mask_mod is not None
    expected = create_block_mask(mask.mask_mod, None, None, length, length, device="cpu")
    assert torch.equal(mask.to_dense(), expected.to_dense())
    assert torch.equal(mask.kv_num_blocks, expected.kv_num_blocks)
    assert mask.full_kv_num_blocks is not None and expected.full_kv_num_blocks is not None
    assert torch.equal(mask.full_kv_num_blocks, expected.full_kv_num_blocks)


def test_attention_that_torch_would_not_compile_is_an_error():
    """`compiled` sees to it: the eager path holds all scores of a row, and torch says so in one warning."""
    limit = torch._dynamo.config.recompile_limit
    with warnings.catch_warnings():
        flex.compiled.__wrapped__(flex_attention)  # not the cached one: the filter ends with this test
        torch.nn.attention.flex_attention._WARNINGS_SHOWN.discard("flex_attention_performance")
        x = torch.randn(1, 2, 128, 16)
        with pytest.raises(UserWarning, match=r"without torch\.compile"):
            flex_attention(x, x, x)
    assert torch._dynamo.config.fail_on_recompile_limit_hit
    assert torch._dynamo.config.recompile_limit >= flex.LIMIT > limit >= 8 or limit >= flex.LIMIT


def test_more_compilations_than_lengths_are_reported_once(monkeypatch: pytest.MonkeyPatch):
    count = 5
    monkeypatch.setattr(flex, "compilations", lambda: count)
    watch = flex.CompilationWatch()
    watch.see(600)
    watch.see(630)
    count += flex.GRAPHS
    assert watch.check() == flex.GRAPHS, "one length"
    count += 1
    with pytest.warns(UserWarning, match=r"compiled 3 graphs for rows of 1 lengths \(640\)"):
        watch.check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert watch.check() == flex.GRAPHS + 1
