"""What is sent ahead of a group of prompts: afterwards nothing that they share is computed twice."""

import random

from psr.engines.sglang.prefixes import common_length, shared_prefixes
from psr.search.sharing import PrefixTree

Prompt = tuple[int, ...]


def random_group(rng: random.Random) -> list[Prompt]:
    """Prompts that branch like a step's judge prompts: problem and steps, then candidate A, then candidate B."""
    head = tuple(rng.randrange(3) for _ in range(rng.randrange(6)))
    candidates = [tuple(rng.randrange(3) for _ in range(rng.randrange(1, 5))) for _ in range(4)]
    return [(*head, *rng.choice(candidates), 9, *rng.choice(candidates)) for _ in range(rng.randrange(1, 12))]


def computed(batches: list[list[Prompt]], known: list[Prompt]) -> int:
    """Tokens that a server computes when it takes up batch after batch, all of a batch at the same time."""
    seen, total = list(known), 0
    for batch in batches:
        total += sum(len(p) - max((common_length(p, old) for old in seen), default=0) for p in batch)
        seen += batch
    return total


def test_with_prefixes_sent_ahead_every_shared_token_is_computed_once():
    rng = random.Random(0)
    for _ in range(300):
        group, known = random_group(rng), random_group(rng)[: rng.randrange(3)]
        tree = PrefixTree()
        for sequence in known:
            tree.add(sequence)
        least = sum(len(prompt) - tree.add(prompt) for prompt in group)
        levels = shared_prefixes(group, known, least=1)
        assert computed([*levels, group], known) == least
        if sum(map(len, levels)):
            assert computed([group], known) > least


def test_what_saves_too_little_is_not_sent():
    group = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 6)]
    assert shared_prefixes(group, [], least=6) == [[(1, 2, 3)]]
    assert shared_prefixes(group, [], least=7) == []
    assert shared_prefixes(group, [(1, 2, 8)], least=3) == []
    assert shared_prefixes(group, [(1, 2, 8)], least=2) == [[(1, 2, 3)]]


def test_inner_prefixes_come_after_outer_ones_and_siblings_together():
    group = [(1, 2, 5, 5, 7), (1, 2, 5, 5, 8), (1, 2, 6, 6, 7), (1, 2, 6, 6, 8)]
    assert shared_prefixes(group, [], least=2) == [[(1, 2)], [(1, 2, 5, 5), (1, 2, 6, 6)]]


def test_candidates_of_one_prompt_share_all_of_it():
    assert shared_prefixes([(1, 2, 3)] * 6, [], least=1) == [[(1, 2, 3)]]
    assert shared_prefixes([(1, 2, 3)] * 6, [(1, 2, 3, 4)], least=1) == []
    assert shared_prefixes([(1, 2, 3)], [], least=1) == []
