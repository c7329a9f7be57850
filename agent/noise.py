"""Repeated measurements of unchanged configurations go in, the size of chance comes out: the noise floor.

The model, on the task's scale (logarithms where noise grows with the score): a configuration c trained
with seed s and judged on fold f scores

    y[c, s, f] = mean[c] + fold[f] + seed[c, s] + rest[c, s, f]

`fold` (some folds are harder) is shared by all configurations and cancels in differences over the same
folds. `seed` is what one training seed does to all folds of one configuration: they share initial weights
and batch order, and half of each other's training data. `rest` is what is left. Both are taken as normal
and as independent
between configurations even for the same seed: a changed configuration soon follows another trajectory, so
that sharing the seed is assumed to buy nothing. Where it does buy something, the rule that builds on this
is too careful, never too bold. What is estimated is the mean over exactly these folds and over training
seeds; whether it holds on other prints is the business of the final test.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.records import Measurement
from agent.task import Scale

SMALLEST = 1e-12


@dataclass(frozen=True)
class NoisePrior:
    """What is believed before the study has measured anything, worth `df` degrees of freedom.

    fold_std: standard deviation of `rest`, as a share of the score (0.03: the published run's folds).
    seed_share: variance of `seed` as a share of the variance of `rest`.
    """

    fold_std: float = 0.03
    seed_share: float = 0.3
    df: float = 4.0


@dataclass(frozen=True)
class Noise:
    """Variances of `seed` and `rest` on the task's scale, known with `df` degrees of freedom."""

    seed_variance: float
    fold_variance: float
    df: float

    def difference_variance(self, folds: int) -> float:
        """Of the difference of two configurations' means over `folds` folds, one training seed each."""
        return 2 * (self.seed_variance + self.fold_variance / folds)

    def describe(self, folds: int) -> str:
        one = math.sqrt(self.difference_variance(folds) / 2)
        return f"one seed's mean over {folds} folds varies by {one:.2%} ({self.df:g} degrees of freedom)"


def on_scale(score: float, scale: Scale) -> float:
    """The score where equal changes count equally; on "log" a perfect 0 is 1e-12. Raises ValueError."""
    if not math.isfinite(score) or (scale == "log" and score < 0):
        raise ValueError(
            f"score {score}: expected a finite number{' of at least 0' if scale == 'log' else ''}"
        )
    return math.log(max(score, SMALLEST)) if scale == "log" else score


def estimate(groups: Iterable[Sequence[Measurement]], scale: Scale, prior: NoisePrior) -> Noise:
    """The floor from configurations measured on several seeds; a group is one configuration's measurements.

    The reference repeated at the study's start is one group; every re-run trial may be another. Groups
    with a
    single seed tell nothing and are allowed: with nothing else the prior alone speaks. The rest's
    variance comes from what is left after seed and fold means, (seeds - 1)(folds - 1) degrees of freedom;
    the variance of a seed's mean over folds from the spread of those means, seeds - 1 degrees of freedom,
    with a prior that the two variances are related as `prior.seed_share` says. Raises ValueError without
    any measurement.
    """
    grids = [_grid(group, scale) for group in groups]
    grids = [grid for grid in grids if grid.size]
    if not grids:
        raise ValueError("the noise floor needs at least one measurement")
    # a trial that failed, the first reference even, may have been measured on some of them only
    folds = max(grid.shape[1] for grid in grids)
    level = 1.0 if scale == "log" else abs(float(np.mean([grid.mean() for grid in grids]))) or 1.0
    rest, rest_df, means, means_df = 0.0, 0, 0.0, 0
    for grid in grids:
        seeds_here, folds_here = grid.shape
        by_seed = grid.mean(axis=1)
        residual = grid - by_seed[:, None] - grid.mean(axis=0) + grid.mean()
        rest, rest_df = rest + float((residual**2).sum()), rest_df + (seeds_here - 1) * (folds_here - 1)
        if folds_here == folds:
            means, means_df = (
                means + float(((by_seed - by_seed.mean()) ** 2).sum()),
                means_df + seeds_here - 1,
            )
    fold_variance = (prior.df * (prior.fold_std * level) ** 2 + rest) / (prior.df + rest_df)
    expected = fold_variance * (1 / folds + prior.seed_share)
    total = (prior.df * expected + means) / (prior.df + means_df)
    seed_variance = max(total - fold_variance / folds, 0.0)
    return Noise(seed_variance, (total - seed_variance) * folds, prior.df + means_df)


def _grid(group: Sequence[Measurement], scale: Scale) -> npt.NDArray[np.float64]:
    """(seeds, folds) on the scale; only seeds that were measured on all folds of the group."""
    by_seed: Mapping[int, dict[int, float]] = defaultdict(dict)
    for item in group:
        by_seed[item.seed][item.fold] = on_scale(item.score, scale)
    folds = sorted({item.fold for item in group})
    rows = [[scores[fold] for fold in folds] for scores in by_seed.values() if len(scores) == len(folds)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(folds))
