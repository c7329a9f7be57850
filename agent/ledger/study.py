"""One study's ledger: proposals, progress and outcomes enter as they happen; the whole history leaves.

Each write is one transaction, and the order of writes makes any moment a good one to be killed:

- `start` writes a trial with its proposal, parameters and owner at once; before it, nothing has run.
- `note` writes progress, the charges so far among it, so that a killed trial is charged for what it used.
- `finish` writes the result, then the end of the trial. A trial killed in between has its result, and is
  ended by the next `unfinished()`.

A trial is `COMPLETE` with its score in Optuna's terms only if it was completed; every other outcome is `FAIL`
without a value. Samplers learn of those as infeasible points from the records (`agent.searchers.samplers`).
"""

from __future__ import annotations

import gc
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from agent.codec import from_json, plain, to_json
from agent.distributions import inside
from agent.ledger import rows
from agent.ledger.holder import BEATS, LEASE_SECONDS, Keeper, Lease, Leases
from agent.ledger.owner import Owner
from agent.ledger.spec import CHECKOUT, StudySpec
from agent.ledger.storage import SPEC, LedgerError
from agent.records import (
    Charges,
    Measurement,
    Outcome,
    Proposal,
    Trial,
    Value,
    Verdict,
    current_recipe,
    lineage,
)

EVENT = "event:"
MOST_CONFLICTS = 4  # that a refusal lists: another searcher differs in all its settings
# events that evaluate what a search has found
AFTERWARDS = ("confirmed", "test_read", "ablated")


@contextmanager
def uncollected() -> Iterator[None]:
    """Many small records and no rubbish: looking for rubbish among them takes half of the time that reading takes."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class StudyLedger:
    """What one study wrote. Made by `Ledger.study`; `spec` says what the study is, `name` is its name."""

    def __init__(self, study: optuna.Study, clock: Callable[[], float], expected: StudySpec | None) -> None:
        self.study = study
        self.name: str = study.study_name
        self.spec: StudySpec = from_json(StudySpec, study.user_attrs[SPEC])
        self._clock = clock
        # ended trials never change, so each is decoded once
        self._ended: dict[int, Trial] = {}
        # RDBStorage may lie behind Optuna's cache
        storage: Any = getattr(study._storage, "_backend", study._storage)
        self._leases = Leases(storage.engine)
        # holders whose place we took, and when they were last seen, by their own clocks
        self._died: dict[str, float] = {}
        if expected is not None:
            self._require_same(expected)

    def start(
        self,
        proposal: Proposal,
        *,
        overrides: Mapping[str, Value] | None = None,
        params: Mapping[str, Any] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
        owner: str,
    ) -> int:
        """Write a trial that is about to run; returns its number, counted from 0.

        `overrides` are the complete ones (base plus proposal). Optuna's dashboard and importances show those
        `params` that lie in their `distributions`; what lies outside is in the proposal and overrides alone.
        """
        shown = inside(params or {}, distributions or {})
        try:
            template = create_trial(
                state=TrialState.RUNNING,
                params={key: (params or {})[key] for key in shown},
                distributions=shown,
                user_attrs=rows.opening(proposal, overrides or {}, str(Owner.parse(owner))),
            )
            trial_id = self._storage.create_new_trial(self.study._study_id, template_trial=template)
        except ValueError as error:
            raise LedgerError(f"study {self.name!r}: the trial cannot be written: {error}") from error
        return self._storage.get_trial(trial_id).number

    def note(
        self,
        number: int,
        *,
        charges: Charges | None = None,
        measurement: Measurement | None = None,
        **attributes: Any,
    ) -> None:
        """Write progress of a running trial in one transaction: phase="…", charges so far, a measurement.

        `charges` is the total so far and may not fall, so that nothing is charged twice; a measurement
        replaces an earlier one of the same seed and fold. Further attributes are any JSON.
        """
        try:
            progress = rows.merged(self.progress(number), charges, measurement, self._where(number))
        except ValueError as error:
            raise LedgerError(str(error)) from error
        self._write(number, "progress", progress | to_json(attributes) | {"at": time.monotonic()})

    def progress(self, number: int) -> Mapping[str, Any]:
        """What was noted for a trial: phase, charges, measurements as JSON. Empty if nothing was."""
        return self._frozen(number).user_attrs.get("progress", {})

    def finish(self, trial: Trial) -> None:
        """End a trial for good: COMPLETE with its score if it was completed, FAIL otherwise.

        Raises LedgerError if it has ended already, has no outcome, was started with another proposal, lacks
        a finite score though completed, or is charged less than was noted.
        """
        where, attributes = self._where(trial.number), self._frozen(trial.number).user_attrs
        if trial.outcome is None:
            raise LedgerError(f"{where} has no outcome; note() writes progress, finish() needs the end")
        if attributes["proposal"] != to_json(trial.proposal):
            raise LedgerError(f"{where} was started with another proposal; trial numbers got mixed up")
        score = trial.outcome.score
        if trial.outcome.status == "completed" and not (score is not None and math.isfinite(score)):
            raise LedgerError(f"{where} is completed with score {score}; only a finite score completes")
        try:
            rows.require_monotone(rows.charged(attributes.get("progress", {})), trial.charges, where)
        except ValueError as error:
            raise LedgerError(str(error)) from error
        for key, value in rows.closing(trial).items():
            self._write(trial.number, key, value)
        self._end(trial)

    def trials(self) -> list[Trial]:
        """Every trial as a full record, in order of number; those that still run have no outcome."""
        with uncollected():
            return [self._record(frozen) for frozen in self.study.get_trials(deepcopy=False)]

    def notes(self) -> list[tuple[Trial, Mapping[str, Any]]]:
        """Every trial with what was noted of it (see `progress`), in one read."""
        with uncollected():
            frozen = self.study.get_trials(deepcopy=False)
            return [(self._record(each), each.user_attrs.get("progress", {})) for each in frozen]

    def unfinished(self) -> list[Trial]:
        """Trials that were started and never ended, with what was noted of their charges.

        For the study's holder only: it also ends trials whose process died right after writing their result.
        """
        with uncollected():
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for frozen in running:
            if "result" in frozen.user_attrs:
                self._end(rows.record(frozen))
        return [rows.record(frozen) for frozen in running if "result" not in frozen.user_attrs]

    def owner(self, number: int) -> Owner:
        """The process that started a trial."""
        return Owner.parse(self._frozen(number).user_attrs["owner"])

    def fail_stale(self, number: int, reason: str) -> Trial:
        """End an unfinished trial as `interrupted`; returns its record.

        It is charged for what was noted, and for the time from then until its loop was last seen alive.
        """
        progress = self.progress(number)
        measurements = rows.measured(progress)
        outcome = Outcome("interrupted", measurements=measurements, reason=reason)
        verdict = Verdict("reverted", reason=reason)
        trial = rows.record(self._frozen(number))
        used = Charges(rows.unnoted(progress, self._died.get(str(self.owner(number)))))
        trial = replace(trial, outcome=outcome, verdict=verdict, charges=trial.charges + used)
        self.finish(trial)
        return trial

    def best(self) -> Trial | None:
        """The trial whose recipe is the current one; None before the reference has ended."""
        return current_recipe(self.trials())

    def reference(self) -> Trial | None:
        """The trial that the study starts from, once it has been measured."""
        found = (t for t in self.trials() if t.verdict and t.verdict.decision == "reference")
        return next(found, None)

    def history(self) -> list[Trial]:
        """What a searcher may know: every trial but those that the machine, not they, brought to an end."""
        return [trial for trial in self.trials() if not trial.interrupted]

    def lineage(self) -> list[Trial]:
        """The kept trials that lead to the recipe, the reference first: each was laid over the one before."""
        return lineage(self.best(), self.trials())

    def spent(self) -> Charges:
        """Everything the search was charged so far: trials, unfinished ones included, and events (planning).

        What came after the search (AFTERWARDS) has its charges in its events and uses up no budget.
        """
        total = sum((trial.charges for trial in self.trials()), Charges())
        search = (event for event in self.events() if event["event"] not in AFTERWARDS)
        return sum((from_json(Charges, event.get("charges", {})) for event in search), total)

    def log(self, event: str, **data: Any) -> None:
        """Append an event: a test-set read, the end, a resume, planning. `charges=Charges(…)` are spent."""
        count = sum(key.startswith(EVENT) for key in self._attributes())
        # the random end keeps apart two processes that append at the same time
        key = f"{EVENT}{count:08d}:{uuid.uuid4().hex[:12]}"
        entry = to_json({"event": event, "time": self._clock(), **data})
        self._storage.set_study_user_attr(self.study._study_id, key, entry)

    def events(self) -> list[dict[str, Any]]:
        """All events in the order they were appended: {"event", "time" (Unix seconds), …}."""
        return [plain(value) for key, value in sorted(self._attributes().items()) if key.startswith(EVENT)]

    def claim(self, owner: str, lease_seconds: float = LEASE_SECONDS) -> None:
        """Take the study, or raise LedgerError naming its living holder; see `agent.ledger.holder`."""
        before = self._leases.claim(self.study._study_id, self.name, str(Owner.parse(owner)), lease_seconds)
        if before is not None:
            self._died[before.owner] = before.at

    def heartbeat(self, owner: str, lease_seconds: float = LEASE_SECONDS) -> None:
        """Hold the study for another lease. Raises LedgerError if another loop has taken it."""
        self._leases.renew(self.study._study_id, self.name, owner, lease_seconds)

    def release(self, owner: str) -> None:
        """Give the study up, if `owner` holds it."""
        self._leases.release(self.study._study_id, owner)

    def holder(self) -> Lease | None:
        """Who holds the study; None if nobody does."""
        return self._leases.of(self.study._study_id)

    @contextmanager
    def held(self, owner: str, lost: Callable[[str], None] = lambda why: None) -> Iterator[None]:
        """The study is ours in the `with` block; `lost` hears from another thread if it no longer is.

        Raises LedgerError naming a living holder.
        """
        self.claim(owner)
        try:
            with Keeper(lambda: self.heartbeat(owner), lost, LEASE_SECONDS / BEATS):
                yield
        finally:
            self.release(owner)

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self.study._storage

    def _where(self, number: int) -> str:
        return f"study {self.name!r}, trial {number}"

    def _attributes(self) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(self.study._study_id)

    def _trial_id(self, number: int) -> int:
        try:
            return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        except KeyError:
            raise LedgerError(f"{self._where(number)} is not in the ledger") from None

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._trial_id(number))

    def _write(self, number: int, key: str, value: Any) -> None:
        try:
            self._storage.set_trial_user_attr(self._trial_id(number), key, value)
        except UpdateFinishedTrialError:
            raise LedgerError(f"{self._where(number)} has ended and stays as it is") from None

    def _end(self, trial: Trial) -> None:
        score = trial.outcome.score if trial.outcome and trial.outcome.status == "completed" else None
        state = TrialState.FAIL if score is None else TrialState.COMPLETE
        values = None if score is None else [score]
        self._storage.set_trial_state_values(self._trial_id(trial.number), state, values)

    def _record(self, frozen: FrozenTrial) -> Trial:
        if frozen.number in self._ended:
            return self._ended[frozen.number]
        trial = rows.record(frozen)
        if frozen.state.is_finished():
            self._ended[frozen.number] = trial
        return trial

    def _require_same(self, expected: StudySpec) -> None:
        if conflicts := self.spec.conflicts(expected):
            shown = [f"{name} is {a!r}, asked for {b!r}" for name, (a, b) in conflicts.items()]
            more = f"; and {len(shown) - MOST_CONFLICTS} more" if len(shown) > MOST_CONFLICTS else ""
            then, now = (spec.versions.get(CHECKOUT) for spec in (self.spec, expected))
            code = f" (by the code of commit {then}; this is {now})" if then and then != now else ""
            raise LedgerError(
                f"study {self.name!r} was begun otherwise{code}: {'; '.join(shown[:MOST_CONFLICTS])}{more}. "
                "Ask for it as it is, or begin another one with study=NAME"
            )
        changes = [event["now"] for event in self.events() if event["event"] == "versions changed"]
        before = changes[-1] if changes else dict(self.spec.versions)
        if before != dict(expected.versions):
            self.log("versions changed", before=before, now=expected.versions)
