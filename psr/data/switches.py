"""Lightning's own switches where packed rows change what they mean: refused by name, with what does the same here.

`fast_dev_run`, `profiler`, `detect_anomaly` and `deterministic` work as in any Lightning project. Knows the Trainer's
settings; no rows.
"""

from lightning import Trainer
from lightning.pytorch.callbacks import Timer

from psr.errors import UsageError


def dev_run(trainer: Trainer | None) -> int:
    """The batches of a `fast_dev_run`, 0 where the fit is a real one."""
    return 0 if trainer is None else int(trainer.fast_dev_run)  # type: ignore[attr-defined]


def check_trainer(trainer: Trainer | None, iterates: bool = False) -> None:
    """Refuse settings that would train on other rows, or on fewer, than the plan lays out.

    Args:
        iterates: the fit is the self-rewarding loop: an iteration is trained to its end, or not at all.

    Raises:
        UsageError: names the setting and what to use instead.
    """
    if trainer is None:
        return
    if (rows := trainer.accumulate_grad_batches) != 1:
        raise UsageError(
            f"trainer.accumulate_grad_batches is {rows}: leave it out. data.batch_size counts what one optimizer step "
            "sees, and gradients are accumulated over as many rows as data.row_tokens makes of it"
        )
    fewer = "data.problems_per_iteration" if iterates else "data.limit"
    if few := trainer.overfit_batches:  # type: ignore[attr-defined]
        raise UsageError(
            f"trainer.overfit_batches is {few}: leave it out, and set {fewer} to a few: a batch is "
            "a part of an optimizer step here"
        )
    if trainer.limit_train_batches != 1.0 and not dev_run(trainer):
        raise UsageError(
            f"trainer.limit_train_batches is {trainer.limit_train_batches}: leave it out, and set {fewer} instead: it "
            "would cut an optimizer step in two"
        )
    if trainer.gradient_clip_val is not None and not 0 <= trainer.gradient_clip_val < float("inf"):
        raise UsageError(f"trainer.gradient_clip_val is {trainer.gradient_clip_val}: it must be at least 0")
    if iterates and not dev_run(trainer):
        timers = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
        for name, given in (("max_steps", trainer.max_steps != -1), ("max_time", bool(timers))):
            if given:
                raise UsageError(
                    f"trainer.{name} would end the fit within an iteration, and its half-trained model would "
                    f"count as its result: leave it out; {fewer} says how many iterations there are, and how large"
                )
