"""Schedules: the share of the budget used in; a learning-rate factor or an expert probability out.

Each takes a float or an array, values in [0, 1]. That a share goes in and not a step number lets a run that
is cut by time anneal fully.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Share = ArrayLike
Value = NDArray[np.float64] | np.float64


def learning_rate_factor(share: Share, warmup: float, floor: float) -> Value:
    """Linear from 0 to 1 over the first `warmup` of the budget, then half a cosine down to `floor`."""
    share = np.clip(np.asarray(share, dtype=np.float64), 0.0, 1.0)
    rest = np.clip((share - warmup) / max(1.0 - warmup, 1e-12), 0.0, 1.0)
    cosine = floor + (1.0 - floor) * 0.5 * (1.0 + np.cos(np.pi * rest))
    return np.where(share < warmup, share / max(warmup, 1e-12), cosine)[()]


def expert_probability(
    share: Share,
    schedule: Literal["constant", "phased"],
    max: float,
    min: float,
    cold: float,
    warmup: float,
    cooldown: float,
) -> Value:
    """The probability that a step adds an expert batch.

    constant: `max` throughout. phased, as in eCLIP: 0 for the first `cold` of the budget, linear to `max`
    over the next `warmup`, `max` until the last `cooldown` begins, linear to `min` at the end.
    """
    share = np.clip(np.asarray(share, dtype=np.float64), 0.0, 1.0)
    if schedule == "constant":
        return np.full_like(share, max)[()]
    if schedule != "phased":
        raise ValueError(f"expert.probability.schedule={schedule}: choose constant or phased")
    if cold + warmup + cooldown > 1.0 + 1e-9:
        total = cold + warmup + cooldown
        raise ValueError(f"expert.probability: cold + warmup + cooldown = {total:g}, more than the budget")
    rise = np.clip((share - cold) / warmup, 0.0, 1.0) if warmup else (share >= cold).astype(np.float64)
    fall = np.clip((share - (1.0 - cooldown)) / cooldown, 0.0, 1.0) if cooldown else np.zeros_like(share)
    return (max * rise + (min - max) * fall)[()]
