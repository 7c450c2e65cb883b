"""Pairs as arrays on disk: they are the pairs, and their rows the rows, of the obvious way."""

import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from psr.data.pair_table import PairTable, write_pairs
from psr.data.traces import TraceJournal
from psr.records import Candidate, Judgement, Problem, StepNode, StepPair, Trajectory, step_pairs
from psr.search.pairs import WEIGHTS, PairWeight
from psr.trees.packing import GroupTree, build_row, plan_rows
from tests.obvious_pairs import pair_groups


def random_node(depth: int, rng: random.Random) -> StepNode:
    """Two to four candidates of a few tokens out of two, which often begin alike and sometimes contain each other."""
    ids = [tuple(rng.choices((1, 2), k=rng.randint(1, 5))) for _ in range(rng.randint(2, 4))]
    candidates = tuple(Candidate(one, f"{i} {one}", rng.random() - 1, rng.random() < 0.3) for i, one in enumerate(ids))
    scores = [rng.randint(0, 3) for _ in ids]
    asked = rng.sample([(i, j) for i in range(len(ids)) for j in range(len(ids)) if i != j], k=2)
    judgements = tuple(Judgement(i, j, rng.choice((i, j, None))) for i, j in asked)
    ends = scores.index(max(scores)), scores.index(min(scores))
    return StepNode(depth, candidates, judgements, tuple(scores), *ends, rng.choice(("kept", "kept", "rolled_back")))


def random_searches(count: int, seed: int) -> list[Trajectory]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        nodes = tuple(random_node(depth, rng) for depth in range(rng.randint(0, 6)))
        prompt = tuple(rng.choices((1, 2), k=rng.randint(1, 6)))
        found.append(Trajectory(Problem(f"p/{number}", "?"), prompt, nodes, rng.random() < 0.5, "M1"))
    return found


def as_table(folder: Path, searches: list[Trajectory], min_margin: int = 1, weight: PairWeight = "none") -> PairTable:
    """Through the journal, to which they are written in another order."""
    journal = TraceJournal(folder / "traces.jsonl", "M1")
    for one in random.Random(0).sample(searches, len(searches)):
        journal.append(one)
    names = [one.problem.id for one in searches]
    checksum = write_pairs(folder / "pairs", journal.indexed(names), min_margin, weight)
    table = PairTable(folder / "pairs")
    assert table.checksum == checksum
    return table


def obvious(searches: list[Trajectory], min_margin: int, weight: PairWeight) -> list[StepPair]:
    return [pair for one in searches for pair in step_pairs(one, min_margin, WEIGHTS[weight])]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("min_margin", [0, 1, 2])
def test_the_pairs_are_those_of_the_trajectories(tmp_path: Path, min_margin: int, weight: PairWeight):
    searches = random_searches(60, seed=min_margin)
    table, pairs = as_table(tmp_path, searches, min_margin, weight), obvious(searches, min_margin, weight)
    assert len(table) == len(pairs) > 60 and list(table) == pairs and table[3:5] == pairs[3:5]
    assert [pair.chosen_logprob for pair in table] == [pair.chosen_logprob for pair in pairs], "which == leaves out"
    assert table.logprobs == {i: pair.chosen_logprob for i, pair in enumerate(pairs) if pair.chosen_logprob}
    counts = torch.tensor([(pair.weight, pair.label) for pair in pairs])
    assert (table.counts is None) == bool((counts == 1).all())
    assert table.counts is None or torch.equal(table.counts, counts)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(("batch", "row_tokens"), [(1, 9), (4, 30), (7, 60), (32, 4096)])
def test_the_rows_are_those_of_the_pairs_one_by_one(tmp_path: Path, batch: int, row_tokens: int, ranks: int):
    searches = random_searches(50, seed=batch)
    table = as_table(tmp_path, searches)
    groups = pair_groups(obvious(searches, 1, "none"), random.Random("0/2"))
    plan = plan_rows(groups, batch, row_tokens, ranks=ranks)
    found = plan_rows(table.groups(random.Random("0/2")), batch, row_tokens, ranks=ranks, measure=table.sized)
    assert (found.rows_per_step, found.ranks, len(found.rows)) == (plan.rows_per_step, ranks, len(plan.rows))
    for number, (one, other) in enumerate(zip(found.rows, plan.rows, strict=True)):
        assert one.share == other.share
        row, expected = build_row(one, number), build_row(other, number)
        for name, value in vars(expected).items():
            assert torch.equal(getattr(row, name), value) if isinstance(value, torch.Tensor) else True, name


def test_sizes_by_arithmetic_are_those_of_the_trees(tmp_path: Path):
    table = as_table(tmp_path, random_searches(80, seed=5))
    by_arithmetic = 0
    for group in table.groups(random.Random(0)):
        for start, stop in combinations(range(len(group) + 1), 2):
            part = group[start:stop]
            assert [unit.number for unit in part] == [unit.number for unit in group][start:stop]
            by_arithmetic += not table._sums[0, part.stop] - table._sums[0, part.start]  # type: ignore[attr-defined]
            assert table.sized(part) == replace(GroupTree.of(tuple(part)), group=part)
    assert by_arithmetic > 50


def test_a_search_without_pairs_leaves_an_empty_table(tmp_path: Path):
    table = as_table(tmp_path, [Trajectory(Problem("p", "?"), (1,), (), True, "M1")])
    assert len(table) == 0 and list(table) == [] and table.logprobs == {}


def test_there_is_no_table_before_it_is_written(tmp_path: Path):
    assert PairTable(tmp_path / "pairs").checksum is None


def test_at_most_so_many_pairs_are_written(tmp_path: Path):
    searches = random_searches(20, seed=1)
    as_table(tmp_path, searches)
    journal = TraceJournal(tmp_path / "traces.jsonl", "M1")
    write_pairs(tmp_path / "few", journal.indexed([one.problem.id for one in searches]), 1, "none", label=0.5, most=5)
    pairs = [replace(pair, label=0.5) for pair in obvious(searches, 1, "none")]
    assert list(PairTable(tmp_path / "few")) == pairs[:5]
