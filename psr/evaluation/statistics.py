"""Uncertainty of benchmark numbers: standard errors of accuracies, and intervals for the gap between two systems.

Works on lists of per-problem outcomes and knows nothing of models, problems or grading.
"""

from collections.abc import Sequence

import numpy as np

MANY = 0.2
"""Of the finished solutions without a box: more are said in words, for the accuracy says little of such a model."""


def graded(correct: Sequence[bool | None]) -> list[bool]:
    """The outcomes of the problems that have a reference answer."""
    return [right for right in correct if right is not None]


def standard_error(correct: Sequence[bool]) -> float:
    """Binomial standard error sqrt(p (1 - p) / n) of the accuracy p, as a fraction (0.01 is one percentage point).

    Raises ValueError when `correct` is empty.
    """
    if len(correct) == 0:
        raise ValueError("correct is empty: a standard error needs at least one graded problem")
    accuracy = sum(map(bool, correct)) / len(correct)
    return float((accuracy * (1 - accuracy) / len(correct)) ** 0.5)


def standard_error_of_mean(values: Sequence[float]) -> float:
    """Standard error of the mean of one value per problem, in the unit of the values; 0 for a single one.

    For accuracies over several samples per problem: samples of one problem are correlated, so the problem, not the
    sample, is the unit of sampling.
    """
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def wilson_interval(accuracy: float, problems: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of an accuracy measured on `problems` problems (95% by default), as fractions.

    Unlike accuracy ± z standard errors, it stays within 0 and 1, and does not shrink to a point where all or none of
    the problems are solved.
    """
    # The accuracies p from which the measured one is at most z of p's own standard errors away: a quadratic in p.
    shift = z * z / problems
    centre = (accuracy + shift / 2) / (1 + shift)
    half = z / (1 + shift) * (accuracy * (1 - accuracy) / problems + shift / (4 * problems)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_figures(correct: Sequence[bool | None]) -> dict[str, float | int | None]:
    """What every result says of an accuracy: how many were graded, the share that is right, its 95% interval (Wilson).

    None in `correct` is a problem without a reference answer, which does not count; figures are None where none counts.
    """
    counted = graded(correct)
    if not counted:
        return dict.fromkeys(("accuracy", "accuracy_stderr", "accuracy_low", "accuracy_high"), None) | {"graded": 0}
    accuracy = sum(counted) / len(counted)
    low, high = wilson_interval(accuracy, len(counted))
    ends = {"accuracy_low": low, "accuracy_high": high}
    return {"accuracy": accuracy, "accuracy_stderr": standard_error(counted), **ends, "graded": len(counted)}


def in_percent(accuracy: float | None, interval: tuple[float, float] | None = None) -> str:
    """An accuracy with the ends of its interval, as tables show it: "57.1 (53.0-61.1)"."""
    if accuracy is None:
        return "-"
    ends = "" if interval is None else f" ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"
    return f"{100 * accuracy:.1f}{ends}"


def box_remark(who: str, no_box: float | None) -> str | None:
    """What is to be said where many solutions box nothing; None where few do."""
    if no_box is None or no_box <= MANY:
        return None
    return (
        f"{who}: {100 * no_box:.0f}% of the finished solutions box no answer, and count as wrong whatever they say; "
        "psr grade --without_box true counts such answers apart"
    )


def mean_interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of the mean of one share per problem, at the most uncertain that such a mean can be.

    Shares of several samples vary less from problem to problem than right and wrong do, so that it is on the safe side,
    and it has a width where all shares are alike.
    """
    return wilson_interval(sum(values) / len(values), len(values), z)


def exact_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share: it never covers less than `level`, however few the trials.

    (0, 1) of none. For decisions: with few trials Wilson's would call a loss of 4 to 0 significant.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if trials == 0:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(level, "exact")
    return float(found.low), float(found.high)


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, samples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Percentile bootstrap of mean(a) - mean(b), where a[i] and b[i] are two systems' outcomes on problem i.

    Problems are resampled with replacement as pairs, so that problems that are hard for both do not widen the interval.

    Args:
        a: one outcome per problem (booleans, or scores in any unit)
        b: the other system's outcomes on the same problems, in the same order
        samples: number of bootstrap samples
        seed: of the resampling; the same seed gives the same interval
        level: coverage of the interval, between 0 and 1

    Returns:
        (difference, low, high) in the unit of the outcomes: fractions for booleans.

    Raises:
        ValueError: `a` or `b` is empty, they differ in length, `samples` is below 1 or `level` not between 0 and 1.
    """
    for name, outcomes in (("a", a), ("b", b)):
        if len(outcomes) == 0:
            raise ValueError(f"{name} is empty: the bootstrap needs at least one problem")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} outcomes and b has {len(b)}: pairs need one of each per problem")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    # A bootstrap sample matters only through how often each distinct difference occurs (for right or wrong there are
    # three): drawing those counts has the same distribution at a fraction of the memory.
    values, counts = np.unique(differences, return_counts=True)  # both (distinct,)
    draws = np.random.default_rng(seed).multinomial(len(differences), counts / len(differences), size=samples)
    # draws is (samples, distinct): how often each difference occurs in each bootstrap sample
    low, high = np.quantile(draws @ values / len(differences), [(1 - level) / 2, (1 + level) / 2])
    return float(differences.mean()), float(low), float(high)
