"""The settings of a study as somebody typed them go in, checked they come out, before any ledger knows the study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agent.records import Budget

# what is allowed: (whole numbers only, the least, whether the least itself is allowed, whether null is)
BOUNDS: dict[str, tuple[bool, float, bool, bool]] = {
    "trials": (True, 1, True, False),
    "seconds": (False, 0, False, False),
    "study_seconds": (False, 0, False, True),
    "usd": (False, 0, False, True),
    "wall_factor": (False, 1, True, False),
    "setup_seconds": (False, 0, True, False),
}


class AskedError(ValueError):
    """A setting that no study can be begun with; the message names the key, the value and what is allowed."""


def budget_of(settings: Mapping[str, Any]) -> Budget:
    """The budget. Raises AskedError: a study keeps the budget that it is begun with."""
    if unknown := sorted(settings.keys() - BOUNDS.keys()):
        raise AskedError(f"budget.{unknown[0]}: unknown key; there are {', '.join(BOUNDS)}")
    for key, (whole, least, allowed, null) in BOUNDS.items():
        value: Any = settings.get(key)
        if key not in settings or (value is None and null):
            continue
        good = _is_number(value, whole) and (value > least or (allowed and value == least))
        if not good:
            kind = "a whole number" if whole else "a number"
            bound = f"of at least {least:g}" if allowed else f"above {least:g}"
            raise AskedError(f"budget.{key}={value}: expected {kind} {bound}{', or null' if null else ''}")
    return Budget(**settings)


def seeds_of(seed: Any, training_seeds: Any) -> tuple[int, tuple[int, ...]]:
    """(the searcher's seed, the training seeds). Raises AskedError."""
    if not _is_number(seed, whole=True):
        raise AskedError(f"seed={seed}: expected a whole number")
    given = training_seeds if isinstance(training_seeds, list) else [None]
    if not given or not all(_is_number(one, whole=True) for one in given) or len(set(given)) < len(given):
        raise AskedError(f"training_seeds={training_seeds}: expected a list of different whole numbers")
    return seed, tuple(given)


def _is_number(value: Any, whole: bool) -> bool:
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return right and math.isfinite(value)
