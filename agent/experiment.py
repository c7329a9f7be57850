"""One trial: a checked proposal in its workspace goes in; it is run and compared; outcome and verdict come out.

Runs are fold by fold, since a fold's training split holds the other folds' validation pairs: a run sees one only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from agent.acceptance import Acceptance, Decision, delta
from agent.noise import Noise
from agent.records import Charges, Measurement, Outcome, Status, Value, Verdict
from agent.runner import Run, Runner

Note = Callable[[Charges, Measurement | None, str], None]
Point = Mapping[str, float]


class Workplace(Protocol):
    """Where code stands that can be run: the candidate's, or for a moment the recipe's. One trial at a time."""

    @property
    def path(self) -> Path: ...

    def candidate(self) -> None: ...

    def recipe(self) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """What a candidate is compared with: the trial that is the recipe, and all that was measured of it.

    Candidates that run side by side share it: who needs it on a fresh seed first measures it, under the lock.
    """

    number: int
    arguments: Sequence[str]
    measurements: list[Measurement]
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Record:
    """What a trial has done so far; `note` writes it to the ledger as it grows."""

    note: Note
    charges: Charges = field(default_factory=Charges)
    measurements: list[Measurement] = field(default_factory=list)
    # recipes, by number, measured again on a fresh seed, charged to the trial that needed it
    of_recipe: dict[int, list[Measurement]] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    ended: Run | None = None

    def add(self, run: Run, phase: str, of_recipe: int | None = None) -> None:
        self.charges += Charges(run.seconds, run.train_seconds, 0.0, 1)
        if run.measurement is None:
            self.ended = run
        elif of_recipe is None:
            self.measurements.append(run.measurement)
        else:
            self.of_recipe.setdefault(of_recipe, []).append(run.measurement)
        if of_recipe is None:
            fold = float(run.measurement.fold) if run.measurement else -1.0
            self.curve += [{"fold": fold, **point} for point in run.curve]
        self.note(self.charges, run.measurement if of_recipe is None else None, phase)

    def spend(self, seconds: float) -> None:
        """Charges what is no run: a check, say."""
        self.charges += Charges(seconds)

    def anew(self) -> None:
        """Forgets what was measured of other code; what it cost stays charged."""
        self.measurements, self.curve = [], []


@dataclass(frozen=True)
class Experiment:
    """Runs trials of one study. `seeds` are the training seeds, the same for every trial, in order of use."""

    runner: Runner
    acceptance: Acceptance
    seeds: Sequence[int]
    stop: threading.Event
    now: Callable[[], float] = time.monotonic

    def reference(
        self, workplace: Workplace, arguments: Sequence[str], folder: Path, record: Record
    ) -> Outcome:
        """The recipe that every study starts from, on as many seeds as the acceptance rule wants."""
        workplace.recipe()
        for seed in self.seeds[: self.acceptance.floor_seeds]:
            for _ in self._folds(workplace, arguments, seed, folder, record):
                if record.ended:
                    return _failed(record)
        return _completed(record)

    def trial(
        self,
        workplace: Workplace,
        arguments: Sequence[str],
        recipe: Recipe,
        noise: Noise,
        folder: Path,
        record: Record,
    ) -> tuple[Outcome, Verdict]:
        """Runs the candidate, with re-runs of both on further seeds while the rule cannot tell.

        What `record` holds already was measured of this very configuration and code, and is not run again.
        """
        workplace.candidate()
        if not record.measurements:
            ended = self._first_seed(workplace, arguments, recipe, noise, folder, record)
            if ended is not None:
                return ended
        decision = self.acceptance.decide(record.measurements, recipe.measurements, noise)
        reruns = 0
        for seed in self.seeds[1:]:
            if decision.action != "rerun":
                break
            if failed := self._recipe_on(workplace, recipe, seed, folder, record):
                # the candidate itself ran; unless the machine ended it, it only cannot be compared any further
                outcome = _failed(record) if failed.status == "interrupted" else _completed(record)
                reason = f"the recipe's re-run: {failed.status}: {failed.reason}"
                return replace(outcome, reason=reason), _not_kept(recipe, reason)
            if not any(item.seed == seed for item in record.measurements):
                for _ in self._folds(workplace, arguments, seed, folder, record):
                    if record.ended:
                        return _failed(record), _not_kept(recipe, record.ended.reason)
            reruns += 1
            decision = self.acceptance.decide(record.measurements, recipe.measurements, noise)
        return _completed(record), _verdict(decision, recipe, reruns)

    def _first_seed(
        self,
        workplace: Workplace,
        arguments: Sequence[str],
        recipe: Recipe,
        noise: Noise,
        folder: Path,
        record: Record,
    ) -> tuple[Outcome, Verdict] | None:
        """The candidate on the seed that every trial is run on; how it ended, where that ended the trial."""
        early = self.runner.task.early_folds
        for done in self._folds(workplace, arguments, self.seeds[0], folder, record):
            if record.ended:
                return _failed(record), _not_kept(recipe, record.ended.reason)
            hopeless = self.acceptance.hopeless(record.measurements, recipe.measurements, noise)
            if done == early < len(self.runner.task.folds) and hopeless:
                return self._hopeless(record, recipe)
        return None

    def _recipe_on(
        self, workplace: Workplace, recipe: Recipe, seed: int, folder: Path, record: Record
    ) -> Run | None:
        """The recipe on those of the seed's folds that it was not measured on yet; the run that failed, if one did.

        Some may have been measured, by a trial that ended before the others were.
        """
        with recipe.lock:
            known = {item.fold for item in recipe.measurements if item.seed == seed}
            folds = [fold for fold in self.runner.task.folds if fold not in known]
            if folds:
                workplace.recipe()
                for _ in self._folds(workplace, recipe.arguments, seed, folder, record, recipe.number, folds):
                    if record.ended:
                        return record.ended
                recipe.measurements.extend(record.of_recipe[recipe.number][-len(folds) :])
                workplace.candidate()
        return None

    def _folds(
        self,
        workplace: Workplace,
        arguments: Sequence[str],
        seed: int,
        folder: Path,
        record: Record,
        of_recipe: int | None = None,
        folds: Sequence[int] = (),
    ) -> Iterator[int]:
        """Runs fold after fold, by default all; yields how many are done, also after the one that failed."""
        folds = folds or self.runner.task.folds
        for done, fold in enumerate(folds, start=1):
            name = f"{'' if of_recipe is None else 'recipe-'}seed{seed}-fold{fold}"
            run = self.runner.run(
                workplace.path, arguments, seed=seed, fold=fold, folder=folder / name, stop=self.stop
            )
            record.add(run, f"seed {seed}, fold {done} of {len(folds)}", of_recipe)
            yield done

    def _hopeless(self, record: Record, recipe: Recipe) -> tuple[Outcome, Verdict]:
        change, _ = delta(record.measurements, recipe.measurements)
        done, folds = len({one.fold for one in record.measurements}), len(self.runner.task.folds)
        reason = f"stopped after {done} of {folds} folds: behind by {abs(change):.4g}, more than the noise explains"
        outcome = replace(_completed(record), stopped_early=True, reason=reason)
        return outcome, Verdict("reverted", delta=change, compared_with=recipe.number, reason=reason)


def _completed(record: Record) -> Outcome:
    scores = [item.score for item in record.measurements]
    return Outcome(
        "completed", sum(scores) / len(scores), tuple(record.measurements), curve=tuple(record.curve)
    )


def _failed(record: Record) -> Outcome:
    assert record.ended is not None
    status: Status = record.ended.status
    return Outcome(
        status,
        measurements=tuple(record.measurements),
        curve=tuple(record.curve),
        reason=record.ended.reason,
        log_tail=record.ended.log_tail,
    )


def _verdict(decision: Decision, recipe: Recipe, reruns: int) -> Verdict:
    kept = decision.action == "keep"
    return Verdict(
        "kept" if kept else "reverted",
        decision.probability,
        decision.delta,
        recipe.number,
        reruns,
        decision.reason,
    )


def _not_kept(recipe: Recipe, reason: str) -> Verdict:
    return Verdict("reverted", compared_with=recipe.number, reason=reason)


def arguments_of(
    base: Sequence[str], overrides: Mapping[str, Value], quote: Callable[[Value], str]
) -> list[str]:
    """The command line of a recipe: the task's base and the complete overrides."""
    return [*base, *(f"{key}={quote(value)}" for key, value in sorted(overrides.items()))]
