"""Packed rows for Lightning: one batch is one row, and an optimizer step accumulates as many rows as the plan says.

Knows plans and the Trainer's setting for accumulation. Does not know what the rows hold.
"""

from pathlib import Path

from lightning import Trainer
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from psr.errors import UsageError
from psr.packing import Plan, Row, build_row


class PlannedRows(Dataset[Row]):
    """The rows of an epoch in order; `store` is the file for what is computed once for all of them."""

    def __init__(self, plan: Plan, store: Path | None = None) -> None:
        self.plan, self.store = plan, store

    def __len__(self) -> int:
        return len(self.plan.rows)

    def __getitem__(self, number: int) -> Row:
        return build_row(self.plan.rows[number], number)


def check_accumulation(trainer: Trainer | None) -> None:
    """Refuse a Trainer that accumulates by itself: how many rows make an optimizer step is what the plan decides."""
    rows = trainer.accumulate_grad_batches if trainer is not None else 1
    if rows != 1:
        raise UsageError(
            f"trainer.accumulate_grad_batches is {rows}: leave it out. data.batch_size counts what one optimizer step "
            "sees, and gradients are accumulated over as many rows as data.row_tokens makes of it"
        )


def data_rank(trainer: Trainer | None) -> tuple[int, int]:
    """(rank, ranks) among those that train on different rows; ranks that share a layer get the same ones."""
    kwargs = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)


def row_loader(
    plan: Plan, trainer: Trainer | None, store: Path | None = None, accumulate: bool = True
) -> DataLoader[Row]:
    """The loader of this rank's rows; with `accumulate` the Trainer accumulates those of each optimizer step.

    The sampler is of the kind that Lightning would put there itself, shuffled: it leaves this one alone.
    """
    rows = PlannedRows(plan, store)
    rank, ranks = data_rank(trainer)
    if plan.ranks != ranks:
        raise ValueError(f"the rows were laid out for {plan.ranks} ranks, and {ranks} train")
    if trainer is not None and accumulate:
        trainer.accumulate_grad_batches = plan.rows_per_step // ranks
    return DataLoader(rows, batch_size=None, sampler=DistributedSampler(rows, ranks, rank, shuffle=False))
