"""The step pairs of an iteration as flat arrays on disk, which the ranks of a node have in memory once between them.

    chain of a problem    prompt | step 1 | step 2 | step 3        (of the chosen steps)
    pair 2                prompt = the first `start` tokens, chosen = the `chosen` tokens after them
                          rejected = `rejected` tokens of their own

Written whole by the first rank, read by all. Only what a rank trains on next becomes Python objects. Knows the index of
a journal, groups and the sizes of step trees. Does not know how rows are planned.
"""

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from psr.data.trace_index import Indexed
from psr.files.jsonl import read_json, write_json
from psr.files.whole import replacing
from psr.records import StepPair
from psr.search.pairs import PairWeight
from psr.trees.packing import Group, GroupTree, Unit
from psr.trees.step_tree import Sample

PAIR = np.dtype(
    [
        ("problem", "<i4"),  # its number
        ("depth", "<i4"),
        ("chain", "<i8"),  # where its problem's chain begins, among all tokens
        ("start", "<i4"),
        ("chosen", "<i4"),
        ("apart", "<i8"),  # where its rejected step begins, among all tokens
        ("rejected", "<i4"),
        ("follows", "<i4"),  # how many of the rejected step's tokens are those of the chosen one
        ("margin", "<i4"),
        ("logprob", "<f8"),  # NaN where the engine's is not the step's own
        ("weight", "<f8"),
        ("label", "<f8"),
    ]
)


def write_pairs(
    folder: Path,
    problems: Iterable[Indexed],
    min_margin: int,
    weight: PairWeight,
    label: float | None = None,
    most: int | None = None,
) -> int:
    """Write the pairs of these problems, in their order and at most so many; the checksum of what was written."""
    checksum = written = 0
    names: list[str] = []
    with replacing(folder) as partial:
        partial.mkdir()
        with (partial / "pairs").open("wb") as pairs, (partial / "tokens").open("wb") as tokens:
            count = 0
            for one in problems:
                rows = _rows(one, len(names), written, max(min_margin, 1), weight, 1.0 if label is None else label)
                rows = rows[: None if most is None else most - count]
                if not len(rows):
                    continue
                for file, array in ((pairs, rows), (tokens, one.tokens)):
                    data = array.tobytes()
                    checksum = zlib.crc32(data, checksum)
                    file.write(data)
                count, written = count + len(rows), written + len(one.tokens)
                names.append(one.name)
        write_json(partial / "problems.json", {"checksum": checksum, "problems": names})
    return checksum


def _rows(one: Indexed, problem: int, first: int, min_margin: int, weight: PairWeight, label: float) -> np.ndarray:
    """The pairs of a problem whose tokens begin at `first`: (pairs,) of PAIR."""
    apart = max((pair.start + pair.chosen for pair in one.pairs), default=0)  # after the chain
    found = []
    for pair in one.pairs:
        if pair.margin >= min_margin:
            chosen = one.tokens[pair.start : pair.start + pair.chosen]
            rejected = one.tokens[apart : apart + pair.rejected]
            sides = pair.start, pair.chosen, first + apart, pair.rejected, shared(chosen, rejected)
            logprob = np.nan if pair.logprob is None else pair.logprob
            counts = pair.margin, logprob, pair.weights[weight], label
            found.append((problem, pair.depth, first, *sides, *counts))
        apart += pair.rejected
    return np.array(found, dtype=PAIR)


def shared(one: np.ndarray, other: np.ndarray) -> int:
    """With how many equal tokens two sequences begin."""
    least = min(len(one), len(other))
    unequal = one[:least] != other[:least]
    return int(unequal.argmax()) if unequal.any() else least


class PairTable(Sequence[StepPair]):
    """The pairs in `folder`; a pair's number is its index. None where `write_pairs` has written nothing there."""

    def __init__(self, folder: Path) -> None:
        noted = read_json(folder / "problems.json")
        self.checksum: int | None = noted.get("checksum")
        self.names: list[str] = noted.get("problems", [])
        self.pairs, self.tokens = np.empty(0, PAIR), np.empty(0, "<i4")
        if self.names:  # an empty file cannot be mapped
            self.pairs = np.memmap(folder / "pairs", PAIR, "r")
            self.tokens = np.memmap(folder / "tokens", "<i4", "r")

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, number: int) -> StepPair: ...
    @overload
    def __getitem__(self, number: slice) -> list[StepPair]: ...
    def __getitem__(self, number: int | slice) -> StepPair | list[StepPair]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        row = self.pairs[number]
        chosen, rejected = self.unit(number).samples
        logprob = None if np.isnan(row["logprob"]) else float(row["logprob"])
        return StepPair(
            self.names[row["problem"]],
            int(row["depth"]),
            chosen.prompt_ids,
            chosen.completion_ids,
            rejected.completion_ids,
            int(row["margin"]),
            logprob,
            float(row["weight"]),
            float(row["label"]),
        )

    def unit(self, number: int) -> Unit:
        """A pair as what the loss is averaged over: chosen, rejected."""
        row = self.pairs[number]
        chain, end = int(row["chain"]) + int(row["start"]), int(row["chosen"])
        prompt = tuple(self.tokens[int(row["chain"]) : chain].tolist())
        chosen = tuple(self.tokens[chain : chain + end].tolist())
        rejected = tuple(self.tokens[int(row["apart"]) : int(row["apart"]) + int(row["rejected"])].tolist())
        return Unit(number, (Sample(prompt, chosen), Sample(prompt, rejected)))

    @property
    def counts(self) -> Tensor | None:
        """Weight and label of every pair, (pairs, 2); None where all count alike."""
        counts = np.stack([self.pairs["weight"], self.pairs["label"]], axis=1)
        return None if (counts == 1.0).all() else torch.from_numpy(counts).float()

    @property
    def logprobs(self) -> dict[int, float]:
        """The engine's log-probability of the chosen step, by the number of the pair, where it is the step's own."""
        known = np.flatnonzero(~np.isnan(self.pairs["logprob"]) & (self.pairs["logprob"] != 0))
        return dict(zip(known.tolist(), self.pairs["logprob"][known].tolist(), strict=True))

    def groups(self, rng: random.Random) -> list[Group]:
        """The pairs of every problem as one group, the groups in random order."""
        # One problem, one step tree: its pairs share the prompt and the chain of chosen steps.
        starts = np.flatnonzero(np.diff(self.pairs["problem"], prepend=-1)).tolist()
        groups: list[Group] = [
            PairGroup(self, start, stop) for start, stop in zip(starts, [*starts[1:], len(self)], strict=True)
        ]
        return rng.sample(groups, len(groups))

    def sized(self, group: Group) -> GroupTree:
        """The group with the size of its step tree, by arithmetic where its pairs are as they mostly are."""
        assert isinstance(group, PairGroup)
        sums = self._sums
        odd, new, scored, attended = (sums[:, group.stop] - sums[:, group.start]).tolist()
        if odd:
            return GroupTree.of(group)
        # The chain of chosen steps, and where every rejected step has left the chosen one, the rest of it.
        last = self.pairs[group.stop - 1]
        chain = int(last["start"]) + int(last["chosen"])
        return GroupTree(group, chain + new, scored, chain * (chain + 1) // 2 + attended)

    @cached_property
    def _sums(self) -> np.ndarray:
        """Over all pairs before a pair: those that are odd, tokens that the rejected steps add, scored ones, and the
        (query, key) pairs that the rejected steps add: (4, pairs + 1)."""
        start, chosen, rejected, follows = (
            self.pairs[name].astype(np.int64) for name in ("start", "chosen", "rejected", "follows")
        )
        # A rejected step that goes on where the chosen one ends may follow the chain further, or meet another one. And
        # an empty step or prompt has no tree, which the general way says.
        odd = (follows == chosen) | (rejected == 0) | (start == 0)
        end, left = start + rejected, start + follows
        attended = (end * (end + 1) - left * (left + 1)) // 2  # the k-th token of a path sees k + 1
        each = np.stack([odd, rejected - follows, chosen + rejected - follows, attended])
        return np.concatenate([np.zeros((4, 1), np.int64), each.cumsum(axis=1)], axis=1)


@dataclass(frozen=True, slots=True)
class PairGroup(Sequence[Unit]):
    """The pairs `start`, ..., `stop` - 1 of a table, all of one problem."""

    table: PairTable
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, number: int) -> Unit: ...
    @overload
    def __getitem__(self, number: slice) -> "PairGroup": ...
    def __getitem__(self, number: int | slice) -> "Unit | PairGroup":
        inside = range(self.start, self.stop)[number]
        if isinstance(inside, int):
            return self.table.unit(inside)
        return PairGroup(self.table, inside.start, inside.stop)

    def __iter__(self) -> Iterator[Unit]:
        return map(self.table.unit, range(self.start, self.stop))
