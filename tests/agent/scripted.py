"""A study written by hand: trials with given outcomes go into a real SQLite ledger, and observers hear of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from optuna.distributions import CategoricalDistribution, FloatDistribution

from agent.ledger import Ledger, Owner, StudySpec
from agent.observers import Observer, Observers
from agent.records import Budget, Charges, Edit, Measurement, Outcome, Proposal, Status, Trial, Value, Verdict

REFERENCE: Mapping[str, Value] = {
    "optimizer.lr": 0.001,
    "model.pooling": "cls",
    "loss.scale": 1.0,
    "aug.scale": 0.5,
}
SPACE = {
    "optimizer.lr": FloatDistribution(1e-5, 1.0, log=True),
    "model.pooling": CategoricalDistribution(["cls", "mean"]),
    "loss.scale": FloatDistribution(0.0, 2.0),
    "aug.scale": FloatDistribution(0.0, 1.0),
}


class ScriptedStudy:
    """`path` is the ledger's file. Each trial costs 10 seconds a run, 8 of them training, and a cent."""

    def __init__(
        self,
        path: Path,
        *observers: Observer,
        name: str = "story",
        budget: Budget | None = None,
        sandbox: str = "bubblewrap",
        direction: str = "minimize",
    ) -> None:
        self.budget = budget or Budget(trials=20, seconds=60, study_seconds=3600, usd=2.0)
        if not path.exists():
            path.write_bytes(_empty_ledger())
        spec = StudySpec("tpe", 3, self.budget, "toy", direction, sandbox=sandbox)  # type: ignore[arg-type]
        self.ledger = Ledger.open(f"sqlite:///{path}").study(name, create=spec)
        self.observers = Observers(observers)
        self.owner = str(Owner.here())

    def begin(self) -> ScriptedStudy:
        self.ledger.claim(self.owner)
        self.observers.started(self.ledger)
        return self

    def end(self, event: str = "ended", reason: str = "all trials are used") -> None:
        self.ledger.log(event, reason=reason)
        self.observers.ended(self.ledger)
        self.ledger.release(self.owner)

    def reference(self, score: float = 100.0, seeds: Sequence[int] = (0, 1)) -> Trial:
        proposal = Proposal(base="reference", route="reference", searcher="tpe")
        return self._finish(self.start(proposal), score, Verdict("reference"), seeds)

    def trial(
        self, overrides: Mapping[str, Value], score: float, decision: str = "reverted", **proposal: object
    ) -> Trial:
        """A completed one, compared with the recipe."""
        best = self.ledger.best()
        assert best is not None
        assert best.outcome is not None
        assert best.outcome.score is not None
        probability, delta = (0.95 if decision == "kept" else 0.2), score - best.outcome.score
        verdict = Verdict(decision, probability, delta, best.number)  # type: ignore[arg-type]
        return self._finish(self.start(Proposal(overrides, **proposal)), score, verdict)  # type: ignore[arg-type]

    def failed(
        self, overrides: Mapping[str, Value], status: Status, reason: str, **proposal: object
    ) -> Trial:
        trial = self.start(Proposal(overrides, **proposal))  # type: ignore[arg-type]
        curve = ({"fold": -1.0, "step": 0.0, "loss": 9.0},) if status == "diverged" else ()
        outcome = Outcome(status, reason=reason, curve=curve)
        return self.finish(
            replace(trial, outcome=outcome, verdict=Verdict("reverted"), charges=Charges(10, 0, 0.01, 1))
        )

    def start(self, proposal: Proposal) -> Trial:
        best = self.ledger.best()
        over = {**(best.overrides if best else {}), **proposal.overrides}
        shown = {**REFERENCE, **proposal.overrides} if proposal.route == "reference" else proposal.overrides
        number = self.ledger.start(
            proposal, overrides=over, params=shown, distributions=SPACE, owner=self.owner
        )
        trial = Trial(number, proposal, over)
        self.observers.trial_started(trial)
        return trial

    def finish(self, trial: Trial) -> Trial:
        self.ledger.finish(trial)
        self.observers.trial_finished(trial, self.ledger)
        return trial

    def _finish(self, trial: Trial, score: float, verdict: Verdict, seeds: Sequence[int] = (0,)) -> Trial:
        runs = [(seed, fold) for seed in seeds for fold in range(3)]
        measured = tuple(
            Measurement(seed, fold, score + fold - 1, {"mean_rank": score + fold - 1}) for seed, fold in runs
        )
        for index, item in enumerate(measured):
            charges = Charges(10.0 * (index + 1), 8.0 * (index + 1), 0.01, index + 1)
            phase = f"seed {item.seed}, fold {item.fold + 1} of 3"
            self.observers.progress(trial.number, phase)
        self.ledger.note(trial.number, charges=charges, measurement=item, phase=phase)
        curve = tuple(
            {"fold": float(fold), "step": step, "loss": 5.0 - step / 10}
            for _, fold in runs
            for step in (0.0, 10.0)
        )
        outcome = Outcome("completed", score, measured, curve)
        commit = "c0ffee" if verdict.decision == "kept" else ""
        return self.finish(replace(trial, outcome=outcome, verdict=verdict, charges=charges, commit=commit))


@cache
def _empty_ledger() -> bytes:
    """Making the tables takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        Ledger.open(f"sqlite:///{path}")
        return path.read_bytes()


def edit(path: str) -> tuple[Edit, ...]:
    return (Edit(path, "a", "b"),)
