"""A study: searcher, ledger and experiment go in; ask, run, judge, decide, tell, until the budget is used.

Every trial is in the ledger before its first run. After kill -9 at any moment `run` goes on: a trial that
was under way is failed as interrupted and charged for what it used; its proposal is asked for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.bench import Bench
from agent.codec import from_json, to_json
from agent.edits import EditError
from agent.experiment import Experiment, Recipe, Record, arguments_of
from agent.ledger import StudyLedger
from agent.noise import Noise
from agent.observers import Observers
from agent.records import Charges, Measurement, Outcome, Proposal, Trial, Value, Verdict
from agent.research_log import commit_message
from agent.searchers.base import Searcher, SearcherUnavailable
from agent.space import Space
from agent.validation import Rejected, Validated, quoted, validate
from agent.workdesk import WorkDesk
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
        self.ledger.claim(self.owner)
        try:
            self._recover()
            self.observers.started(self.ledger)
            if self.ledger.best() is None:
                yield self._reference()
            reason = yield from self._search()
            self.ledger.log("stopped" if self.stop.is_set() else "ended", reason=reason)
            return reason
        finally:
            self._settle_rest()
            self.observers.ended(self.ledger)
            self.ledger.release(self.owner)

    def history(self) -> list[Trial]:
        """What a searcher may know: every trial but those that the machine, not they, brought to an end."""
        return [trial for trial in self.ledger.trials() if not _interrupted(trial)]

    def _search(self) -> Generator[Trial | None, None, str]:
        while not (reason := self.over()):
            began = self.now()
            try:
                proposal = self.searcher.ask(self.history())
            except SearcherUnavailable as error:
                if not self.stop.is_set():
                    self.ledger.log("paused", reason=str(error), seconds=self.pause_seconds)
                    self.stop.wait(self.pause_seconds)
                yield None
                continue
            thinking = self._thinking(self.now() - began)
            if proposal is None:
                self.ledger.log("asked for the last time", charges=thinking)
                self._settle(None)
                return f"{self.searcher.name} has nothing more to propose"
            trial = self._trial(proposal, thinking)
            if not _interrupted(trial):
                self.searcher.tell(trial)
            yield trial
        return reason

    def _thinking(self, seconds: float) -> Charges:
        """What asking cost: a sampler's time, or the calls to a model, waiting for an outage left out."""
        return Charges(seconds) if self.desk is None else self.desk.pending

    def _settle(self, number: int | None) -> None:
        if self.desk is not None:
            self.desk.settle(number)

    def _settle_rest(self) -> None:
        """What asking cost without a trial coming of it is the study's."""
        if self.desk is not None and self.desk.pending != Charges():
            self.ledger.log("asked without a trial", charges=self.desk.pending)
            self._settle(None)

    def over(self) -> str:
        """Why no further trial may begin; empty if one may. The reference is not counted as a trial."""
        budget, spent = self.ledger.spec.budget, self.ledger.spent()
        tried = sum(trial.proposal.route != "reference" for trial in self.history())
        if self.stop.is_set():
            return "stopped"
        if tried >= budget.trials:
            return f"all {budget.trials} trials are used"
        if budget.study_seconds is not None and spent.seconds >= budget.study_seconds:
            return f"all {budget.study_seconds:g} seconds are used"
        if budget.usd is not None and spent.usd >= budget.usd:
            return f"all ${budget.usd:g} are used"
        return ""

    def _trial(self, proposal: Proposal, thinking: Charges) -> Trial:
        """One proposal from the ledger's first line about it to its last."""
        recipe = self.ledger.best()
        assert recipe is not None
        began = self.now()
        checked = self._checked(proposal, recipe)
        overrides = checked.overrides if isinstance(checked, Validated) else dict(proposal.overrides)
        number = self._start(proposal, overrides)
        record = self._record(number, thinking + Charges(self.now() - began))
        self._settle(number)
        trial = Trial(number, proposal, overrides, commit=self.workspace.head())
        self.observers.trial_started(trial)
        if isinstance(checked, Validated):
            trial = self._experiment(trial, checked, recipe, record)
        else:
            trial = replace(trial, outcome=checked, verdict=Verdict("reverted", reason=checked.reason))
        return self._finish(replace(trial, charges=record.charges), recipe)

    def _checked(self, proposal: Proposal, recipe: Trial) -> Validated | Outcome:
        """The configuration that would run, or why nothing will: rejected or a duplicate."""
        base = recipe.overrides if proposal.base == "recipe" else {}
        try:
            if proposal.invalid:
                raise Rejected(proposal.invalid)
            checked = validate(self.workspace.task, base, proposal.overrides, self.space)
            self.workspace.revert()
            self.workspace.apply(proposal.edits)
        except (Rejected, EditError) as error:
            return Outcome("rejected", reason=str(error))
        same = self._same(checked.fingerprint(self.workspace.code_hash()))
        if same is not None:
            return Outcome("duplicate", reason=f"the same configuration and code as trial {same}")
        return checked

    def _same(self, fingerprint: str) -> int | None:
        """The earlier trial that was this very experiment."""
        for trial in self.history():
            if self.ledger.progress(trial.number).get("fingerprint") == fingerprint:
                return trial.number
        return None

    def _experiment(self, trial: Trial, checked: Validated, recipe: Trial, record: Record) -> Trial:
        fingerprint = checked.fingerprint(self.workspace.code_hash())
        self.ledger.note(trial.number, fingerprint=fingerprint)
        self._keep_files(trial)
        outcome, verdict = self.experiment.trial(
            Bench(self.workspace, trial.proposal.edits),
            checked.arguments,
            self._recipe(recipe),
            self._noise(),
            self.folder / f"{trial.number:04d}",
            record,
        )
        return replace(trial, outcome=outcome, verdict=verdict)

    def _finish(self, trial: Trial, recipe: Trial) -> Trial:
        """Commits what is kept, removes what is not, and ends the trial in the ledger."""
        assert trial.verdict is not None
        if trial.verdict.decision == "kept":
            # the verdict is noted first: a kill between commit and finish must not lose it
            self.ledger.note(trial.number, decided=to_json(replace(trial, commit="")))
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
        self.ledger.note(number, fingerprint=checked.fingerprint(self.workspace.code_hash()))
        record = self._record(number, Charges())
        trial = Trial(number, proposal, {}, commit=self.workspace.head())
        self.observers.trial_started(trial)
        folder = self.folder / f"{number:04d}"
        outcome = self.experiment.reference(Bench(self.workspace), checked.arguments, folder, record)
        ran = outcome.status == "completed"
        verdict = Verdict("reference" if ran else "reverted", reason=outcome.reason)
        trial = replace(trial, outcome=outcome, verdict=verdict, charges=record.charges)
        self._finish(trial, trial)
        if not ran and not self.stop.is_set():
            raise StudyFailed(
                f"the reference did not run: {outcome.status}: {outcome.reason}\n{outcome.log_tail[-2000:]}"
            )
        return trial

    def _recipe(self, recipe: Trial) -> Recipe:
        """The recipe with everything that was ever measured of it, re-runs of later trials included."""
        assert recipe.outcome is not None
        measured = [*recipe.outcome.measurements, *self._again_measured(recipe.number)]
        base = self.workspace.task.base
        return Recipe(recipe.number, arguments_of(base, recipe.overrides, quoted), measured)

    def _again_measured(self, number: int) -> list[Measurement]:
        found: list[Measurement] = []
        for trial in self.ledger.trials():
            again = self.ledger.progress(trial.number).get("of_recipe")
            if again and again["number"] == number:
                found += [from_json(Measurement, item) for item in again["measurements"]]
        return found

    def _noise(self) -> Noise:
        """The noise floor from every configuration that was measured on more than one seed."""
        trials = [trial for trial in self.history() if trial.outcome and trial.outcome.measurements]
        groups = [
            [*trial.outcome.measurements, *self._again_measured(trial.number)]
            for trial in trials
            if trial.outcome
        ]
        return self.experiment.acceptance.noise(groups)

    def _record(self, number: int, charges: Charges) -> Record:
        recipe = self.ledger.best()

        def note(charges: Charges, measurement: Measurement | None, phase: str) -> None:
            more = {}
            if record.of_recipe and recipe is not None:
                more["of_recipe"] = {"number": recipe.number, "measurements": record.of_recipe}
            self.ledger.note(number, charges=charges, measurement=measurement, phase=phase, **more)
            self.ledger.heartbeat(self.owner)
            self.observers.progress(number, phase)

        record = Record(note, charges)
        self.ledger.note(number, charges=charges, phase="started")
        return record

    def _recover(self) -> None:
        """Ends what a killed process left: kept if its commit is there, interrupted and charged otherwise."""
        for trial in self.ledger.unfinished():
            decided = self.ledger.progress(trial.number).get("decided")
            committed = [
                entry["commit"]
                for entry in self.workspace.log()
                if entry.get("Lab-Trial") == str(trial.number)
            ]
            if decided and committed:
                self.ledger.finish(replace(from_json(Trial, decided), commit=committed[0]))
            else:
                self.ledger.fail_stale(trial.number, "the study's process ended during this trial")
        if self.ledger.trials():
            self.ledger.log("resumed", owner=self.owner)

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


def _interrupted(trial: Trial) -> bool:
    return trial.outcome is not None and trial.outcome.status == "interrupted"
