"""The desk of a running study: its ledger, workspace and sandbox go in; what a searcher may know of them comes out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.claims import clean_text
from agent.codec import from_json
from agent.desk import TaskView
from agent.edits import EditError, read_file
from agent.ledger import StudyLedger
from agent.measured import same_experiment
from agent.records import Budget, Charges, Proposal, Trial
from agent.runner import Runner
from agent.searchers.base import SearcherUnavailable
from agent.space import Space
from agent.validation import Rejected, Validated, validate
from agent.workspace import Workspace

# events that say what asking for a trial has cost, and the one that says that it is charged now
TRIED, SETTLED = "code tried out", "calls settled"
# events that charge the study with all that is pending
LAST = ASKED_LAST, ASKED_IN_VAIN = "asked for the last time", "asked without a trial"
CALLS = ("llm call", "llm trouble", "external call", TRIED)
TRY_OUT_SECONDS = 20.0  # for the steps, and as many for the start
LONGEST_FILE = 131_072
LONGEST_TRACEBACK = 4_000


@dataclass
class WorkDesk:
    """Implements agent.desk.Desk on a real study.

    What calls to a model cost is collected in `pending` until the loop has charged it to the trial asked for. It
    is rebuilt from the study's events, so that a kill -9 during a round forgets no dollar; nor does one between a
    trial's first note and the event that says so charge any twice.
    """

    ledger: StudyLedger
    workspace: Workspace
    space: Space
    runner: Runner
    folder: Path
    description: str = ""
    training_seed: int = 0
    pending: Charges = field(default_factory=Charges)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        settled = set()
        for event in self.ledger.events():
            if event["event"] == SETTLED:
                self.pending = from_json(Charges, event.get("left", {}))
                settled.add(event["trial"])
            elif event["event"] in LAST:
                self.pending = Charges()
            elif event["event"] in CALLS:
                self.pending += Charges(seconds=event.get("seconds", 0.0), usd=event["usd"])
        for trial, noted in self.ledger.notes():
            if "asked" in noted and trial.number not in settled:
                self.settle(trial.number, from_json(Charges, noted["asked"]))

    @property
    def study(self) -> str:
        return self.ledger.name

    @property
    def budget(self) -> Budget:
        return self.ledger.spec.budget

    @property
    def task(self) -> TaskView:
        task = self.workspace.task
        return TaskView(
            name=task.name,
            metric=task.metric,
            direction=task.direction,
            editable=tuple(self.workspace.editable_files()),
            readable=tuple(path for path in task.readable if (self.workspace.path / path).is_file()),
            locked=(*task.locked, *task.run_keys),
            description=self.description,
        )

    @property
    def next_trial(self) -> int:
        return len(self.ledger.trials())

    def history(self) -> Sequence[Trial]:
        return self.ledger.history()

    def recipe(self) -> Trial:
        best = self.ledger.best()
        assert best is not None  # nobody is asked before the reference has run
        return best

    def spent(self) -> Charges:
        return self.ledger.spent() + self.pending

    def read_file(self, path: str) -> str:
        view = self.task
        if path not in (*view.editable, *view.readable):
            raise ValueError(
                f"{path} is neither editable nor readable; there are: {', '.join(view.editable)}"
            )
        self.workspace.revert()
        return read_file(self.workspace.path, path, LONGEST_FILE)

    def check(self, proposal: Proposal, beside: Sequence[Proposal] = ()) -> str | None:
        checked = self._applied(proposal)
        if isinstance(checked, str):
            return checked
        fingerprint = self._fingerprint(checked)
        same = same_experiment(self.ledger, fingerprint)
        if same is not None:
            return f"the same configuration and code as trial {same}"
        for other in map(self._applied, beside):
            if isinstance(other, Validated) and self._fingerprint(other) == fingerprint:
                return "the same configuration and code as another proposal of this round"
        return None

    def try_out(self, proposal: Proposal) -> str | None:
        checked = self._applied(proposal)
        if isinstance(checked, str):
            return checked
        # one fold, a few steps, the same sandbox; what the embeddings are worth does not matter here
        folds = len(self.runner.task.folds)
        budget = Budget(1, folds * TRY_OUT_SECONDS, wall_factor=1.0, setup_seconds=TRY_OUT_SECONDS)
        arguments = [*checked.arguments, *self.workspace.task.try_out]
        try:
            run = replace(self.runner, budget=budget).run(
                self.workspace.path,
                arguments,
                seed=self.training_seed,
                fold=self.runner.task.folds[0],
                folder=self.folder / "try_out",
                stop=self.stop,
            )
        finally:
            self.workspace.revert()
        self.log(TRIED, seconds=run.seconds, usd=0.0, status=run.status)
        self.charge(0.0, run.seconds)
        if run.status == "interrupted":
            raise SearcherUnavailable(run.reason)
        if run.status == "completed":
            return None
        return clean_text(f"{run.status}: {run.reason}\n{run.log_tail}")[-LONGEST_TRACEBACK:]

    def log(self, event: str, **data: Any) -> None:
        self.ledger.log(event, **data)

    def charge(self, usd: float, seconds: float) -> None:
        self.pending += Charges(seconds=seconds, usd=usd)

    def settle(self, number: int | None, charged: Charges | None = None) -> None:
        """`pending` is in the ledger now, on trial `number`, or on the study where no trial came of it.

        `charged`: only so much of it, its share among trials that were proposed together.
        """
        if self.pending != Charges():
            left = self.pending - (charged or self.pending)
            # shares add up to the whole; subtracted one by one they leave what rounding leaves
            self.pending = left if max(left.seconds, left.usd) > 1e-9 else Charges()
            self.ledger.log(SETTLED, trial=number, left=self.pending)

    def trial_folder(self, number: int) -> Path:
        folder = self.folder / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _fingerprint(self, applied: Validated) -> str:
        fingerprint = applied.fingerprint(self.workspace.code_hash())
        self.workspace.revert()
        return fingerprint

    def _applied(self, proposal: Proposal) -> Validated | str:
        """The proposal's edits in the workspace and its configuration, or the reason of a refusal."""
        base = self.recipe().overrides if proposal.base == "recipe" else {}
        try:
            checked = validate(self.workspace.task, base, proposal.overrides, self.space)
            self.workspace.revert()
            self.workspace.apply(proposal.edits)
        except (Rejected, EditError) as error:
            return str(error)
        return checked
