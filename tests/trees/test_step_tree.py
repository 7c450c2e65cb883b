"""Step trees against the sequences one by one: the same paths, log-probabilities, losses and gradients."""

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from psr.policy.folder import load_policy
from psr.trees.attention import use_tree_attention
from psr.trees.packing import GroupTree, PlannedRow, Row, Unit, build_row
from psr.trees.scoring import row_hits, row_logprobs
from psr.trees.step_tree import ROOT, Sample, StepTree, step_tree
from tests import pair_by_pair


def some_ids(rng: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, 36) for _ in range(rng.randint(low, high)))


def random_pairs(rng: random.Random) -> list[list[Sample]]:
    """A trajectory's pairs: steps that begin alike or not, steps without a pair, several rejected candidates."""
    prefix, pairs = some_ids(rng, 1, 9), []
    for _ in range(rng.randint(1, 6)):
        alike = some_ids(rng, 0, 3)
        chosen = alike + some_ids(rng, 1, 6)
        rejected = [alike + some_ids(rng, 1, 6) for _ in range(rng.choice((0, 1, 1, 1, 3)))]
        pairs += [[Sample(prefix, chosen), Sample(prefix, one)] for one in rejected]
        prefix += chosen
    return pairs or [[Sample(prefix, (5,)), Sample(prefix, (6,))]]


def row_of(*groups: list[list[Sample]]) -> Row:
    """One row with a tree for each group of pairs."""
    trees = tuple(GroupTree.of(tuple(Unit(i, tuple(pair)) for i, pair in enumerate(group))) for group in groups)
    return build_row(PlannedRow(trees, 1.0))


def path_to(tree: StepTree, token: int) -> list[int]:
    path = []
    while token != ROOT:
        path.append(token)
        token = tree.parents[token]
    return path[::-1]


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_is_a_path_and_every_prefix_stands_once(seed: int):
    samples = [sample for pair in random_pairs(random.Random(seed)) for sample in pair]
    tree = step_tree(samples)
    for sample, completion in zip(samples, tree.completions, strict=True):
        path = path_to(tree, completion[-1])
        assert tuple(tree.token_ids[t] for t in path) == sample.prompt_ids + sample.completion_ids
        assert tuple(path[len(sample.prompt_ids) :]) == completion
        assert [tree.positions[t] for t in path] == list(range(len(sample)))
    whole = [sample.prompt_ids + sample.completion_ids for sample in samples]
    assert len(tree) == len({ids[: i + 1] for ids in whole for i in range(len(ids))})


@pytest.mark.parametrize("seed", range(20))
def test_a_token_is_seen_by_its_own_subtree_alone(seed: int):
    tree = step_tree([sample for pair in random_pairs(random.Random(seed)) for sample in pair])
    seen = [set(path_to(tree, query)) for query in range(len(tree))]
    for key, end in enumerate(tree.ends):
        assert [key in seen[query] for query in range(len(tree))] == [key <= q < end for q in range(len(tree))]
    assert tree.attended == sum(map(len, seen))


def test_one_sample_is_a_chain():
    tree = step_tree([Sample((1, 2), (3, 1, 2))])
    assert tree == StepTree((1, 2, 3, 1, 2), (ROOT, 0, 1, 2, 3), ((2, 3, 4),))
    assert (tree.positions, tree.ends, tree.scored) == ([0, 1, 2, 3, 4], [5] * 5, [2, 3, 4])


def test_the_longest_chain_stands_in_one_piece():
    """problem 1 2; chosen 3 4, rejected 3 5; then chosen 6, rejected 7 8 8."""
    first, second = [Sample((1, 2), (3, 4)), Sample((1, 2), (3, 5))], [Sample((1, 2, 3, 4), (6,))]
    tree = step_tree([*first, *second, Sample((1, 2, 3, 4), (7, 8, 8))])
    assert tree.token_ids == (1, 2, 3, 4, 7, 8, 8, 6, 5)
    assert tree.parents == (ROOT, 0, 1, 2, 3, 4, 5, 3, 2)
    assert tree.positions == [0, 1, 2, 3, 4, 5, 6, 4, 3]
    assert tree.ends == [9, 9, 9, 8, 7, 7, 7, 8, 9]
    assert tree.completions == ((2, 3), (2, 8), (7,), (4, 5, 6))


@pytest.mark.parametrize("sample", [Sample((), (1, 2)), Sample((1,), ())])
def test_a_completion_that_nothing_predicts_is_refused(sample: Sample):
    with pytest.raises(ValueError, match="its prompt or completion is empty"):
        step_tree([Sample((1,), (2,)), sample])


def dpo(sums: Tensor) -> Tensor:
    """A loss of (pairs, 2) log-probabilities in which every one counts differently."""
    return -torch.nn.functional.logsigmoid(0.3 * (sums[:, 0] - sums[:, 1])).sum() - 0.1 * sums[:, 0].sum()


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_are_those_of_the_pairs_one_by_one(policy: Path, seed: int, checkpointing: bool):
    """In float64, several trees in a row, blocks of queries that end inside trees, logits in small chunks."""
    rng = random.Random(seed)
    groups = [random_pairs(rng) for _ in range(rng.randint(1, 8))]
    plain = pair_by_pair.exact_policy(policy).train()
    ours = use_tree_attention(copy.deepcopy(plain))
    if checkpointing:
        ours.activation_checkpointing_enable()
    obvious = [pair_by_pair.logprobs(plain, sample) for group in groups for pair in group for sample in pair]
    expected = torch.stack([each.sum() for each in obvious]).view(-1, 2)

    row = row_of(*groups)
    sums = row.completion_sums(row_logprobs(ours, row, chunk=7)).view(-1, 2)
    assert torch.allclose(sums, expected, rtol=0, atol=1e-11)
    assert row.lengths.tolist() == [len(each) for each in obvious]
    want, got = gradients(plain, dpo(expected)), gradients(ours, dpo(sums))
    assert want.keys() == got.keys() and len(want) >= 20
    for name, value in want.items():
        assert value.abs().max() > 1e-6, name
        assert torch.allclose(got[name], value, rtol=0, atol=1e-11), name


def test_a_tree_in_a_row_does_not_depend_on_its_neighbours(llama: Path):
    groups = [random_pairs(random.Random(seed)) for seed in range(3)]
    model = use_tree_attention(load_policy(llama, torch.float64))
    with torch.no_grad():
        together = row_of(*groups)
        alone = [row_logprobs(model, row_of(group)) for group in groups]
        assert torch.allclose(row_logprobs(model, together), torch.cat(alone), rtol=0, atol=1e-12)


def test_whole_responses_and_single_samples_are_trees_too(llama: Path):
    """Outcome-level pairs are one step; a supervised sample is a tree of one path."""
    pair = [Sample((5, 6), (7, 8, 9, 2)), Sample((5, 6), (7, 9, 2))]
    alone = [[Sample((9, 8, 7), (11, 12))]]
    row = row_of([pair], alone)
    model = load_policy(llama, torch.float64)
    with torch.no_grad():
        expected = [float(pair_by_pair.logprobs(model, s).sum()) for s in (*pair, *alone[0])]
        got = row.completion_sums(row_logprobs(use_tree_attention(model), row))
    assert got.tolist() == pytest.approx(expected, abs=1e-12)


def test_hits_are_where_the_most_likely_token_is_the_completions(llama: Path):
    group = random_pairs(random.Random(3))
    model, row = load_policy(llama, torch.float64), row_of(group)
    hits = row_hits(use_tree_attention(model), row, chunk=5)
    with torch.no_grad():
        best = row_logprobs(model, row)
        for token in range(36):
            other = Row(**{**vars(row), "targets": torch.full_like(row.targets, token)})
            assert (best[hits] >= row_logprobs(model, other)[hits]).all()
    assert 0 < hits.sum() < len(hits)
