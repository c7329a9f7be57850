"""Schedules: the share of the budget used in; a learning-rate factor or an expert probability out.

That a share in [0, 1] goes in and not a step number lets a run that is cut by time anneal fully; what is beyond
counts as the end.
"""

from __future__ import annotations

import math
from typing import Literal


def learning_rate_factor(share: float, warmup: float, floor: float) -> float:
    """Linear from 0 to 1 over the first `warmup` of the budget, then half a cosine down to `floor`."""
    share = _within(share)
    if share < warmup:
        return share / warmup
    rest = _within((share - warmup) / max(1.0 - warmup, 1e-12))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * rest))


def expert_probability(
    share: float,
    schedule: Literal["constant", "phased"],
    max: float,
    min: float,
    cold: float,
    warmup: float,
    cooldown: float,
) -> float:
    """The probability that a step adds an expert batch.

    constant: `max` throughout. phased, as in eCLIP: 0 for the first `cold` of the budget, linear to `max`
    over the next `warmup`, `max` until the last `cooldown` begins, linear to `min` at the end.
    """
    if schedule == "constant":
        return max
    if schedule != "phased":
        raise ValueError(f"expert.probability.schedule={schedule}: choose constant or phased")
    if cold + warmup + cooldown > 1.0 + 1e-9:
        total = cold + warmup + cooldown
        raise ValueError(f"expert.probability: cold + warmup + cooldown = {total:g}, more than the budget")
    share = _within(share)
    rise = _within((share - cold) / warmup) if warmup else float(share >= cold)
    fall = _within((share - (1.0 - cooldown)) / cooldown) if cooldown else 0.0
    return max * rise + (min - max) * fall


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)
