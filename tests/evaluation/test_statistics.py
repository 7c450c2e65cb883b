"""The numbers that say how far a benchmark result can be trusted."""

import math

import numpy as np
import pytest

from psr.evaluation.statistics import (
    accuracy_figures,
    in_percent,
    mean_interval,
    paired_bootstrap,
    standard_error,
    wilson_interval,
)


def test_standard_error_is_binomial() -> None:
    assert standard_error([True] * 30 + [False] * 70) == pytest.approx(math.sqrt(0.3 * 0.7 / 100))
    assert standard_error([True] * 5) == 0.0
    assert standard_error([False]) == 0.0


def test_wilsons_interval_is_that_of_the_literature() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29, without continuity correction."""
    for right, problems, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]:
        assert wilson_interval(right / problems, problems) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson_interval(1.0, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)


def test_an_accuracy_of_all_right_is_not_sure() -> None:
    figures = accuracy_figures([True] * 20 + [None])
    assert (figures["accuracy"], figures["graded"]) == (1.0, 20)
    assert in_percent(1.0, (figures["accuracy_low"], figures["accuracy_high"])) == "100.0 (83.9-100.0)"  # type: ignore[arg-type]
    assert accuracy_figures([None])["accuracy_low"] is None and in_percent(None) == "-"
    assert mean_interval([1.0] * 20) == wilson_interval(1.0, 20)


def test_empty_input_is_named() -> None:
    with pytest.raises(ValueError, match="correct is empty"):
        standard_error([])
    with pytest.raises(ValueError, match="a is empty"):
        paired_bootstrap([], [])
    with pytest.raises(ValueError, match="b is empty"):
        paired_bootstrap([True], [])


@pytest.mark.parametrize("setting", [{"samples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_settings_out_of_range_are_named(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        paired_bootstrap([True], [False], **setting)  # type: ignore[arg-type]


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="a has 2 outcomes and b has 1"):
        paired_bootstrap([True, False], [True])


def test_the_difference_is_a_minus_b_and_its_interval_has_the_normal_width() -> None:
    rng = np.random.default_rng(1)
    b = rng.random(2000) < 0.4
    a = b | (rng.random(2000) < 0.1)
    difference, low, high = paired_bootstrap(a.tolist(), b.tolist(), samples=20_000)
    paired = a.astype(float) - b.astype(float)
    assert difference == pytest.approx(paired.mean())
    assert low < difference < high
    assert high - low == pytest.approx(2 * 1.96 * paired.std() / math.sqrt(2000), rel=0.05)
    assert paired_bootstrap(b.tolist(), a.tolist())[0] == pytest.approx(-difference)


def test_equal_systems_differ_by_exactly_nothing() -> None:
    outcomes = [True, False, True, True]
    assert paired_bootstrap(outcomes, outcomes) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval() -> None:
    hard = [n % 2 == 0 for n in range(400)]
    better = [right or n % 40 == 1 for n, right in enumerate(hard)]
    shuffled = np.random.default_rng(0).permutation(hard).tolist()
    _, low, high = paired_bootstrap(better, hard)
    _, unpaired_low, unpaired_high = paired_bootstrap(better, shuffled)
    assert high - low < 0.5 * (unpaired_high - unpaired_low)


def test_scores_need_not_be_booleans() -> None:
    difference, low, high = paired_bootstrap([5.0, 3.0, 4.0], [4.0, 3.0, 1.0])
    assert difference == pytest.approx(4 / 3)
    assert 0.0 <= low <= difference <= high <= 3.0


def test_the_seed_decides_the_interval_and_the_level_its_width() -> None:
    a = [n % 3 == 0 for n in range(300)]
    b = [n % 4 == 0 for n in range(300)]
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)
    _, low, high = paired_bootstrap(a, b, level=0.5)
    _, wide_low, wide_high = paired_bootstrap(a, b, level=0.99)
    assert wide_low < low < high < wide_high
