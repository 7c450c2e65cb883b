"""The prefix tree of the in-process engine and how what is missing is laid out in forwards."""

import random

import pytest
import torch

from psr.engines.local.packing import LENGTH_RATIO, PACK_TOKENS, batches, plan, tensors
from psr.engines.local.prefix_tree import Node, PrefixTree
from psr.search.sharing import PrefixTree as Counter


def add(tree: PrefixTree, ids: list[int]) -> tuple[list[Node], list[Node]] | None:
    """The path of `ids`, and which of it is new."""
    path = tree.path(ids)
    new = tree.extend(path, ids[len(path) :])
    return None if new is None else (path + new, new)


def some_ids(rng: random.Random) -> list[int]:
    return [rng.randrange(3) for _ in range(rng.randrange(1, 12))]


def test_a_known_prefix_is_found_and_slots_are_never_shared():
    rng, tree, counter, slot_of = random.Random(0), PrefixTree(5000), Counter(), {}
    for _ in range(300):
        ids = some_ids(rng)
        path, new = add(tree, ids)
        assert len(ids) - len(new) == counter.add(ids)
        assert [node.token for node in path] == ids
        for i, node in enumerate(path):
            assert node.depth == i
            assert slot_of.setdefault(tuple(ids[: i + 1]), node.slot) == node.slot
    assert len(set(slot_of.values())) == len(slot_of) and 0 not in slot_of.values()


def test_a_full_pool_gives_up_what_was_used_least_recently():
    tree = PrefixTree(8)
    for ids in ([1, 1, 1], [2, 2, 2], [3, 3]):
        tree.begin_round()
        add(tree, ids)
    tree.begin_round()
    tree.path([1, 1, 1])
    tree.begin_round()
    assert add(tree, [4, 4]) is not None
    assert len(tree.path([1, 1, 1])) == 3
    assert len(tree.path([3, 3])) == 2
    assert tree.path([2, 2, 2]) == []


def test_a_round_keeps_what_it_has_touched_and_says_when_there_is_no_room():
    tree = PrefixTree(4)
    assert add(tree, [1, 2, 3]) is not None
    assert add(tree, [5, 6]) is None
    assert len(tree.path([1, 2, 3])) == 3
    tree.begin_round()
    assert add(tree, [5, 6]) is not None


def test_under_pressure_every_prefix_of_what_is_there_is_there_and_no_slot_is_used_twice():
    rng, tree = random.Random(1), PrefixTree(40)
    for _ in range(500):
        tree.begin_round()
        held: dict[tuple[int, ...], int] = {}
        for _ in range(3):
            ids = some_ids(rng)
            path, _ = add(tree, ids)
            held.update({tuple(ids[: i + 1]): node.slot for i, node in enumerate(path)})
        assert len(set(held.values())) == len(held)


def ancestors(node: Node) -> list[Node]:
    above = [node]
    while (parent := above[-1].parent) is not None and parent.parent is not None:
        above.append(parent)
    return above


@pytest.mark.parametrize("seed", range(6))
def test_each_new_token_is_computed_once_and_sees_exactly_its_own_beginning(seed: int):
    """Through all stages: what a token attends to has been computed, and is its ancestors and itself."""
    rng, tree = random.Random(seed), PrefixTree(50_000)
    add(tree, [9] * 20)
    computed = {node.slot for node in tree.path([9] * 20)}
    new: list[Node] = []
    for _ in range(40):
        trunk = [9] * rng.choice([0, 20]) + [8] * rng.choice([0, 3, 700])
        new += add(tree, trunk + [rng.randrange(3) for _ in range(rng.randrange(1, 60))])[1]
    by_slot = {node.slot: node for node in new}
    times = dict.fromkeys(by_slot, 0)
    for stage in plan(new):
        in_stage: set[int] = set()
        for packs in batches(stage):
            sizes = [len(pack.nodes) for pack in packs]
            assert max(sizes) <= max(PACK_TOKENS, LENGTH_RATIO * min(sizes))
            batch = tensors(packs, torch.device("cpu"))
            seen = torch.cat([batch.context, batch.slots], dim=1)
            for i, pack in enumerate(packs):
                assert computed.issuperset(pack.context)
                for j, node in enumerate(pack.nodes):
                    assert batch.ids[i, j] == node.token and batch.positions[i, j] == node.depth
                    visible = seen[i][batch.seen[i, j]].tolist()
                    assert sorted(visible) == sorted(above.slot for above in ancestors(node))
                    times[node.slot] += 1
                    in_stage.add(node.slot)
            assert batch.seen.any(-1).all(), "a token that sees nothing has no softmax"
        computed |= in_stage
    assert set(times.values()) == {1}
