"""Rows under a real Trainer: an optimizer step sees its units, in however many rows."""

from pathlib import Path

import pytest
from lightning import Trainer

from psr.data.rows import row_loader
from psr.data.switches import check_trainer
from psr.errors import UsageError
from psr.trees.packing import plan_rows
from tests.trees.test_packing import random_groups, units_of


def trainer(**options: int) -> Trainer:
    return Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", **options)  # type: ignore[arg-type]


def test_the_loader_serves_the_plans_rows_in_order_and_sets_the_trainers_accumulation(tmp_path: Path):
    plan = plan_rows(random_groups(12), 6, 60)
    fit = trainer()
    loader = row_loader(plan, fit, tmp_path / "store")
    rows = list(loader)
    assert [row.units.tolist() for row in rows] == units_of(plan)
    assert [row.number for row in rows] == list(range(len(plan.rows))) and len(loader) == len(rows)
    assert fit.accumulate_grad_batches == plan.rows_per_step > 1


def test_a_trainer_that_accumulates_by_itself_is_refused():
    check_trainer(None)
    check_trainer(trainer())
    with pytest.raises(UsageError, match=r"accumulate_grad_batches is 8: leave it out"):
        check_trainer(trainer(accumulate_grad_batches=8))


def test_a_loader_goes_on_where_another_was_and_the_epoch_after_is_whole():
    plan = plan_rows(random_groups(12), 6, 60)
    one, other = row_loader(plan, trainer()), row_loader(plan, trainer())
    served = [row.number for _, row in zip(range(5), one, strict=False)]
    assert served == list(range(5))
    other.load_state_dict(one.state_dict())
    assert [row.number for row in other] == list(range(5, len(plan.rows)))
    assert [row.number for row in other] == list(range(len(plan.rows)))
    one.load_state_dict(other.state_dict())
    assert len(list(one)) == len(plan.rows), "an epoch that is done leaves nothing to go on with"


def test_the_middle_of_an_epoch_belongs_to_its_number_of_ranks():
    loader = row_loader(plan_rows(random_groups(12), 6, 60), trainer())
    with pytest.raises(UsageError, match="middle of an epoch on 2 ranks, and there are 1"):
        loader.load_state_dict({"served": 3, "ranks": 2})
    loader.load_state_dict({"served": len(loader), "ranks": 2})


def test_rows_for_other_ranks_than_train_are_refused():
    with pytest.raises(ValueError, match="laid out for 2 ranks, and 1 train"):
        row_loader(plan_rows(random_groups(12), 6, 60, ranks=2), trainer())
