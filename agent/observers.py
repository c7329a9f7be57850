"""What a study tells those who watch it: a table, W&B, a test. Watching never changes a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from agent.ledger import StudyLedger
from agent.records import Trial


class Observer(Protocol):
    """Hears of a study as it goes on. What it raises ends the study, with the ledger in order."""

    def started(self, ledger: StudyLedger) -> None:
        """The study begins or is resumed; `ledger` holds what is there already."""

    def trial_started(self, trial: Trial) -> None:
        """The trial is in the ledger and about to run."""

    def progress(self, number: int, phase: str) -> None:
        """A run of the trial has ended: "seed 0, fold 2 of 3"."""

    def trial_finished(self, trial: Trial, ledger: StudyLedger) -> None:
        """The trial has its outcome, verdict and charges, and is in the ledger."""

    def ended(self, ledger: StudyLedger) -> None:
        """The loop stops: the budget is used, it was interrupted, or something failed."""


@runtime_checkable
class Patient(Protocol):
    """An observer that also hears of pauses."""

    def paused(self, reason: str, seconds: float) -> None:
        """The searcher cannot be reached; it is asked again after so many seconds, which nobody is charged."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self.all = tuple(observers)

    def started(self, ledger: StudyLedger) -> None:
        for observer in self.all:
            observer.started(ledger)

    def trial_started(self, trial: Trial) -> None:
        for observer in self.all:
            observer.trial_started(trial)

    def progress(self, number: int, phase: str) -> None:
        for observer in self.all:
            observer.progress(number, phase)

    def trial_finished(self, trial: Trial, ledger: StudyLedger) -> None:
        for observer in self.all:
            observer.trial_finished(trial, ledger)

    def paused(self, reason: str, seconds: float) -> None:
        for observer in self.all:
            if isinstance(observer, Patient):
                observer.paused(reason, seconds)

    def ended(self, ledger: StudyLedger) -> None:
        for observer in self.all:
            observer.ended(ledger)
