"""A study: searcher, ledger and experiment go in; ask, run, judge, decide, tell, until the budget is used.

With several workers the searcher is asked for as many trials at once, and they run side by side; see
`agent.side_by_side`. Every trial is in the ledger before its first run. After kill -9 at any moment `run` goes
on: a trial that was under way is failed as interrupted and charged for what it used; its proposal is asked for
again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.bench import Bench
from agent.edits import EditError
from agent.experiment import Experiment, Recipe, Record, arguments_of
from agent.ledger import LedgerError, StudyLedger, rows
from agent.measured import same_experiment
from agent.observers import Observers
from agent.records import Charges, Measurement, Outcome, Proposal, Trial, Value, Verdict
from agent.recovery import recover
from agent.research_log import commit_message
from agent.runner import Runner
from agent.searchers.base import Searcher, SearcherStopped, SearcherUnavailable
from agent.seats import Seat
from agent.side_by_side import Candidate, run_side_by_side
from agent.space import Space
from agent.spending import over, tried
from agent.validation import Rejected, Validated, quoted, validate
from agent.workdesk import ASKED_IN_VAIN, ASKED_LAST, WorkDesk
from agent.workspace import Workspace


class StudyFailed(RuntimeError):
    """The study cannot go on: the reference does not run, say. The message says why and what to do."""


@dataclass
class Loop:
    """One study at work in one process. `folder` is runs/<study>/."""

    ledger: StudyLedger
    searcher: Searcher
    space: Space
    experiment: Experiment
    workspace: Workspace
    folder: Path
    owner: str
    observers: Observers
    stop: threading.Event = field(default_factory=threading.Event)
    now: Callable[[], float] = time.monotonic
    # of a searcher that calls a model: what its calls cost
    desk: WorkDesk | None = None
    pause_seconds: float = 60.0
    # one for each worker; where there are several, each has a worktree of its own
    runners: Sequence[Runner] = ()
    seats: Sequence[Seat] = ()
    _lost: str = field(default="", init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.runners) > 1:
            self.seats = [Seat(self.workspace, number) for number in range(len(self.runners))]

    def run(self) -> str:
        """Runs until the budget is used, the searcher has no more, or `stop` is set; returns why it ended.

        Raises StudyFailed, SearcherStopped, SandboxUnavailable; whatever is raised, the ledger is in order.
        """
        steps = self.steps()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return str(end.value)

    def steps(self) -> Generator[Trial | None, None, str]:
        """`run` with a stop after each trial, the reference included, so that studies can take turns.

        None stands for a searcher that waits. `close()` gives the study up, and the ledger is in order.
        """
        with self.ledger.held(self.owner, self._lose):
            try:
                recover(self.ledger, self.workspace, self.owner)
                self.observers.started(self.ledger)
                if self.ledger.best() is None:
                    yield self._reference()
                reason = yield from self._search()
                self._require_held()
                self.ledger.log("stopped" if self.stop.is_set() else "ended", reason=reason)
                return reason
            finally:
                for seat in self.seats:
                    seat.remove()
                self._settle_rest()
                self.observers.ended(self.ledger)

    def _lose(self, why: str) -> None:
        """Another machine may have taken the study over: nothing more is written."""
        self._lost = why
        self.stop.set()

    def _require_held(self) -> None:
        if self._lost:
            raise LedgerError(self._lost)

    def _search(self) -> Generator[Trial | None, None, str]:
        while not (reason := over(self.ledger, history := self.ledger.history(), self.stop.is_set())):
            began = self.now()
            try:
                proposals = self.searcher.ask_many(history, self._room(history))
            except SearcherUnavailable as error:
                if not self.stop.is_set():
                    self.ledger.log("paused", reason=str(error), seconds=self.pause_seconds)
                    self.observers.paused(str(error), self.pause_seconds)
                    self.stop.wait(self.pause_seconds)
                yield None
                continue
            except SearcherStopped as error:
                self.ledger.log("stopped", reason=str(error))
                raise
            thinking = self._thinking(self.now() - began)
            if not proposals:
                self.ledger.log(ASKED_LAST, charges=thinking)
                self._settle(None)
                return f"{self.searcher.name} has nothing more to propose"
            trials = self._batch(proposals, thinking)
            for trial in trials:
                if not trial.interrupted:
                    self.searcher.tell(trial)
            yield trials[-1]
        return reason

    def _room(self, history: Sequence[Trial]) -> int:
        """How many trials may begin now: one a worker, and no more than the budget has left."""
        return min(len(self.runners) or 1, self.ledger.spec.budget.trials - tried(history))

    def _thinking(self, seconds: float) -> Charges:
        """What asking cost: a sampler's time, or the calls to a model, waiting for an outage left out."""
        return Charges(seconds) if self.desk is None else self.desk.pending

    def _settle(self, number: int | None, charged: Charges | None = None) -> None:
        if self.desk is not None:
            self.desk.settle(number, charged)

    def _settle_rest(self) -> None:
        """What asking cost without a trial coming of it is the study's."""
        if self.desk is not None and self.desk.pending != Charges():
            self.ledger.log(ASKED_IN_VAIN, charges=self.desk.pending)
            self._settle(None)

    def _batch(self, proposals: Sequence[Proposal], thinking: Charges) -> list[Trial]:
        """Proposals from the ledger's first line about them to its last; all are in it before one runs."""
        recipe = self.ledger.best()
        assert recipe is not None
        self.ledger.heartbeat(self.owner)
        shares = thinking.shares(len(proposals))
        entered = [
            self._enter(proposal, recipe, share) for proposal, share in zip(proposals, shares, strict=True)
        ]
        finished = [self.finish(item.trial, recipe) for item in entered if item.trial.outcome]
        finished += run_side_by_side(self, [item for item in entered if not item.trial.outcome], recipe)
        return sorted(finished, key=lambda trial: trial.number)

    def _enter(self, proposal: Proposal, recipe: Trial, thinking: Charges) -> Candidate:
        """The proposal in the ledger, checked; with its outcome where nothing will run."""
        began = self.now()
        checked = self.checked(proposal, recipe)
        overrides = checked.overrides if isinstance(checked, Validated) else dict(proposal.overrides)
        number = self._start(proposal, overrides)
        fingerprint = (
            checked.fingerprint(self.workspace.code_hash()) if isinstance(checked, Validated) else ""
        )
        record = self._record(number, thinking, Charges(self.now() - began), fingerprint)
        self._settle(number, thinking)
        trial = Trial(number, proposal, overrides, commit=self.workspace.head())
        self.observers.trial_started(trial)
        if isinstance(checked, Validated):
            self._keep_files(trial)
            return Candidate(trial, checked.arguments, fingerprint, record)
        verdict = Verdict("reverted", reason=checked.reason)
        trial = replace(trial, outcome=checked, verdict=verdict, charges=record.charges)
        return Candidate(trial, (), "", record)

    def waits(self, number: int) -> None:
        """The trial has run; from now on, only others of its batch use time."""
        with self._lock:
            self.ledger.note(number, waits=True)

    def checked(self, proposal: Proposal, recipe: Trial, number: int | None = None) -> Validated | Outcome:
        """The configuration that would run, or why nothing will: rejected, or a duplicate of another trial.

        The workspace is left with the proposal's edits.
        """
        base = recipe.overrides if proposal.base == "recipe" else {}
        try:
            if proposal.invalid:
                raise Rejected(proposal.invalid)
            checked = validate(self.workspace.task, base, proposal.overrides, self.space)
            self.workspace.revert()
            self.workspace.apply(proposal.edits)
        except (Rejected, EditError) as error:
            return Outcome("rejected", reason=str(error))
        same = same_experiment(self.ledger, checked.fingerprint(self.workspace.code_hash()), number)
        if same is not None:
            return Outcome("duplicate", reason=f"the same configuration and code as trial {same}")
        return checked

    def finish(self, trial: Trial, recipe: Trial) -> Trial:
        """Commits what is kept, removes what is not, and ends the trial in the ledger."""
        assert trial.verdict is not None
        self._require_held()
        with self._lock:
            return self._end(trial, recipe)

    def _end(self, trial: Trial, recipe: Trial) -> Trial:
        if trial.verdict and trial.verdict.decision == "kept":
            # the verdict is noted first: a kill between commit and finish must not lose it
            self.ledger.note(trial.number, decided=rows.packed(replace(trial, commit="")))
            self._commit(trial, recipe)
            trial = replace(trial, commit=self.workspace.head())
        else:
            self.workspace.revert()
        self.ledger.finish(trial)
        self.observers.trial_finished(trial, self.ledger)
        return trial

    def _commit(self, trial: Trial, recipe: Trial) -> None:
        self.workspace.revert()
        self.workspace.apply(trial.proposal.edits)
        message = commit_message(self.ledger.name, trial, recipe, self.space.defaults)
        self.workspace.commit(message, trial.overrides)

    def _reference(self) -> Trial:
        """Trial 0: what every study starts from, on several training seeds, which also shows the noise."""
        proposal = Proposal(base="reference", route="reference", searcher=self.searcher.name)
        checked = validate(self.workspace.task, {}, {})
        number = self._start(proposal, {})
        fingerprint = checked.fingerprint(self.workspace.code_hash())
        record = self._record(number, Charges(), Charges(), fingerprint)
        trial = Trial(number, proposal, {}, commit=self.workspace.head())
        self.observers.trial_started(trial)
        folder = self.folder / f"{number:04d}"
        outcome = self.experiment.reference(Bench(self.workspace), checked.arguments, folder, record)
        ran = outcome.status == "completed"
        verdict = Verdict("reference" if ran else "reverted", reason=outcome.reason)
        trial = replace(trial, outcome=outcome, verdict=verdict, charges=record.charges)
        self.finish(trial, trial)
        if not ran and not self.stop.is_set():
            raise StudyFailed(
                f"the reference did not run: {outcome.status}: {outcome.reason}\n{outcome.log_tail[-2000:]}"
            )
        return trial

    def recipe(self, recipe: Trial, known: Sequence[Measurement]) -> Recipe:
        """The recipe with everything that was ever measured of it, re-runs of later trials included."""
        base = self.workspace.task.base
        return Recipe(recipe.number, arguments_of(base, recipe.overrides, quoted), list(known))

    def _record(self, number: int, asked: Charges, entered: Charges, fingerprint: str) -> Record:
        def note(charges: Charges, measurement: Measurement | None, phase: str) -> None:
            again = [{"number": of, "measurements": found} for of, found in record.of_recipe.items()]
            more: dict[str, Any] = {"of_recipe": again} if again else {}
            with self._lock:
                self.ledger.note(number, charges=charges, measurement=measurement, phase=phase, **more)
                self.observers.progress(number, phase)

        record = Record(note, asked + entered)
        known: dict[str, Any] = {"fingerprint": fingerprint} if fingerprint else {}
        self.ledger.note(number, charges=record.charges, asked=asked, phase="started", **known)
        return record

    def _start(self, proposal: Proposal, overrides: Mapping[str, Value]) -> int:
        """The trial's first line in the ledger, its params as Optuna's dashboard shows them."""
        params = proposal.params or {**self.space.defaults, **overrides}
        return self.ledger.start(
            proposal,
            overrides=overrides,
            params=params,
            distributions=self.space.distributions,
            owner=self.owner,
        )

    def _keep_files(self, trial: Trial) -> None:
        """runs/<study>/<trial>/: the edits as a diff, for people and the report."""
        folder = self.folder / f"{trial.number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        if trial.proposal.edits:
            (folder / "edits.diff").write_text(self.workspace.diff(), encoding="utf-8")
