"""Rows: every unit once, a stated number of units an optimizer step, within the budget, balanced."""

import random

import pytest
import torch

from psr.trees.packing import Group, GroupTree, Plan, Unit, balanced, build_row, optimizer_steps, plan_rows
from psr.trees.step_tree import Sample
from tests import obvious_pairs
from tests.trees.test_step_tree import random_pairs


def random_groups(count: int, seed: int = 0) -> list[Group]:
    rng = random.Random(seed)
    groups, number = [], 0
    for _ in range(count):
        pairs = random_pairs(rng)
        groups.append(tuple(Unit(number + i, tuple(pair)) for i, pair in enumerate(pairs)))
        number += len(pairs)
    return groups


def units_of(plan: Plan) -> list[list[int]]:
    """The numbers of the units in every row."""
    return [[unit.number for tree in row.trees for unit in tree.group] for row in plan.rows]


@pytest.mark.parametrize("row_tokens", [1, 30, 60, 200, 10_000])
@pytest.mark.parametrize("per_step", [1, 4, 7, 1000])
def test_every_unit_is_laid_out_once_in_steps_of_the_stated_size(per_step: int, row_tokens: int):
    groups = random_groups(12)
    count = sum(map(len, groups))
    plan = plan_rows(groups, per_step, row_tokens)
    rows = units_of(plan)
    assert sorted(number for row in rows for number in row) == list(range(count))
    steps = [rows[i : i + plan.rows_per_step] for i in range(0, len(rows), plan.rows_per_step)]
    assert [sum(map(len, step)) for step in steps[:-1]] == [per_step] * (count // per_step - (count % per_step == 0))
    for row in plan.rows:
        tokens = sum(tree.tokens for tree in row.trees)
        assert tokens <= row_tokens or sum(len(tree.group) for tree in row.trees) == 1


def test_rows_are_as_few_as_the_budget_allows():
    groups = random_groups(12)
    tokens = sum(GroupTree.of(group).tokens for group in groups)
    assert plan_rows(groups, 1000, tokens).rows_per_step == 1
    plan = plan_rows(groups, 1000, int(tokens / 2.5))
    assert (plan.rows_per_step, len(plan.rows)) == (3, 3)


def test_a_unit_longer_than_a_row_has_one_of_its_own_and_the_others_still_share():
    lengths = (4, 4, 50, 4, 4, 4)
    groups = [(Unit(i, (Sample((1,), (2,) * (length - 1)),)),) for i, length in enumerate(lengths)]
    assert sorted(map(sorted, units_of(plan_rows(groups, 6, 20)))) == [[0, 1, 3, 4, 5], [2]]


@pytest.mark.parametrize("mean_over", ["units", "tokens"])
def test_the_shares_of_a_step_make_the_mean_over_its_units_or_tokens(mean_over):
    """Lightning divides by the number of accumulated rows; the rest of the last step is a mean of its own units."""
    plan = plan_rows(random_groups(12), 7, 60, mean_over)
    for i in range(0, len(plan.rows), plan.rows_per_step):
        step = plan.rows[i : i + plan.rows_per_step]
        total = sum(len(tree.group) if mean_over == "units" else tree.scored for row in step for tree in row.trees)
        for row in step:
            assert row.share / plan.rows_per_step == pytest.approx(1 / total)


def test_a_step_is_filled_with_groups_that_have_room_before_one_is_split():
    groups = [
        tuple(Unit(10 * i + j, (Sample((1,), (2,)),)) for j in range(size)) for i, size in enumerate((3, 3, 1, 6))
    ]
    numbers = [[[unit.number for unit in group] for group in step] for step in optimizer_steps(groups, 4)]
    assert numbers == [[[0, 1, 2], [20]], [[10, 11, 12], [30]], [[31, 32, 33, 34]], [[35]]]


@pytest.mark.parametrize("per_step", [1, 2, 5, 16])
def test_steps_are_those_found_by_looking_through_all_that_waits(per_step: int):
    for seed in range(20):
        rng = random.Random(seed)
        groups = [tuple(Unit(i, ()) for i in range(size)) for size in rng.choices(range(1, 10), k=60)]
        assert optimizer_steps(groups, per_step) == obvious_pairs.optimizer_steps(groups, per_step)


def test_a_steps_rows_cost_about_the_same():
    trees = [GroupTree.of(group) for group in random_groups(40)]
    rows = balanced(trees, 4)
    costs = [sum(tree.cost for tree in row) for row in rows]
    assert max(costs) - min(costs) <= max(tree.cost for tree in trees)
    assert max(costs) < 1.1 * min(costs)
    assert len(balanced(trees[:2], 50)) == sum(len(tree.group) for tree in trees[:2]), "a row needs a unit"


def test_a_built_row_is_its_trees_one_after_the_other():
    groups = random_groups(3)
    [planned] = plan_rows(groups, 1000, 10_000).rows
    row = build_row(planned)
    trees = [tree.tree for tree in planned.trees]
    assert row.token_ids.tolist() == [token for tree in trees for token in tree.token_ids]
    assert row.position_ids.tolist() == [position for tree in trees for position in tree.positions]
    assert row.units.tolist() == [unit.number for tree in planned.trees for unit in tree.group]
    samples = [sample for tree in planned.trees for unit in tree.group for sample in unit.samples]
    assert row.lengths.tolist() == [len(sample.completion_ids) for sample in samples]
    for owner, sample in enumerate(samples):
        scored = row.members[row.owners == owner]
        assert tuple(row.targets[scored].tolist()) == sample.completion_ids
        assert row.position_ids[row.sources[scored]].tolist() == list(
            range(len(sample.prompt_ids) - 1, len(sample) - 1)
        )
    assert len(row.sources) == len(set(row.members.tolist()))
    assert row.to("meta").targets.device == torch.device("meta")


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize(("per_step", "row_tokens"), [(1, 60), (5, 60), (7, 10_000), (1000, 60)])
def test_every_rank_has_as_many_rows_of_each_step_and_together_they_have_the_step(
    per_step: int, row_tokens: int, ranks: int
):
    """The steps see what those of one rank see, with the same weight; an empty row weighs nothing."""
    groups = random_groups(12)
    plan, alone = plan_rows(groups, per_step, row_tokens, ranks=ranks), plan_rows(groups, per_step, row_tokens)
    assert plan.rows_per_step % ranks == len(plan.rows) % ranks == 0

    def steps(of: Plan) -> list[list[int]]:
        rows = units_of(of)
        cut = [rows[i : i + of.rows_per_step] for i in range(0, len(rows), of.rows_per_step)]
        return [sorted(number for row in step for number in row) for step in cut]

    assert steps(plan) == steps(alone)
    for row in plan.rows:
        assert (row.share == 0) == (not row.trees)
    for number, step in enumerate(steps(plan)):
        shares = [row.share for row in plan.rows[number * plan.rows_per_step :][: plan.rows_per_step] if row.trees]
        assert shares == pytest.approx([plan.rows_per_step / len(step)] * len(shares))


def test_an_empty_row_is_one_token_that_nobody_scores():
    groups = [(Unit(0, (Sample((1, 2), (3,)), Sample((1, 2), (4,)))),)]
    plan = plan_rows(groups, 1, 100, ranks=2)
    full, empty = (build_row(row, number) for number, row in enumerate(plan.rows))
    assert len(full.units) == 1 and (len(empty.token_ids), len(empty.targets), len(empty.units)) == (1, 0, 0)
    assert empty.completion_sums(torch.zeros(0)).view(-1, 2).shape == (0, 2)
