"""Accuracy, bias and consistency of a judge, as one torchmetrics metric. Does not know where verdicts come from."""

import torch
from torch import Tensor
from torchmetrics import Metric


class JudgeMetric(Metric):
    """Verdicts against labels; `update` takes verdicts and labels as indices (0: A, 1: B, -1: none).

    Computes `judge_accuracy` (unparsable is wrong), `judge_unparsable` (for a scoring judge, equal scores count too),
    `judge_position_bias` (share of A among the parsed, minus one half: 0 is none, since every pair comes in both
    orders) and `judge_consistency` (share of pairs whose two verdicts name the same step). The two orders of a pair are
    adjacent.
    """

    right: Tensor
    parsed: Tensor
    first: Tensor
    agreeing: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)  # one rank evaluates, while the others wait
        for name in ("right", "parsed", "first", "agreeing", "total"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, given: Tensor, labels: Tensor) -> None:
        """Both are (2 * pairs,), with the two orders of a pair adjacent."""
        # Consistent: both verdicts are parsed and one says A and the other B, so they add up to 1.
        self.right += (given == labels).sum()
        self.parsed += (given >= 0).sum()
        self.first += (given == 0).sum()
        self.agreeing += (given.view(-1, 2).sum(1) == 1).logical_and((given.view(-1, 2) >= 0).all(1)).sum()
        self.total += len(given)

    def compute(self) -> dict[str, Tensor]:
        return {
            "judge_accuracy": self.right / self.total,
            "judge_unparsable": 1 - self.parsed / self.total,
            "judge_position_bias": (self.first - self.parsed / 2) / self.parsed.clamp(min=1),
            "judge_consistency": 2 * self.agreeing / self.total,
        }
