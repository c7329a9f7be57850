"""Questions that Optuna's distributions leave open: a distribution and a value enter, an answer leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)


def inside(
    params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """The distributions of those params that have one and lie in it."""
    return {key: d for key, d in distributions.items() if key in params and contains(d, params[key])}


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether Optuna would accept `value` for `distribution`. Bools are no numbers here, NaN is nowhere."""
    if isinstance(distribution, CategoricalDistribution):
        return any(type(choice) is type(value) and choice == value for choice in distribution.choices)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return distribution._contains(distribution.to_internal_repr(value))


def on_grid(distribution: BaseDistribution, value: Any) -> Any:
    """`value` moved to the nearest step, as the type the distribution gives; None where it is outside.

    Steps are a sampler's grid: the reference and other searchers' values need not lie on it.
    """
    if isinstance(distribution, CategoricalDistribution):
        return value if contains(distribution, value) else None
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not distribution.low <= value <= distribution.high:
        return None
    if distribution.step is not None:
        steps = round((value - distribution.low) / distribution.step)
        value = min(distribution.low + steps * distribution.step, distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
