"""Means over the rows of an optimizer step, for the log: a row of a packed batch is only part of what the step saw."""

from collections.abc import Callable

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

    def take(self, over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Tensor]:
        """The means since the last call; `over_ranks` adds up a tensor of all the ranks that took part in the step."""
        pairs = [torch.stack([torch.as_tensor(x) for x in sums]) for sums in self._sums.values()]
        means = [total / count for total, count in over_ranks(torch.stack(pairs))] if pairs else []
        named = dict(zip(self._sums, means, strict=True))
        self._sums.clear()
        return named
