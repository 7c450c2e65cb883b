"""Learning-rate factors. Knows step numbers only."""

import math


def warmup_cosine(step: int, total: int, warmup_share: float, floor: float = 0.0) -> float:
    """The factor at `step` (0-based) of `total`: linear over the first `warmup_share`, then a cosine to `floor`."""
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup  # the first step already learns
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_constant(step: int, total: int, warmup_share: float) -> float:
    """The factor at `step` (0-based) of `total`: linear over the first `warmup_share`, then 1."""
    return min(1.0, (step + 1) / max(1, round(total * warmup_share)))
