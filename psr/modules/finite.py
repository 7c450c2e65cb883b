"""The first loss or gradient that is no number ends the fit: all that comes after it would be worth nothing.

Knows figures of an optimizer step. Does not know losses or Lightning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from psr.errors import PSRError


class DivergedError(PSRError, ArithmeticError):
    """The training diverged; the message names the optimizer step, the rows and the settings that it ran with."""


def check_step(
    step: int, figures: Mapping[str, Tensor], rows: Sequence[tuple[int, Tensor]], settings: Mapping[str, Any]
) -> None:
    """Raise DivergedError where one of the `figures` of optimizer step `step` is not finite.

    `rows` are the numbers and losses of the rows that the step saw here. Looks at the device once.
    """
    if bool(torch.stack([value.detach().float() for value in figures.values()]).isfinite().all()):
        return
    broken = [number for number, loss in rows if not bool(loss.isfinite())]
    which = "of which the loss is that of row" if broken else "of rows"
    found = ", ".join(f"the {name} is {float(value):g}" for name, value in figures.items())
    told = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    raise DivergedError(
        f"training diverged at optimizer step {step}: {found}, {which} "
        f"{', '.join(map(str, broken or [number for number, _ in rows]))} of the epoch (counted from 0). It ran with "
        f"{told}. Nothing is exported. Lower model.lr, or set trainer.gradient_clip_val, and start afresh"
    )
