"""Packed rows for Lightning: one batch is one row, and an optimizer step accumulates as many rows as the plan says.

Knows plans and the Trainer's setting for accumulation. Does not know what the rows hold.
"""

from pathlib import Path

from lightning import Trainer
from torch.utils.data import DataLoader, Dataset

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


def row_loader(plan: Plan, trainer: Trainer | None, store: Path | None = None) -> DataLoader[Row]:
    """The loader of the plan's rows; the Trainer accumulates the rows of each optimizer step."""
    if trainer is not None:
        trainer.accumulate_grad_batches = plan.rows_per_step
    return DataLoader(PlannedRows(plan, store), batch_size=None)
