"""A ledger goes in; the study as a curve comes out: best so far against trials, seconds and dollars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.codec import from_json
from agent.ledger import StudyLedger
from agent.records import Charges, Trial, current_recipe


@dataclass(frozen=True)
class Point:
    """The study right after `trial` ended.

    trials: how many of the budget were used, the reference and interrupted ones not counted.
    spent: everything charged until then, planning included. recipe: what the trial was measured against;
    best: the recipe from then on. Both None before the reference has ended.
    """

    trial: Trial
    trials: int
    spent: Charges
    recipe: Trial | None
    best: Trial | None


def curve(ledger: StudyLedger) -> list[Point]:
    """A point for every trial that has ended, in the order in which they ended."""
    ends = {frozen.number: frozen.datetime_complete for frozen in ledger.study.get_trials(deepcopy=False)}
    ended = [(end.timestamp(), t) for t in ledger.trials() if t.outcome and (end := ends[t.number])]
    events = [
        (event["time"], from_json(Charges, event["charges"]))
        for event in ledger.events()
        if "charges" in event
    ]
    points: list[Point] = []
    spent, used, recipes, best = Charges(), 0, list[Trial](), None
    for when, trial in sorted(ended, key=lambda pair: (pair[0], pair[1].number)):
        while events and events[0][0] <= when:
            spent += events.pop(0)[1]
        spent, used, before = spent + trial.charges, used + counts(trial), best
        if trial.verdict and trial.verdict.decision != "reverted":
            recipes.append(trial)
            best = current_recipe(sorted(recipes, key=lambda recipe: recipe.number))
        points.append(Point(trial, used, spent, before, best))
    return points


def counts(trial: Trial) -> bool:
    """Whether a trial uses up one of the budget's trials."""
    return trial.proposal.route != "reference" and not trial.interrupted


def used(trials: Iterable[Trial]) -> int:
    """How many trials of the budget are used or under way."""
    return sum(counts(trial) for trial in trials)
