"""Step pairs the obvious way, all in memory: what the arrays of `psr.data.pair_table` have to equal."""

import random
from collections.abc import Sequence

from psr.records import StepPair
from psr.trees.packing import Group, Unit
from psr.trees.step_tree import Sample


def pair_groups(pairs: Sequence[StepPair], rng: random.Random) -> list[Group]:
    """The pairs of every problem as one group, the groups in random order; a pair's number is its index in `pairs`."""
    groups: dict[str, list[Unit]] = {}
    for number, pair in enumerate(pairs):
        sides = Sample(pair.prompt_ids, pair.chosen_ids), Sample(pair.prompt_ids, pair.rejected_ids)
        groups.setdefault(pair.problem_id, []).append(Unit(number, sides))
    return rng.sample([tuple(group) for group in groups.values()], len(groups))


def optimizer_steps(groups: Sequence[Group], units_per_step: int) -> list[list[Group]]:
    """Steps of exactly `units_per_step` units, found by looking through all that waits."""
    waiting = list(groups)
    steps: list[list[Group]] = []
    room = 0
    while waiting:
        if not room:
            steps.append([])
            room = units_per_step
        at = next((i for i, group in enumerate(waiting) if len(group) <= room), 0)
        group = waiting.pop(at)
        if len(group) > room:
            group, rest = group[:room], group[room:]
            waiting.insert(0, rest)
        steps[-1].append(group)
        room -= len(group)
    return steps
