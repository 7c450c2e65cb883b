"""What step pairs are made of, and how they count: settings, the weight of a pair, agreement with another ranking.

Knows searched nodes. Does not know who judged them, losses or models.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from psr.errors import UsageError
from psr.records import StepNode
from psr.search.judges import JudgeSettings
from psr.search.rounds import distinct
from psr.search.statistics import mean, order_agreement

PairWeight = Literal["none", "margin", "agreement"]


@dataclass(frozen=True)
class PairSettings:
    """What step pairs are made of, and how they count.

    Args:
        weight: what a pair's loss is multiplied by: "none" 1, "margin" the margin of its scores as a share of the
            largest possible, "agreement" the share of the verdicts at its step in which both orders agree.
        soft_labels: "consistency" has the model before judge the same candidates; how far the two rankings agree, over
            all pairs of the iteration, is the probability that a label is right (CREAM, arXiv 2410.12735). M1 has no
            model before it: its labels are certain. "none" takes all labels for certain.
        rejected: whose step is rejected: "current" that of the search, the worst of the model's own; "initial" the
            worst of as many that M1 writes in the same place, judged beside the chosen one (anchored rejection, arXiv
            2508.06026).
    """

    weight: PairWeight = "none"
    soft_labels: Literal["none", "consistency"] = "none"
    rejected: Literal["current", "initial"] = "current"

    def check(self, judge: JudgeSettings) -> None:
        """Raise UsageError where the judge does not give what these settings ask for."""
        if self.weight == "agreement" and (judge.orders, judge.form) != ("both", "pairwise"):
            raise UsageError(
                f"pairs.weight is 'agreement', judge.orders {judge.orders!r} and judge.form {judge.form!r}: only "
                "comparisons in both orders can agree, set orders to both and form to pairwise"
            )
        if self.soft_labels == "consistency" and judge.kind != "self":
            raise UsageError(
                f"pairs.soft_labels is 'consistency' and judge.kind {judge.kind!r}: it compares the rankings of two "
                "models, set judge.kind to self"
            )


def margin_share(node: StepNode) -> float:
    """The margin as a share of the largest possible: one candidate beats all the others, and another none."""
    return node.margin / (len(node.candidates) - 1)


def agreement_share(node: StepNode) -> float:
    """Of the candidates compared in both orders, the share whose two verdicts name the same winner; 0 of none."""
    return mean(order_agreement(node)) or 0.0


WEIGHTS: dict[PairWeight, Callable[[StepNode], float]] = {
    "none": lambda node: 1.0,
    "margin": margin_share,
    "agreement": agreement_share,
}


def consistency(pairs: Iterable[tuple[StepNode, StepNode]]) -> float | None:
    """How far two judges rank the same candidates alike: the mean of (tau + 1) / 2; None of no pair of nodes.

    Kendall's tau-b of the scores of distinct candidates: 1 for equal rankings, 0 for the reverse, 1/2 where one of the
    two judges tells none apart.
    """
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    found = []
    for one, other in pairs:
        firsts = list(distinct(one.candidates))
        tau = float(kendalltau([one.scores[i] for i in firsts], [other.scores[i] for i in firsts]).statistic)
        found.append(0.5 if tau != tau else (tau + 1) / 2)
    return mean(found)
