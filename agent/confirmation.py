"""Ended studies go in; their winners and the reference, trained again on fresh seeds, come out in the ledger.

At the search budget and at multiples of it, judged on validation; then each winner, trained on everything, reads
the test set once. Each run is an event of its study as soon as it has ended, so that nothing is measured twice:

- "confirming": trials, seeds, budget_factors: what there is to come.
- "confirmed": role, trial, budget_factor, measurements (one), charges; `failed` instead of a measurement where
  the run gave none; `measured_in` where another study with the very same recipe was charged for it.
- "test_opened", then "test_read": trial, metrics, again, charges; or "test_failed", which read nothing.
- "retraining_stopped": name (of the run), cost: a run that Ctrl-C ended; it is begun anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.codec import to_json
from agent.ledger import StudyLedger
from agent.records import Trial
from agent.retraining import (
    Bench,
    Measured,
    Retraining,
    RetrainingError,
    as_json,
    charge,
    confirmed,
    failure,
)


@dataclass(frozen=True)
class Subject:
    """A recipe to be trained again. Subjects of one identity are the same code, settings and budget."""

    bench: Bench
    trial: Trial
    role: str

    @property
    def identity(self) -> tuple[Any, ...]:
        ledger, folds = self.bench.ledger, self.bench.task.folds
        fingerprint = ledger.progress(self.trial.number).get("fingerprint")
        return self.bench.reference.commit, fingerprint, ledger.spec.budget.seconds, folds

    def __str__(self) -> str:
        return f"{self.bench.ledger.name}, {'reference' if self.role == 'reference' else f'trial {self.trial.number}'}"


@dataclass
class Confirmation:
    """The confirmation of a campaign, which is a list of studies.

    seeds: training seeds that no study has used. factors: multiples of the search budget, in order.
    trials: study -> further kept trials to train again, beside the winner. say: what a person reads.
    """

    room: Retraining
    ledgers: Sequence[StudyLedger]
    seeds: Sequence[int]
    factors: Sequence[float] = (1, 4)
    trials: Mapping[str, Sequence[int]] = field(default_factory=dict)
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise RetrainingError(f"seeds={list(self.seeds)}: expected different training seeds")
        for ledger in self.ledgers:
            if used := sorted(set(self.seeds) & set(ledger.spec.training_seeds)):
                raise RetrainingError(
                    f"seeds {used} were used by the search in {ledger.name}: take fresh ones"
                )
            if not _ended(ledger):
                raise RetrainingError(f"study {ledger.name} has not ended: resume it first, or leave it out")

    def measure(self) -> None:
        """Trains every subject on every seed under every budget, what is measured already left out.

        Factor by factor and seed by seed, the subjects in turn, so that a noisy machine hurts all alike.
        Raises Stopped, SandboxUnavailable, LedgerError where another process works on a study.
        """
        with self.room.held(self.ledgers):
            subjects = [subject for ledger in self.ledgers for subject in self._subjects(ledger)]
            for ledger in self.ledgers:
                self._announce(
                    self.room.of(ledger), [s.trial.number for s in subjects if s.bench.ledger is ledger]
                )
            rounds = [
                (factor, seed, subject)
                for factor in self.factors
                for seed in self.seeds
                for subject in subjects
            ]
            for count, (factor, seed, subject) in enumerate(rounds, start=1):
                if news := self._measure(subject, factor, seed, subjects):
                    self.say(f"{count:4d}/{len(rounds)}  {subject}, seed {seed}, budget x {factor:g}: {news}")

    def read_test(self, again: bool = False) -> None:
        """Each study's winner, trained on everything, reads the test set; a second time only if `again`.

        Studies with the very same winner share one read. Raises Stopped, SandboxUnavailable, LedgerError.
        """
        with self.room.held(self.ledgers):
            winners = [self._subjects(ledger)[-1] for ledger in self.ledgers]
            for winner in winners:
                name, reads = winner.bench.ledger.name, _reads(winner)
                if reads and not again:
                    number = reads[-1]["trial"]
                    self.say(
                        f"{name}: trial {number} has read the test set; again=true reads it a second time, marked"
                    )
                    continue
                twins = (
                    [w for w in winners if w.identity == winner.identity and _own_reads(w)]
                    if not again
                    else []
                )
                done = self._share(winner, twins[0]) if twins else self._read(winner, bool(reads))
                self.say(f"{name}: {done}")

    def _subjects(self, ledger: StudyLedger) -> list[Subject]:
        """The reference first; a winner only where the search kept something."""
        bench, steps = self.room.of(ledger), ledger.lineage()
        wanted = {steps[-1].number, *self.trials.get(ledger.name, ())}
        if unknown := wanted - {trial.number for trial in steps}:
            raise RetrainingError(f"{ledger.name}: trials {sorted(unknown)} are not in the recipe's lineage")
        winners = [Subject(bench, trial, "winner") for trial in steps[1:] if trial.number in wanted]
        return [Subject(bench, steps[0], "reference"), *winners]

    def _announce(self, bench: Bench, trials: list[int]) -> None:
        plan = to_json({"trials": trials, "seeds": list(self.seeds), "budget_factors": list(self.factors)})
        plans = [event for event in bench.ledger.events() if event["event"] == "confirming"]
        if not plans or any(plans[-1][key] != plan[key] for key in plan):
            bench.log("confirming", **plan)

    def _measure(self, subject: Subject, factor: float, seed: int, subjects: Sequence[Subject]) -> str:
        """One subject on one seed, fold by fold; what a person is told, empty if it was all there."""
        news: list[str] = []
        for fold in subject.bench.task.folds:
            if (seed, fold) in _known(subject, factor) or _failed(subject, factor, seed):
                continue
            for twin in (s for s in subjects if s is not subject and s.identity == subject.identity):
                if item := _known(twin, factor).get((seed, fold)):
                    source = twin.bench.ledger.name
                    self._log(subject, factor, measurements=[to_json(item)], measured_in=source)
                    news.append(f"{item.score:.6g} (measured in {source})")
                    break
            else:
                news.append(self._run(subject, factor, seed, fold))
        return ", ".join(news)

    def _run(self, subject: Subject, factor: float, seed: int, fold: int) -> str:
        bench, trial = subject.bench, subject.trial
        code = bench.code(trial.commit)
        arguments = bench.arguments(code, trial.overrides, factor)
        name = f"confirm/trial{trial.number:04d}-x{factor:g}-seed{seed}-fold{fold}"
        run = bench.train(code, arguments, seed, fold, name, factor)
        failed = {} if run.measurement else {"failed": failure(run, seed, fold)}
        self._log(subject, factor, measurements=as_json(run), charges=charge(run), **failed)
        return f"{run.measurement.score:.6g}" if run.measurement else f"{run.status}: {run.reason}"

    def _log(self, subject: Subject, factor: float, **more: Any) -> None:
        subject.bench.log(
            "confirmed", role=subject.role, trial=subject.trial.number, budget_factor=factor, **more
        )

    def _share(self, winner: Subject, twin: Subject) -> str:
        """The same recipe's scores, from another study of the campaign: no new read."""
        read, source = _own_reads(twin)[0], twin.bench.ledger.name
        winner.bench.log(
            "test_read", trial=winner.trial.number, metrics=read["metrics"], again=False, measured_in=source
        )
        return f"the same recipe as in {source}, whose test scores it shares"

    def _read(self, winner: Subject, again: bool) -> str:
        """One winner's final training and its test scores."""
        bench, trial = winner.bench, winner.trial
        code, seed, fold = bench.code(trial.commit), self.seeds[0], bench.task.folds[0]
        arguments, sealed = bench.arguments(code, trial.overrides), bench.sealed_test()
        # noted before anything is known, so that no read can go unseen
        bench.log("test_opened", trial=trial.number, seed=seed, again=again)
        run = bench.train(code, arguments, seed, fold, f"confirm/trial{trial.number:04d}-test", sealed=sealed)
        if run.measurement is None:
            bench.log("test_failed", trial=trial.number, cost=charge(run), **failure(run, seed, fold))
            return f"the final training of trial {trial.number} ended without a score: {run.status}: {run.reason}"
        metrics = dict(run.measurement.metrics)
        bench.log(
            "test_read", trial=trial.number, metrics=metrics, again=again, seed=seed, charges=charge(run)
        )
        return f"test {bench.task.metric} {run.measurement.score:.6g} (trial {trial.number})"


def _ended(ledger: StudyLedger) -> bool:
    life = [e["event"] for e in ledger.events() if e["event"] in ("ended", "stopped", "resumed")]
    return bool(life) and life[-1] == "ended"


def _reads(subject: Subject) -> list[dict[str, Any]]:
    return [event for event in subject.bench.ledger.events() if event["event"] == "test_read"]


def _own_reads(subject: Subject) -> list[dict[str, Any]]:
    """Those of the subject itself: a study that went on after its confirmation has another winner by now."""
    return [read for read in _reads(subject) if read["trial"] == subject.trial.number]


def _known(subject: Subject, factor: float) -> Measured:
    return confirmed(subject.bench.ledger, subject.trial.number, factor)


def _failed(subject: Subject, factor: float, seed: int) -> bool:
    """Whether this subject has failed on this seed: what fails is a result and is not tried again."""
    return any(
        event["event"] == "confirmed"
        and event["trial"] == subject.trial.number
        and event["budget_factor"] == factor
        and event.get("failed", {}).get("seed") == seed
        for event in subject.bench.ledger.events()
    )
