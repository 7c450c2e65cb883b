"""Means over the rows of an optimizer step, for the log: a row of a packed batch is only part of what the step saw."""

import torch
from torch import Tensor


class StepFigures:
    """Weighted means of named values, collected row by row and read at the optimizer step."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Each value is a tensor of any shape whose elements count the same."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value.detach().float().sum(), count + value.numel())

    def take(self) -> dict[str, Tensor]:
        """The means since the last call."""
        means = {name: torch.as_tensor(total / count) for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means
