"""Learning-rate factors at the steps where they matter."""

from itertools import pairwise

import pytest

from psr.modules.schedule import warmup_constant, warmup_cosine


def test_cosine_warms_up_to_one_and_falls_to_its_floor():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == max(factors) == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert warmup_cosine(100, 100, 0.1, floor=0.2) == pytest.approx(0.2)
    assert warmup_cosine(500, 100, 0.1) == pytest.approx(0.0), "beyond the end it does not rise again"


def test_constant_warms_up_and_stays():
    factors = [warmup_constant(step, 100, 0.03) for step in range(100)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert set(factors[3:]) == {1.0}


@pytest.mark.parametrize("total", [0, 1, 2])
def test_very_short_runs_have_a_usable_rate(total: int):
    for factor in (warmup_cosine, warmup_constant):
        assert factor(0, total, 0.03) == 1.0
        assert 0.0 <= factor(1, total, 0.03) <= 1.0


def test_no_warm_up_starts_at_the_peak():
    assert warmup_constant(0, 1000, 0.0) == warmup_cosine(0, 1000, 0.0) == 1.0
