"""A study's ledger goes in; whether its budget allows another trial comes out, with the reason if not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.ledger import StudyLedger
from agent.records import Trial


def over(ledger: StudyLedger, history: Sequence[Trial], stopped: bool) -> str:
    """Why no further trial may begin; empty if one may."""
    budget, spent = ledger.spec.budget, ledger.spent()
    if stopped:
        return "stopped"
    if tried(history) >= budget.trials:
        return f"all {budget.trials} trials are used"
    if budget.study_seconds is not None and spent.seconds >= budget.study_seconds:
        return f"all {budget.study_seconds:g} seconds are used"
    if budget.usd is not None and spent.usd >= budget.usd:
        return f"all ${budget.usd:g} are used"
    return ""


def tried(history: Iterable[Trial]) -> int:
    """How many trials of the budget are used: the reference is not counted."""
    return sum(trial.proposal.route != "reference" for trial in history)
