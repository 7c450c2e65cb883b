"""Rows: micro-batches packed with step trees up to a token budget, those of an optimizer step balanced by cost.

An optimizer step sees a stated number of units (step pairs, or supervised samples) whatever their lengths. They are
packed into as few rows as the token budget allows, the same number for every step, and gradients are accumulated over
a step's rows. There is no padding, and no tree attends to another. Each data-parallel rank takes the same number of a
step's rows, so that the optimizer step is that of a single rank.

Knows step trees and tensors. Does not know what is learned from a completion.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from psr.trees.step_tree import Sample, StepTree, step_tree

KEYS_PER_TOKEN = 4096
"""Attention to this many keys costs about as much as a token's matrix products (6 times a small model's width)."""


@dataclass(frozen=True)
class Unit:
    """What the loss is averaged over: a step pair (chosen, rejected) or one supervised sample, with its number."""

    number: int
    samples: tuple[Sample, ...]


Group = Sequence[Unit]
"""Units with long shared prefixes, such as the pairs of a trajectory: one tree holds as many as a row has room for.

It may make its units when they are asked for; a slice of it is one, too.
"""


@dataclass(frozen=True, slots=True)
class GroupTree:
    """A group and the size of its step tree: tokens, scored tokens, and (query, key) pairs that the mask admits."""

    group: Group
    tokens: int
    scored: int
    attended: int

    @classmethod
    def of(cls, group: Group) -> "GroupTree":
        samples = [sample for unit in group for sample in unit.samples]
        if len(samples) == 1:  # most of supervised training: a chain, whose size is known without building the tree
            tokens = len(samples[0])
            return cls(group, tokens, len(samples[0].completion_ids), tokens * (tokens + 1) // 2)
        tree = step_tree(samples)
        return cls(group, len(tree), len(tree.scored), tree.attended)

    @property
    def tree(self) -> StepTree:  # built anew for its row, so that an epoch's plan holds no trees
        return step_tree([sample for unit in self.group for sample in unit.samples])

    @property
    def cost(self) -> float:
        return self.tokens + self.attended / KEYS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """The trees of a row, and the weight of their summed loss in the optimizer step (see Row)."""

    trees: tuple[GroupTree, ...]
    share: float


@dataclass(frozen=True)
class Plan:
    """The rows of an epoch. Every `rows_per_step` of them are one optimizer step; the last step may have fewer.

    Of every step, data-parallel rank r takes the rows r, r + `ranks`, ...: `rows_per_step` and the number of rows are
    multiples of `ranks`.
    """

    rows: list[PlannedRow]
    rows_per_step: int
    ranks: int = 1


Measure = Callable[[Group], GroupTree]
"""What knows the size of a group's step tree."""


def plan_rows(
    groups: Sequence[Group],
    units_per_step: int,
    row_tokens: int,
    mean_over: Literal["units", "tokens"] = "units",
    ranks: int = 1,
    measure: Measure = GroupTree.of,
) -> Plan:
    """Pack the groups into rows of at most `row_tokens` tokens, `units_per_step` units per optimizer step.

    Groups are taken in order and split only where a step ends inside one or where a row has no room for all of it. A
    unit that is longer than `row_tokens` gets a row of its own. The optimizer step's loss is the mean over its units,
    or over its scored tokens, across all `ranks`; where a step has fewer units than ranks, some ranks get an empty row.
    """
    fitting = [part for group in groups for part in _fitting(group, row_tokens, measure)]
    steps = [[measure(group) for group in step] for step in optimizer_steps(fitting, units_per_step)]
    # From the fewest rows that can hold the tokens of the largest step (rounded up, as all the -(-a // b) here), add a
    # row per rank until every step fits. All steps have the same number, since Lightning's accumulation has only one.
    # With a row for each unit everything fits, so the loop always ends with a `packed` that does.
    fewest = max(-(-sum(min(tree.tokens, row_tokens) for tree in step) // row_tokens) for step in steps)
    for rows_per_step in range(-(-fewest // ranks) * ranks, units_per_step + ranks, ranks):
        packed: list[list[list[GroupTree]]] = []  # steps of rows of trees
        for step in steps:
            packed.append(balanced(step, rows_per_step, measure))
            if not all(_has_room(row, row_tokens) for row in packed[-1]):
                break
        else:
            break
    rows = []
    for laid in packed:
        trees = [tree for row in laid for tree in row]
        total = sum(len(tree.group) if mean_over == "units" else tree.scored for tree in trees)
        # Each rank needs a row, even with no unit for it: its collective operations must match those of the others.
        empty = [PlannedRow((), 0.0)] * (-len(laid) % ranks)
        # Lightning divides by the accumulated rows, and data parallelism averages over ranks: together by
        # `rows_per_step`. The share undoes that, so that the gradients add up to those of the mean over `total`.
        rows += [PlannedRow(tuple(row), rows_per_step / total) for row in laid] + empty
    return Plan(rows, rows_per_step, ranks)


def _has_room(row: Sequence[GroupTree], row_tokens: int) -> bool:
    return sum(tree.tokens for tree in row) <= row_tokens or sum(len(tree.group) for tree in row) == 1


def _fitting(group: Group, row_tokens: int, measure: Measure) -> list[Group]:
    """The group, halved until every part fits a row or is a single unit."""
    if len(group) == 1 or measure(group).tokens <= row_tokens:
        return [group]
    half = len(group) // 2
    return _fitting(group[:half], row_tokens, measure) + _fitting(group[half:], row_tokens, measure)


def optimizer_steps(groups: Sequence[Group], units_per_step: int) -> list[list[Group]]:
    """The groups in steps of exactly `units_per_step` units, except for the last.

    A step is filled up with the first waiting group that fits; only where none fits, the next one is split.
    """
    # A queue for every length, each in order: the first group that fits is the head of one of them, and is found as
    # fast among many groups as among few.
    queues: dict[int, deque[tuple[int, Group]]] = {}
    for place, group in enumerate(groups):
        queues.setdefault(len(group), deque()).append((place, group))
    steps: list[list[Group]] = []
    room = 0
    while waiting := [length for length, queue in queues.items() if queue]:
        if not room:
            steps.append([])
            room = units_per_step
        # Looking ahead is worth it: both parts of a split group compute the prefix that they share.
        length = min([one for one in waiting if one <= room] or waiting, key=lambda one: queues[one][0][0])
        place, group = queues[length].popleft()
        if len(group) > room:  # the rest keeps the place of the whole, before all that wait
            group, rest = group[:room], group[room:]
            queues.setdefault(len(rest), deque()).appendleft((place, rest))
        steps[-1].append(group)
        room -= len(group)
    return steps


def balanced(trees: Sequence[GroupTree], rows: int, measure: Measure = GroupTree.of) -> list[list[GroupTree]]:
    """The trees in `rows` rows of about equal cost: the costliest first, each into the cheapest row so far.

    Where there are fewer trees than rows, the largest are split; where there are fewer units, there are fewer rows.
    """
    # Greedy longest-processing-time scheduling: on several ranks a step takes as long as its costliest row.
    trees = sorted(trees, key=lambda tree: tree.cost, reverse=True)
    while len(trees) < rows and (large := next((tree for tree in trees if len(tree.group) > 1), None)):
        half = len(large.group) // 2
        trees.remove(large)
        trees += [measure(large.group[:half]), measure(large.group[half:])]
        trees.sort(key=lambda tree: tree.cost, reverse=True)
    packed: list[list[GroupTree]] = [[] for _ in range(min(rows, len(trees)))]
    costs = [0.0] * len(packed)
    for tree in trees:
        cheapest = costs.index(min(costs))
        packed[cheapest].append(tree)
        costs[cheapest] += tree.cost
    return packed


@dataclass(frozen=True)
class Row:
    """A packed row and where its completions are scored.

    `token_ids`, `position_ids` and `ends` (see step_tree.py) are (tokens,). A scored token is one that at least
    one completion holds: `targets` are their ids and `sources` the positions that predict them, both (scored,).
    Completion `owners[i]` holds the scored token `members[i]`. `units` are the numbers of the packed units, in the
    order of their completions. A row's contribution to the loss is `share` times the sum of its losses; that accounts
    for Lightning's division by the number of accumulated rows and for the average over ranks. `number` is the row's
    place in the epoch.
    """

    token_ids: Tensor
    position_ids: Tensor
    ends: Tensor
    sources: Tensor
    targets: Tensor
    members: Tensor
    owners: Tensor
    units: Tensor
    share: float
    number: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Row":
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {n: v.to(device, non_blocking=non_blocking) for n, v in moved.items() if isinstance(v, Tensor)}
        return Row(**{**moved, **tensors})

    @property
    def lengths(self) -> Tensor:
        """Tokens of every completion: (completions,)."""
        return torch.bincount(self.owners)

    def completion_sums(self, values: Tensor) -> Tensor:
        """The sum over every completion's tokens of per-token `values` (scored,): (completions,)."""
        # A token that several completions share stands once in `values` and is gathered once for each of them.
        return values.new_zeros(len(self.lengths)).index_add(0, self.owners, values[self.members])


def build_row(planned: PlannedRow, number: int = 0) -> Row:
    """The tensors of a planned row, the epoch's `number`th.

    An empty row has one token that is not scored: its rank takes part in the forward and backward pass of the others.
    """
    columns: dict[str, list[int]] = {field.name: [] for field in fields(Row) if field.type is Tensor}
    if not planned.trees:
        columns |= {"token_ids": [0], "position_ids": [0], "ends": [1]}
    for group_tree in planned.trees:
        tree = group_tree.tree
        scored = tree.scored
        # Indices within the tree become indices within the row: all are shifted by what the row holds so far.
        first, first_scored = len(columns["token_ids"]), len(columns["sources"])
        first_owner = columns["owners"][-1] + 1 if columns["owners"] else 0
        columns["token_ids"] += tree.token_ids
        columns["position_ids"] += tree.positions
        columns["ends"] += [first + end for end in tree.ends]
        # The parent, not the token before: after a branch, the row's previous token belongs to another path.
        columns["sources"] += [first + tree.parents[token] for token in scored]
        columns["targets"] += [tree.token_ids[token] for token in scored]
        place = {token: first_scored + i for i, token in enumerate(scored)}
        for owner, completion in enumerate(tree.completions, start=first_owner):
            columns["members"] += [place[token] for token in completion]
            columns["owners"] += [owner] * len(completion)
        columns["units"] += [unit.number for unit in group_tree.group]
    tensors = {name: torch.tensor(values, dtype=torch.long) for name, values in columns.items()}
    return Row(share=planned.share, number=number, **tensors)
