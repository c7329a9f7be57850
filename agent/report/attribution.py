"""Ablations go in, what each change of a recipe is worth in the end comes out, with intervals.

A change is taken back from the winner and the rest is trained on several seeds; the loss, paired by training
seed where the winner was confirmed on the same ones, is what the change is worth. Intervals are each change's own,
not corrected for their number.
"""

from __future__ import annotations

import statistics as averages
from dataclasses import dataclass

from agent.codec import from_json
from agent.records import Measurement
from agent.report.campaign import Campaign, Study
from agent.report.statistics import student_interval


@dataclass(frozen=True)
class Worth:
    """What one change is worth, on the task's scale; positive: the recipe is worse without it."""

    study: str
    trial: int
    change: str
    effect: float
    interval: tuple[float, float] | None
    seeds: int

    @property
    def proven(self) -> bool:
        return self.interval is not None and self.interval[0] > 0

    @property
    def unproven(self) -> bool:
        """Its removal is not shown to hurt; that it does nothing is not shown either."""
        return self.interval is not None and self.interval[0] <= 0


def attribution(campaign: Campaign, study: Study) -> list[Worth]:
    """The changes that were ablated against the study's winner, the most worth first.

    Of one removal the last event counts: on more seeds it holds those before again.
    """
    if not study.winner:
        return []
    number = study.winner.number
    last = {(e["change"], e.get("removal")): e for e in study.events_named("ablated") if e["trial"] == number}
    whole = [*study.confirmed(number)]
    if study.winner.outcome:
        whole += study.winner.outcome.measurements
    found = [
        _worth(
            campaign, study, change, [from_json(Measurement, data) for data in event["measurements"]], whole
        )
        for (change, _), event in last.items()
    ]
    return sorted((worth for worth in found if worth), key=lambda worth: -worth.effect)


def _worth(
    campaign: Campaign, study: Study, change: str, without: list[Measurement], whole: list[Measurement]
) -> Worth | None:
    places = {(m.seed, m.fold) for m in without} & {(m.seed, m.fold) for m in whole}
    if not places or not study.winner:
        return None
    pairs = [campaign.by_seed(m for m in group if (m.seed, m.fold) in places) for group in (whole, without)]
    losses = [campaign.gain(a, b) for a, b in zip(*pairs, strict=True)]
    mean, interval = averages.fmean(losses), student_interval(losses)
    return Worth(study.name, study.winner.number, change, mean, interval, len(losses))
