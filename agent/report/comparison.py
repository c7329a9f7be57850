"""A campaign goes in; what its studies' winners are worth on fresh seeds, and who beat whom, come out.

The unit is the study: its confirmed score is one number, however many seeds and folds it is the mean of.
Differences are tested between searchers, corrected for the number of pairs (Holm). Whether one winner beats
the reference is another question, with training seeds as units (Welch's t-test, corrected for the number of
studies): five fresh seeds against five cannot give a permutation test a p below .008, too coarse for ten.
"""

from __future__ import annotations

import itertools
import statistics as averages
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.records import Measurement
from agent.report.best_so_far import recipe_within
from agent.report.campaign import Campaign, Study
from agent.report.statistics import (
    Error,
    Test,
    bootstrap,
    compare,
    holm,
    pooled_deviation,
    welch_interval,
    welch_p,
)

ALPHA = 0.05
# charges count as equal up to this ratio
TOLERANCE = 1.1
Seeds = tuple[float, ...]


@dataclass(frozen=True)
class Final:
    """A study's winner. Gains are over the reference, on the task's scale; positive is better.

    promised: by the scores of the search. confirmed: on `seeds` fresh training seeds; None before confirmation.
    failed: fresh seeds on which its training gave no score.
    interval: of `confirmed`. p: that winner and reference are alike, corrected for the number of studies.
    """

    study: str
    searcher: str
    trial: int
    kept: bool
    promised: float | None
    confirmed: float | None
    seeds: int
    failed: int
    interval: tuple[float, float] | None
    p: float | None

    @property
    def optimism(self) -> float | None:
        """How much of the promised gain was luck."""
        known = self.promised is not None and self.confirmed is not None and self.kept
        return self.promised - self.confirmed if known else None  # type: ignore[operator]

    @property
    def better(self) -> bool:
        """Beyond doubt better than the reference; never one that failed on a fresh seed."""
        return self.p is not None and self.p <= ALPHA and (self.confirmed or 0.0) > 0 and not self.failed


@dataclass(frozen=True)
class Pair:
    """Two searchers. Values are merits (the confirmed score with its sign turned so that more is better).

    limit: charged seconds at which they are compared, None: at their ends. p: after Holm's correction.
    only: the sole searcher that may be called better, where the other one was allowed more; None: either.
    missing: studies without a confirmed score at the point of comparison.
    failing: searchers of which compared recipes failed on fresh seeds: the scores of the rest flatter them.
    """

    first: str
    second: str
    values: tuple[tuple[float, ...], tuple[float, ...]]
    missing: int = 0
    limit: float | None = None
    only: str | None = None
    failing: tuple[str, ...] = ()
    test: Test | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def difference(self) -> float | None:
        """Mean merit of the first less that of the second."""
        return averages.fmean(self.values[0]) - averages.fmean(self.values[1]) if all(self.values) else None

    @property
    def wins(self) -> float | None:
        """Share of all pairings of studies that the first wins; ties count half."""
        duels = [(a > b) + 0.5 * (a == b) for a in self.values[0] for b in self.values[1]]
        return sum(duels) / len(duels) if duels else None

    @property
    def better(self) -> str | None:
        """The searcher that is better beyond doubt, if one is."""
        if self.p is None or self.p > ALPHA or not self.difference:
            return None
        found = self.first if self.difference > 0 else self.second
        return found if self.only in (None, found) and found not in self.failing else None


def finals(campaign: Campaign, factor: float = 1.0) -> list[Final]:
    """Every study's winner, those of studies without a reference left out. `factor`: times the budget."""
    reference = campaign.reference_confirmed(factor)
    found = [_final(campaign, study, factor, reference) for study in campaign.studies if study.reference]
    tested = [final for final in found if final.p is not None]
    corrected = dict(
        zip((f.study for f in tested), holm([f.p for f in tested if f.p is not None]), strict=True)
    )
    return [replace(final, p=corrected.get(final.study)) for final in found]


def _final(campaign: Campaign, study: Study, factor: float, measured: Sequence[Measurement]) -> Final:
    winner, reference = study.winner, study.reference
    assert winner is not None
    assert winner.outcome is not None
    assert reference is not None
    assert reference.outcome is not None
    kept = winner.number != reference.number
    again = study.confirmed(winner.number, factor) if kept else tuple(measured)
    levels, base = campaign.by_seed(again), campaign.by_seed(measured)
    merits, zero = [campaign.sign * v for v in levels], [campaign.sign * v for v in base]
    found, start = campaign.level(winner.outcome.measurements), campaign.level(reference.outcome.measurements)
    return Final(
        study=study.name,
        searcher=study.spec.searcher,
        trial=winner.number,
        kept=kept,
        promised=None if found is None or start is None else campaign.gain(found, start),
        confirmed=averages.fmean(merits) - averages.fmean(zero) if merits and zero else None,
        seeds=len(levels),
        failed=len(study.failed(winner.number, factor)) if kept else 0,
        interval=bootstrap(merits, zero) if kept and merits and zero else None,
        p=welch_p(merits, zero) if kept and min(len(merits), len(zero)) > 1 else None,
    )


def pairs(campaign: Campaign, factor: float = 1.0) -> list[Pair]:
    """Every two searchers, tested where both have two confirmed studies or more, corrected together."""
    found = [_pair(campaign, a, b, factor) for a, b in itertools.combinations(campaign.searchers, 2)]
    tested = [pair for pair in found if pair.test]
    for pair, p in zip(tested, holm([pair.test.p for pair in tested if pair.test]), strict=True):
        found[found.index(pair)] = replace(pair, p=p)
    return found


def _pair(campaign: Campaign, first: str, second: str, factor: float) -> Pair:
    groups = [[s for s in campaign.of(name) if s.state != "failed"] for name in (first, second)]
    ends = [[_merits(campaign, study, None, factor) for study in group] for group in groups]
    limit, thrifty = _equal_seconds(groups, (first, second))
    pair = _tested(first, second, ends)
    if limit is not None:
        cut = [[_merits(campaign, study, limit, factor) for study in group] for group in groups]
        # without those, only the thrifty one can be called better: the other had more and still lost
        complete = all(study for group in cut for study in group)
        pair = replace(_tested(first, second, cut), limit=limit) if complete else replace(pair, only=thrifty)
    failing = (
        name
        for name, group in zip((first, second), groups, strict=True)
        if any(_failed(study, pair.limit, factor) for study in group)
    )
    return replace(pair, failing=tuple(failing))


def _failed(study: Study, limit: float | None, factor: float) -> bool:
    """Whether a fresh training of the recipe that `_merits` takes gave no score."""
    number = _recipe(study, limit)
    return number is not None and bool(study.failed(number, factor))


def _tested(first: str, second: str, seeds: Sequence[Sequence[Seeds]]) -> Pair:
    """seeds: for each searcher and study, the merit on each fresh training seed."""
    known = [[study for study in group if study] for group in seeds]
    values = [tuple(averages.fmean(study) for study in group) for group in known]
    missing = sum(not study for group in seeds for study in group)
    pair = Pair(first, second, (values[0], values[1]), missing)
    if min(map(len, values)) < 2:
        return pair
    floors = (_floor(known[0]), _floor(known[1]))
    interval = bootstrap(*pair.values)
    if interval and any(len(set(group)) < len(group) for group in known):
        # resampling studies does not know that they share a measurement, and its error
        interval = welch_interval(*pair.values, floors)
    return replace(pair, test=compare(*pair.values, floors), interval=interval)


def _floor(studies: Sequence[Seeds]) -> Error:
    """What training seeds alone leave uncertain of the studies' mean.

    Studies that ended with the very same recipe share one measurement. They look alike to the last digit, but
    what was measured is not known to the last digit.
    """
    shares = [(seeds, studies.count(seeds) / len(studies)) for seeds in dict.fromkeys(studies)]
    deviation = pooled_deviation([seeds for seeds, _ in shares]) or 0.0
    variance = sum(share**2 * deviation**2 / len(seeds) for seeds, share in shares)
    return Error(variance, max(1, sum(len(seeds) - 1 for seeds, _ in shares)))


def _merits(campaign: Campaign, study: Study, limit: float | None, factor: float) -> Seeds:
    """The study's recipe, at its end or at `limit` seconds, on each fresh seed; more is better. Empty: unknown."""
    if not study.reference or not study.winner:
        return ()
    number = _recipe(study, limit)
    measured = campaign.reference_confirmed(factor) if number is None else study.confirmed(number, factor)
    return tuple(campaign.sign * value for value in campaign.by_seed(measured))


def _recipe(study: Study, limit: float | None) -> int | None:
    """The kept trial that was the recipe at the end, or at `limit` seconds; None: the reference."""
    end = study.winner.number if study.winner else None
    number = end if limit is None else recipe_within(study, "seconds", limit)
    return None if study.reference and number == study.reference.number else number


def _equal_seconds(
    groups: Sequence[Sequence[Study]], names: tuple[str, str]
) -> tuple[float | None, str | None]:
    """(seconds that both had, the thriftier searcher), or (None, None) where charges are about equal."""
    spent = [[study.charges.seconds for study in group] for group in groups]
    if not all(spent):
        return None, None
    medians = [averages.median(group) for group in spent]
    if max(medians) <= TOLERANCE * min(medians):
        return None, None
    return TOLERANCE * min(medians), names[medians.index(min(medians))]


def to_confirm(campaign: Campaign) -> dict[str, list[int]]:
    """Study -> trials to train again: its winner and, where charges differ, its recipe at equal seconds."""
    wanted: dict[str, set[int]] = {
        s.name: {s.winner.number} for s in campaign.studies if s.reference and s.winner
    }
    for names in itertools.combinations(campaign.searchers, 2):
        groups = [[s for s in campaign.of(name) if s.name in wanted] for name in names]
        limit, _ = _equal_seconds(groups, names)
        for study in [*groups[0], *groups[1]] if limit else []:
            number = recipe_within(study, "seconds", limit or 0.0)
            wanted[study.name] |= set() if number is None else {number}
    return {name: sorted(numbers) for name, numbers in wanted.items()}


def differing(campaign: Campaign) -> dict[str, bool]:
    """Settings in which the studies differ -> whether that forbids comparing them."""
    specs = [study.spec for study in campaign.studies]
    values: dict[str, list[Any]] = {
        "seconds a trial": [spec.budget.seconds for spec in specs],
        "training seeds": [spec.training_seeds for spec in specs],
        "folds": [spec.details.get("folds") for spec in specs],
        "the reference's settings": [spec.details.get("base") for spec in specs],
        "the commit they started from": [s.reference.commit for s in campaign.studies if s.reference],
        "trials": [spec.budget.trials for spec in specs],
        "the search space": [spec.details.get("space") for spec in specs],
        "the rule that keeps": [spec.details.get("acceptance", spec.acceptance) for spec in specs],
        "sandbox": [spec.sandbox for spec in specs],
    }
    hard = (
        "seconds a trial",
        "training seeds",
        "folds",
        "the reference's settings",
        "the commit they started from",
    )
    return {name: name in hard for name, found in values.items() if any(v != found[0] for v in found)}
