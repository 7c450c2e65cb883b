"""How well a policy judges: held-out EFT pairs, each in both orders, as torchmetrics.

Knows EFT rows and engines. Does not know how candidates were made.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from psr.data.sft import judge_prompts
from psr.encoding import Encoder
from psr.engines.base import Engine
from psr.prompts import VERDICTS
from psr.search.judges import JudgeSettings, verdicts


class JudgeMetric(Metric):
    """Verdicts against right labels; `update` takes the labels given and right, as indices (0: A, 1: B, -1: none).

    Computes `judge_accuracy` (unparsable is wrong), `judge_unparsable`, `judge_position_bias` (share of A among the
    parsed, minus one half: 0 is none, since every pair comes in both orders) and `judge_consistency` (share of pairs
    whose two verdicts name the same step). Rows come in pairs of orders, one after the other.
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
        """Both (2 * pairs,), the two orders of a pair side by side."""
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


async def evaluate_judge(
    engine: Engine, encoder: Encoder, rows: Sequence[dict[str, Any]], settings: JudgeSettings
) -> dict[str, float]:
    """The figures of JudgeMetric on EFT rows."""
    asked = [question for row in rows for question in judge_prompts(row, encoder)]
    replies = await verdicts(engine, encoder, [prompt for prompt, _, _ in asked], settings)
    given = [-1 if label is None else VERDICTS.index(label) for label, _ in replies]
    metric = JudgeMetric()
    metric.update(torch.tensor(given), torch.tensor([VERDICTS.index(label) for _, label, _ in asked]))
    return {name: float(value) for name, value in metric.compute().items()}
