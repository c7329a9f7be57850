"""An ended study goes in; what each kept change of its recipe is worth in the end comes out, by leaving it out.

Paired: the recipe and the recipe without the change are trained on the same fresh seeds, and compared seed by seed.
An effect is on the task's scale, positive where the change helps. Events of the study:

- "ablating": change, of, removal, measurements (one run), cost: progress, so that nothing is measured twice.
- "ablated": change, trial (the winner), of (the last trial that made the change), removal, effect, low, high
  (95 %), measurements, charges: a change, on all seeds.
- "not_ablated": change, of, reason: it cannot be left out alone.
- "minimal": as "ablated", and without (changes), branch, commit; cost instead of charges.

The recipe's own measurements are "confirmed" events: `confirmation.py` makes them.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student

from agent.acceptance import seed_gains
from agent.codec import from_json, to_json
from agent.confirmation import Confirmation
from agent.ledger import StudyLedger
from agent.minimal import offer
from agent.records import Charges, Measurement, Trial
from agent.removal import Change, Removal, Unremovable, changes_of, removed
from agent.retraining import (
    Bench,
    Measured,
    Retraining,
    RetrainingError,
    as_json,
    charge,
    confirmed,
    read_measurements,
)
from agent.validation import Rejected


@dataclass(frozen=True)
class Effect:
    """What a change is worth: mean over seeds on the task's scale, with its 95 % interval; positive helps."""

    change: str
    trial: int
    mean: float
    low: float
    high: float
    seeds: int

    @property
    def needed(self) -> bool:
        """Leaving it out is shown to hurt."""
        return self.low > 0

    def __str__(self) -> str:
        verdict = "helps" if self.needed else "hurts" if self.high < 0 else "not shown to help"
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}] on {self.seeds} seeds, {verdict}"


@dataclass
class Ablation:
    """Leave-one-out over the recipes of studies. by: "trial" or "key" (`removal.changes_of`)."""

    room: Retraining
    ledgers: Sequence[StudyLedger]
    seeds: Sequence[int]
    by: str = "trial"
    minimal: bool = True
    say: Callable[[str], None] = print

    def run(self) -> dict[str, list[Effect]]:
        """Study -> effects. Raises Stopped, SandboxUnavailable, LedgerError, RetrainingError."""
        if self.by not in ("trial", "key"):
            raise RetrainingError(f"ablate.by={self.by}: expected trial or key")
        if len(self.seeds) < 2:
            raise RetrainingError(f"ablate.seeds={list(self.seeds)}: an interval needs two or more")
        Confirmation(self.room, self.ledgers, self.seeds, factors=(1,), say=self.say).measure()
        with self.room.held(self.ledgers):
            return {ledger.name: self._study(ledger) for ledger in self.ledgers}

    def _study(self, ledger: StudyLedger) -> list[Effect]:
        bench, steps = self.room.of(ledger), ledger.lineage()
        full = self._full(ledger, steps[-1])
        if (seeds := len({seed for seed, _ in full})) < 2:
            self.say(
                f"{ledger.name}: its recipe gave a score on {seeds} of {len(self.seeds)} seeds: left out"
            )
            return []
        effects, removals = [], {}
        for change in changes_of(steps, self.by, bench.task):
            try:
                removal = removed([change], bench, steps)
                effect = self._change(bench, change, removal, full, steps[-1].number)
            except (Unremovable, Rejected) as error:
                self._cannot(bench, change, str(error))
                continue
            self.say(f"{ledger.name}, {change}: {effect}")
            effects.append(effect)
            removals[change] = effect
        if self.minimal and (idle := [change for change, effect in removals.items() if not effect.needed]):
            self._minimal(bench, idle, removals, steps, full)
        return effects

    def _full(self, ledger: StudyLedger, winner: Trial) -> Measured:
        """The recipe itself, as confirmed on those of our seeds on which all of its folds have a score."""
        measured = confirmed(ledger, winner.number, 1)
        folds = {fold for _, fold in measured}
        whole = [seed for seed in self.seeds if all((seed, fold) in measured for fold in folds)]
        return {key: item for key, item in measured.items() if key[0] in whole}

    def _change(self, bench: Bench, change: Change, removal: Removal, full: Measured, winner: int) -> Effect:
        """Measures what is left of it to measure, and logs the effect once all of it is there."""
        ledger, name = bench.ledger, str(change)
        for event in _of(ledger, removal):
            if event["event"] == "not_ablated":
                raise Unremovable(event["reason"])
            if (
                event["event"] == "ablated"
                and full.keys() <= (earlier := read_measurements(event["measurements"])).keys()
            ):
                return effect_of(name, change.trial, full, earlier.values(), bench)
        measured, charges = self._train(bench, removal, name, change.trial, full)
        effect = effect_of(name, change.trial, full, measured, bench)
        bench.log(
            "ablated",
            **as_event(effect, winner),
            removal=removal.name,
            measurements=to_json(measured),
            charges=charges,
        )
        return effect

    def _train(
        self, bench: Bench, removal: Removal, name: str, trial: int, full: Measured
    ) -> tuple[list[Measurement], Charges]:
        """All runs of a reduced recipe on the seeds that the full one was measured on. Raises Unremovable."""
        ledger = bench.ledger
        past = [event for event in _of(ledger, removal) if event["event"] == "ablating"]
        measured = read_measurements(item for e in past for item in e["measurements"])
        charges = sum((from_json(Charges, event["cost"]) for event in past), Charges())
        code, arguments = removal.code(bench), removal.arguments(bench)
        for seed, fold in sorted(full):
            if (seed, fold) in measured:
                continue
            run = bench.train(code, arguments, seed, fold, f"ablate/{removal.name}-seed{seed}-fold{fold}")
            charges += charge(run)
            bench.log(
                "ablating",
                change=name,
                of=trial,
                removal=removal.name,
                measurements=as_json(run),
                cost=to_json(charge(run)),
            )
            if run.measurement is None:
                reason = f"without it the run ends: {run.status}: {run.reason}"
                bench.log("not_ablated", change=name, of=trial, reason=reason, removal=removal.name)
                raise Unremovable(reason)
            measured[seed, fold] = run.measurement
        return [measured[key] for key in sorted(measured) if key in full], charges

    def _cannot(self, bench: Bench, change: Change, reason: str) -> None:
        ledger = bench.ledger
        self.say(f"{ledger.name}, {change}: cannot be left out alone: {reason}")
        entry = {"change": str(change), "of": change.trial, "reason": reason}
        if not any(all(e.get(key) == entry[key] for key in entry) for e in ledger.events()):
            bench.log("not_ablated", **entry)

    def _minimal(
        self,
        bench: Bench,
        idle: Sequence[Change],
        effects: Mapping[Change, Effect],
        steps: Sequence[Trial],
        full: Measured,
    ) -> None:
        """Leaves out all that is not shown to help; while that together hurts, the less useful half of it."""
        without = sorted(idle, key=lambda change: effects[change].mean)
        while without:
            name = " + ".join(map(str, without))
            try:
                removal = removed(without, bench, steps)
                measured, charges = self._train(bench, removal, name, steps[-1].number, full)
            except (Unremovable, Rejected) as error:
                self.say(f"{bench.ledger.name}, without {name}: {error}")
            else:
                effect = effect_of(name, steps[-1].number, full, measured, bench)
                self.say(f"{bench.ledger.name}, without {name}: {effect}")
                if not effect.needed:
                    return self._offer(bench, removal, without, steps[-1], effect, measured, charges)
            without = without[: len(without) // 2]
        self.say(f"{bench.ledger.name}: nothing smaller is as good")

    def _offer(
        self,
        bench: Bench,
        removal: Removal,
        without: Sequence[Change],
        winner: Trial,
        effect: Effect,
        measured: Sequence[Measurement],
        charges: Charges,
    ) -> None:
        ledger, names = bench.ledger, [str(change) for change in without]
        branch, commit = offer(bench, removal, winner, measured, str(effect), names)
        if not any(event["event"] == "minimal" for event in _of(ledger, removal)):
            paid = any(event["event"] == "ablated" for event in _of(ledger, removal))
            more = {"removal": removal.name, "without": names, "branch": branch, "commit": commit}
            cost = Charges() if paid else charges
            bench.log(
                "minimal",
                **as_event(effect, winner.number),
                **more,
                measurements=to_json(measured),
                cost=cost,
            )
        self.say(f"{ledger.name}: the smaller recipe is on branch {branch}")


def _of(ledger: StudyLedger, removal: Removal) -> list[dict[str, Any]]:
    """The events about a removal."""
    return [event for event in ledger.events() if event.get("removal") == removal.name]


def effect_of(
    change: str, trial: int, full: Measured, without: Iterable[Measurement], bench: Bench
) -> Effect:
    """The paired effect: on each seed, the full recipe's gain over the one without the change."""
    task = bench.task
    gains, _ = seed_gains(list(full.values()), list(without), task.direction, task.scale)
    mean = statistics.fmean(gains)
    half = math.inf
    if len(gains) > 1:
        half = float(student.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
    return Effect(change, trial, mean, mean - half, mean + half, len(gains))


def as_event(effect: Effect, winner: int) -> dict[str, Any]:
    """An effect as the ledger holds it."""
    values = {"effect": effect.mean, "low": effect.low, "high": effect.high}
    return {"change": effect.change, "trial": winner, "of": effect.trial, **values}


def keep_rates(trials: Iterable[Trial], by: str) -> dict[str, tuple[int, int]]:
    """(kept, tried) for each phase or category that proposals name. by: "phase" or "category"."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for trial in trials:
        if trial.proposal.route == "reference" or not trial.outcome or trial.interrupted:
            continue
        count = counts[getattr(trial.proposal, by) or "none"]
        count[0] += bool(trial.verdict and trial.verdict.decision == "kept")
        count[1] += 1
    return {name: (kept, tried) for name, (kept, tried) in counts.items()}
