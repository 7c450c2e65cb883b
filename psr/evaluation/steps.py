"""Baselines for a PRM's step accuracy: rules that do not read the step. Pure functions over numbers."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepBaselines:
    """Held-out accuracies of always saying "+" and of a rule on the step's length, fitted on the training steps."""

    always_plus: float
    length_rule: float
    balanced_length_rule: float


def step_baselines(training: Sequence[tuple[int, int]], heldout: Sequence[tuple[int, int]]) -> StepBaselines:
    """The baselines from (length, label) of every step; label 1 is "+", 0 is "-"."""
    cut, longer_is = _best_rule(training, [1.0, 1.0])
    plus = sum(label for _, label in training) / len(training)
    balanced_cut, balanced_longer_is = _best_rule(training, [1 / max(1 - plus, 1e-9), 1 / max(plus, 1e-9)])
    right = [label == (longer_is if length > cut else 1 - longer_is) for length, label in heldout]
    return StepBaselines(
        always_plus=sum(label for _, label in heldout) / len(heldout),
        length_rule=sum(right) / len(right),
        balanced_length_rule=_balanced(heldout, balanced_cut, balanced_longer_is),
    )


def _best_rule(steps: Sequence[tuple[int, int]], weights: Sequence[float]) -> tuple[int, int]:
    """(cut, label of the longer ones) with the greatest weight of correct training steps; `weights` by label."""
    # One pass over the steps by length: `shorter` counts, by label, those at or below the cut.
    totals = [sum(weights[label] for _, label in steps if label == one) for one in (0, 1)]
    best = (max(totals), -1, int(totals[1] >= totals[0]))  # everything is longer than -1
    shorter = [0.0, 0.0]
    ordered = sorted(steps)
    for i, (length, label) in enumerate(ordered):
        shorter[label] += weights[label]
        if i + 1 < len(ordered) and ordered[i + 1][0] == length:
            continue
        for longer_is in (0, 1):
            right = shorter[1 - longer_is] + totals[longer_is] - shorter[longer_is]
            best = max(best, (right, length, longer_is))
    return best[1], best[2]


def _balanced(steps: Sequence[tuple[int, int]], cut: int, longer_is: int) -> float:
    """The mean of the accuracies on "+" and on "-"; one half is chance."""
    shares = []
    for one in (0, 1):
        right = [(longer_is if length > cut else 1 - longer_is) == label for length, label in steps if label == one]
        shares.append(sum(right) / len(right) if right else 0.5)
    return sum(shares) / 2
