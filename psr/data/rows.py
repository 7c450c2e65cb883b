"""Packed rows for Lightning: a row is a micro-batch, and an optimizer step accumulates as many as the plan says.

Knows plans and the Trainer's gradient accumulation. Does not know what the rows hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from psr.errors import UsageError
from psr.trees.packing import Plan, Row, build_row


class PlannedRows(Dataset[Row]):
    """The rows of an epoch in order.

    `store` is the file for what is computed once per row (see reference.py). `counts` is how step pairs count, by their
    number: weight and label, (pairs, 2); None where all count alike.
    """

    def __init__(self, plan: Plan, store: Path | None = None, counts: Tensor | None = None) -> None:
        self.plan, self.store, self.counts = plan, store, counts

    def __len__(self) -> int:
        return len(self.plan.rows)

    def __getitem__(self, number: int) -> Row:
        # Tensors are made when a row is served: the plan of an epoch is small, its tensors may not fit at once.
        return build_row(self.plan.rows[number], number)


@dataclass(frozen=True)
class RowsOf:
    """The rows with these numbers, each made anew whenever it is its turn."""

    rows: PlannedRows
    numbers: Sequence[int]

    def __iter__(self) -> Iterator[Row]:
        return map(self.rows.__getitem__, self.numbers)


def data_rank(trainer: Trainer | None) -> tuple[int, int]:
    """(data-parallel rank, number of them); tensor-parallel ranks, which share every layer, get the same rows."""
    kwargs = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)


class RowLoader(DataLoader[Row]):
    """Remembers how many rows it has served, so that Lightning can resume in the middle of an epoch."""

    def __init__(self, rows: PlannedRows, rank: int, ranks: int) -> None:
        # Lightning replaces any other sampler by a shuffled DistributedSampler, and rows are planned in order.
        super().__init__(rows, batch_size=None, sampler=DistributedSampler(rows, ranks, rank, shuffle=False))
        self.ranks = ranks
        self.served = self._start = 0

    def __iter__(self) -> Iterator[Row]:  # type: ignore[override]
        self.served, self._start = self._start, 0  # only the first pass after a resume skips rows
        for row in islice(super().__iter__(), self.served, None):
            self.served += 1  # before the row is trained on: a checkpoint is written after its batch
            yield row

    def state_dict(self) -> dict[str, int]:
        return {"served": self.served, "ranks": self.ranks}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises UsageError where the first part of the epoch was served to another number of ranks."""
        # Ranks take every `ranks`th row: with another number, the rows left would not be those that are missing.
        done = state["served"] >= len(self)
        if not done and state["served"] and state["ranks"] != self.ranks:
            raise UsageError(
                f"the checkpoint is from the middle of an epoch on {state['ranks']} ranks, and there are {self.ranks}: "
                "finish the epoch with as many, or go on from a checkpoint of an epoch's end"
            )
        self._start = 0 if done else state["served"]


def row_loader(
    plan: Plan,
    trainer: Trainer | None,
    store: Path | None = None,
    accumulate: bool = True,
    counts: Tensor | None = None,
) -> RowLoader:
    """The loader of this rank's rows; with `accumulate`, the Trainer accumulates gradients as the plan says."""
    rank, ranks = data_rank(trainer)
    if plan.ranks != ranks:
        raise ValueError(f"the rows were laid out for {plan.ranks} ranks, and {ranks} train")
    if trainer is not None and accumulate:
        trainer.accumulate_grad_batches = plan.rows_per_step // ranks  # micro-batches of each rank
    return RowLoader(PlannedRows(plan, store, counts), rank, ranks)
