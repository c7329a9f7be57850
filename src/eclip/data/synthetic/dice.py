"""A seed, a print's number and a purpose go in; the same throws come out on every machine.

Python documents `random.Random(str)` and `.random()` as stable across versions, and only these two are used,
so neither NumPy's sampling algorithms nor the platform's math library can change what is in a print.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Throws that depend on `(seed, index, purpose)` alone."""

    def __init__(self, seed: int, index: int, purpose: str) -> None:
        self._next = random.Random(f"{seed}/{index}/{purpose}").random

    def real(self, low: float = 0.0, high: float = 1.0) -> float:
        """A real number in [low, high)."""
        return low + (high - low) * self._next()

    def jitter(self, spread: float) -> float:
        """A real number in [-spread, spread), more often near 0 (the mean of two throws)."""
        return spread * (self._next() + self._next() - 1.0)

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + int(self._next() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._next() < probability

    def one(self, options: Sequence[T]) -> T:
        """One option, all equally likely."""
        return options[int(self._next() * len(options))]

    def weighted(self, weights: dict[T, float]) -> T:
        """One key, with a probability in proportion to its weight."""
        mark = self._next() * sum(weights.values())
        for option, weight in weights.items():
            mark -= weight
            if mark < 0:
                return option
        return option

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options (all of them if there are fewer), in random order."""
        left = list(options)
        return [left.pop(int(self._next() * len(left))) for _ in range(min(count, len(left)))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return self.some(options, len(options))
