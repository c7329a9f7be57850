"""A study goes in as it happens, W&B runs come out: one a trial and one for the study, written by the host.

Every run is written offline, whole, below runs/<study>/wandb/, from what the ledger holds: nothing hangs, a
killed study leaves finished runs, and a resumed one adds those that are missing and writes the study's curve
anew under its old id. With a key, a process beside the study uploads them; `make wandb-sync` does it later.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.ledger import StudyLedger
from agent.progress import curve
from agent.records import Trial
from agent.task import Task
from agent.validation import Rejected, validate
from agent.wandb_runs import RunFolder
from agent.wandb_upload import Upload, complete, uploaded, wandb_mode

TOKEN = "wandb"  # the study attribute that W&B's run ids begin with


class WandbTracker:
    """An observer that writes W&B runs to `folder` (runs/<study>).

    config_of: what a trial ran with, by dotted key (`composed_config`). mode: "online", "offline" or "disabled".
    upload_seconds: how long one upload may take. report: where a problem is said. A problem with W&B ends
    the uploads, or the tracking, but not the study: it is reported once, and is an event in the ledger.
    """

    def __init__(
        self,
        project: str,
        folder: Path,
        config_of: Callable[[Trial], Mapping[str, Any]],
        mode: str | None = None,
        upload_seconds: float = 120.0,
        report: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self.project, self.folder, self.config_of = project, folder, config_of
        self.mode, self.upload_seconds, self.report = mode or wandb_mode(), upload_seconds, report
        self.runs: RunFolder | None = None
        self.upload: Upload | None = None
        self.drawn = 0  # trials in the study's curve as it is written

    def started(self, ledger: StudyLedger) -> None:
        if self.mode == "disabled":
            return
        token = ledger.study.user_attrs.get(TOKEN) or secrets.token_hex(4)
        ledger.study.set_user_attr(TOKEN, token)
        self.runs = RunFolder(self.folder, self.project, ledger.name, ledger.spec, token)
        self._guarded(ledger, lambda runs: self._write(ledger, runs))

    def trial_started(self, trial: Trial) -> None:
        """A run in W&B begins when its trial has ended."""

    def progress(self, number: int, phase: str) -> None:
        """W&B is told of trials, not of their parts."""

    def trial_finished(self, trial: Trial, ledger: StudyLedger) -> None:
        self._guarded(ledger, lambda runs: self._write(ledger, runs))

    def ended(self, ledger: StudyLedger) -> None:
        self._guarded(ledger, lambda runs: self._finish(ledger, runs))

    def _write(self, ledger: StudyLedger, runs: RunFolder) -> None:
        """What is not there yet; the study's curve waits while an upload reads it."""
        points = curve(ledger)
        for point in points:
            if not runs.has(point.trial):
                runs.write_trial(point.trial, self.config_of(point.trial))
        if self._uploading(ledger):
            return
        if len(points) > self.drawn:
            runs.write_study(points)
            self.drawn = len(points)
        if self.mode == "online" and (waiting := self._waiting()):
            self.upload = Upload.start(waiting, self.upload_seconds)

    def _finish(self, ledger: StudyLedger, runs: RunFolder) -> None:
        """Waits for the upload under way, and for one more with what that did not hold."""
        try:
            while self.upload is not None:
                self.upload.wait()
                self._write(ledger, runs)
        finally:
            if self.upload is not None:
                self.upload.kill()

    def _uploading(self, ledger: StudyLedger) -> bool:
        """Whether an upload is under way. After one that failed, the rest of the study is written offline."""
        if self.upload is None or self.upload.running():
            return self.upload is not None
        ended, self.upload = self.upload, None
        if problem := ended.problem():
            self.mode = "offline"
            self._tell(ledger, f"{problem}; upload later with: make wandb-sync study={ledger.name}")
        return False

    def _waiting(self) -> list[Path]:
        return [run for run in complete(self.folder) if not uploaded(run)]

    def _guarded(self, ledger: StudyLedger, action: Callable[[RunFolder], None]) -> None:
        """W&B's errors are of many kinds, its helper process may be gone, the disk full: none ends a study."""
        if self.runs is None:
            return
        try:
            action(self.runs)
        except Exception as error:
            if self.upload is not None:
                self.upload.kill()
            self.runs, self.upload = None, None
            self._tell(ledger, f"off until the study is resumed: {type(error).__name__}: {error}")

    def _tell(self, ledger: StudyLedger, problem: str) -> None:
        self.report(f"W&B: {problem}")
        ledger.log("wandb failed", reason=problem)


def composed_config(task: Task) -> Callable[[Trial], Mapping[str, Any]]:
    """What a trial of `task` ran with: the composed config's leaves, without what the runner sets for each run.

    For a trial that never ran because its overrides do not compose: what was proposed, under `proposed`.
    """

    def of(trial: Trial) -> Mapping[str, Any]:
        if trial.outcome is not None and trial.outcome.status != "rejected":
            try:
                config = validate(task, {}, trial.overrides).config
            except Rejected:
                pass
            else:
                return {key: value for key, value in config.items() if not _set_by_runner(task, key)}
        return {f"proposed.{key}": value for key, value in trial.proposal.overrides.items()}

    return of


def _set_by_runner(task: Task, key: str) -> bool:
    return any(key == own or key.startswith(own + ".") for own in task.run_keys)
