"""A study's ledger goes in, read once; what was ever measured of each configuration comes out."""

from __future__ import annotations

from agent.ledger import StudyLedger
from agent.ledger.rows import reruns
from agent.records import Measurement


def measured(ledger: StudyLedger) -> dict[int, list[Measurement]]:
    """Trial -> its measurements, and those of its recipe that later trials' re-runs paid for.

    Interrupted trials have no entry of their own; what they measured of a recipe counts.
    """
    notes = ledger.notes()
    found = {
        trial.number: list(trial.outcome.measurements)
        for trial, _ in notes
        if trial.outcome and trial.outcome.measurements and not trial.interrupted
    }
    for _, noted in notes:
        for number, measurements in reruns(noted):
            if number in found:
                found[number] += measurements
    return found


def same_experiment(ledger: StudyLedger, fingerprint: str, but: int | None = None) -> int | None:
    """The earliest trial with this fingerprint, that is of the same configuration and code; not trial `but`."""
    for trial, noted in ledger.notes():
        same = noted.get("fingerprint") == fingerprint and trial.number != but
        if same and not trial.interrupted:
            return trial.number
    return None
