"""Trials go in, how strongly each knob goes with the score comes out: a cheap measure by ranks.

For numbers |Spearman's rho| between value and score; for choices sqrt(H / (n - 1)) with Kruskal and Wallis's
H, which is on the same scale (two choices: the same figure). It shows what went together in the trials that
were made, not what causes what: searchers look where it is good.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import stats

from agent.records import Value
from agent.report.campaign import Campaign
from agent.searchers.base import comparable_score

FEWEST = 10
ALPHA = 0.05


@dataclass(frozen=True)
class Importance:
    """strength: 0 to 1. trials: that set the knob.

    chance: in 95 % of campaigns no knob that does nothing gets above it (Bonferroni's correction).
    """

    knob: str
    strength: float
    chance: float
    trials: int


def importance(campaign: Campaign) -> list[Importance]:
    """Knobs set in at least ten completed trials of the campaign, the strongest first.

    Scores are compared within each study only, as shares of its reference.
    """
    points: dict[str, list[tuple[Value, float]]] = defaultdict(list)
    for study in campaign.studies:
        by_number = {trial.number: trial for trial in study.trials}
        if not study.reference or not study.reference.outcome or not study.reference.outcome.score:
            continue
        for trial in study.proposals:
            if trial.outcome and trial.outcome.score is not None and trial.outcome.status == "completed":
                score = comparable_score(trial, by_number) / study.reference.outcome.score
                for knob, value in trial.overrides.items():
                    points[knob].append((value, score))
    enough = {knob: pairs for knob, pairs in points.items() if len(pairs) >= FEWEST}
    found = [_importance(knob, pairs, ALPHA / len(enough)) for knob, pairs in enough.items()]
    return sorted((item for item in found if item), key=lambda item: -item.strength)


def _importance(knob: str, pairs: list[tuple[Value, float]], alpha: float) -> Importance | None:
    """alpha: the chance with which a knob that does nothing may pass its tick."""
    values, scores = [value for value, _ in pairs], np.array([score for _, score in pairs])
    distinct = {repr(value) for value in values}
    if len(distinct) < 2 or np.ptp(scores) == 0:
        return None
    count = len(pairs)
    if all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        rho = float(stats.spearmanr(np.array(values, dtype=np.float64), scores).statistic)
        return Importance(
            knob, abs(rho), min(float(stats.norm.isf(alpha / 2)) / math.sqrt(count - 1), 1.0), count
        )
    groups = [scores[[repr(v) == one for v in values]] for one in sorted(distinct)]
    strength = math.sqrt(float(stats.kruskal(*groups).statistic) / (count - 1))
    chance = math.sqrt(float(stats.chi2.isf(alpha, len(groups) - 1)) / (count - 1))
    return Importance(knob, min(strength, 1.0), min(chance, 1.0), count)
