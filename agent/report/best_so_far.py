"""Studies go in, best-so-far curves come out: against trials, charged seconds and dollars, and sums of them.

"Best so far" is the score of the recipe that the study would hand over at that moment, not the least score
it has ever seen: a lucky trial that was not kept does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from agent.records import Charges, Trial, current_recipe
from agent.report.campaign import Study

Array = npt.NDArray[np.float64]
Axis = Literal["trials", "seconds", "usd"]
AXES: tuple[Axis, ...] = ("trials", "seconds", "usd")


@dataclass(frozen=True)
class Step:
    """After trial `number` ended: what was used by then, and the recipe and its score."""

    number: int
    trials: int
    seconds: float
    usd: float
    recipe: int
    score: float

    def at(self, axis: Axis) -> float:
        return float(getattr(self, axis))


@dataclass(frozen=True)
class Band:
    """Median and quartiles of several studies' curves at the places x; steps hold until the next x."""

    x: Array
    median: Array
    low: Array
    high: Array
    studies: int


def steps(study: Study) -> list[Step]:
    """One step for each ended trial, from the reference on. Interrupted trials cost, but count for no trial."""
    found: list[Step] = []
    seen: list[Trial] = []
    used, counted, recipe = Charges(), 0, None
    planning = sorted(study.planning, key=lambda item: item[0])
    for trial in study.trials:
        while planning and planning[0][0] <= study.began.get(trial.number, math.inf):
            used += planning.pop(0)[1]
        used += trial.charges
        seen.append(trial)
        if trial.outcome is None:
            continue
        counted += not trial.interrupted and trial.proposal.route != "reference"
        if trial.verdict and trial.verdict.decision != "reverted":
            recipe = current_recipe(seen)
        if recipe and recipe.outcome and recipe.outcome.score is not None:
            score = recipe.outcome.score
            found.append(Step(trial.number, counted, used.seconds, used.usd, recipe.number, score))
    return found


def relative(study: Study, axis: Axis) -> tuple[Array, Array]:
    """(x, score divided by the reference's) of a study's steps; empty where there can be no shares of that."""
    found = steps(study)
    reference = study.reference.outcome.score if study.reference and study.reference.outcome else None
    if not found or reference is None or reference <= 0:
        return np.empty(0), np.empty(0)
    return np.array([s.at(axis) for s in found]), np.array([s.score / reference for s in found])


def band(studies: Sequence[Study], axis: Axis) -> Band | None:
    """The studies' median curve with quartiles, from where all have a score to the median of their ends.

    A study that ended before that keeps its last score. None where no study has a score.
    """
    curves = [curve for curve in (relative(study, axis) for study in studies) if len(curve[0])]
    if not curves:
        return None
    start, end = max(x[0] for x, _ in curves), float(np.median([x[-1] for x, _ in curves]))
    x = np.unique(np.concatenate([x for x, _ in curves]))
    x = np.unique([start, *x[(x >= start) & (x <= max(end, start))]])
    values = np.array([at(curve, x) for curve in curves])
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    return Band(x, median, low, high, len(curves))


def at(curve: tuple[Array, Array], x: Array) -> Array:
    """A step curve's values at x; before its first step, the first value."""
    place = np.searchsorted(curve[0], x, side="right") - 1
    return curve[1][np.maximum(place, 0)]


def area(study: Study, axis: Axis, end: float) -> float | None:
    """Mean of score / reference from 0 to `end` on the axis: 1 is a study that found nothing.

    Before the reference was measured the curve is at 1. None without a score, or where `end` is 0.
    """
    x, y = relative(study, axis)
    if not len(x) or end <= 0:
        return None
    edges = np.clip([0.0, *x, math.inf], 0.0, end)
    return float(np.dot(np.diff(edges), [1.0, *y]) / end)


def recipe_within(study: Study, axis: Axis, limit: float) -> int | None:
    """The recipe that the study had when `limit` was used up; None if it had none yet."""
    within = [step for step in steps(study) if step.at(axis) <= limit]
    return within[-1].recipe if within else None


def time_to(study: Study, levels: Mapping[str, float], axis: Axis) -> dict[str, float | None]:
    """Where on the axis the study first stood at or below each level (a share of the reference), or None.

    For tasks that are minimised: the levels are those of the published run.
    """
    x, y = relative(study, axis)
    reached = {name: np.flatnonzero(y <= level * (1 + 1e-12)) for name, level in levels.items()}
    return {name: float(x[hits[0]]) if len(hits) else None for name, hits in reached.items()}
