"""Metrics averaged over an optimizer step: one row is only a micro-batch of what the step saw."""

from collections.abc import Callable

import torch
from torch import Tensor


class StepFigures:
    """Weighted means of named values, collected row by row and read at the optimizer step."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add values of a row: tensors of any shape, whose elements all have the same weight."""
        for name, value in values.items():
            total = value.detach().float().sum()
            # Kept as tensors: `.item()` would wait for the GPU at every row.
            before, count = self._sums.get(name, (torch.zeros_like(total), 0))
            self._sums[name] = (before + total, count + value.numel())

    def take(self, over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Tensor]:
        """The means since the last call; `over_ranks` sums a tensor over the data-parallel ranks."""
        # (names, 2): sums and counts in one tensor, so that all metrics take a single all-reduce. A mean of the ranks'
        # means would be wrong, as their rows hold different numbers of pairs.
        pairs = [torch.stack([total, total.new_tensor(count)]) for total, count in self._sums.values()]
        means = [total / count for total, count in over_ranks(torch.stack(pairs))] if pairs else []
        named = dict(zip(self._sums, means, strict=True))
        self._sums.clear()
        return named
