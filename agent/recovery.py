"""What a killed process left of a study goes in; the ledger in order comes out, everything charged."""

from __future__ import annotations

from dataclasses import replace

from agent.ledger import StudyLedger, rows
from agent.workspace import Workspace


def recover(ledger: StudyLedger, workspace: Workspace, owner: str) -> None:
    """Ends every trial under way: kept if its commit is there, interrupted and charged otherwise.

    For the study's holder only.
    """
    unfinished = ledger.unfinished()
    commits = {entry.get("Lab-Trial"): entry["commit"] for entry in workspace.log()} if unfinished else {}
    for trial in unfinished:
        decided = ledger.progress(trial.number).get("decided")
        commit = commits.get(str(trial.number))
        if decided and commit:
            ledger.finish(replace(rows.unpacked(decided), commit=commit))
        else:
            ledger.fail_stale(trial.number, "the study's process ended during this trial")
    if ledger.trials():
        ledger.log("resumed", owner=owner)
