"""A recipe without some of its changes goes in, a branch `lab/<study>-minimal` comes out; nothing else is touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from agent.git import Git, common_dir
from agent.records import Measurement, Trial
from agent.removal import Removal
from agent.retraining import Bench, RetrainingError
from agent.workspace import Workspace


def offer(
    bench: Bench,
    removal: Removal,
    winner: Trial,
    measured: Sequence[Measurement],
    effect: str,
    without: Sequence[str],
) -> tuple[str, str]:
    """(branch, commit), one commit on top of the winner's. Raises RetrainingError where the name is taken."""
    study = f"{bench.ledger.name}-minimal"
    message = _message(bench.ledger.name, winner, measured, effect, without)
    if Workspace.exists(bench.room.task, study):
        git = Git(common_dir(bench.room.task.root))
        if git("log", "-1", "--format=%B", f"refs/heads/lab/{study}").strip() != message.strip():
            raise RetrainingError(f"branch lab/{study} holds another recipe: rename or delete it first")
        return f"lab/{study}", git("rev-parse", f"refs/heads/lab/{study}")
    with Workspace.create(bench.room.task, study, bench.room.runs, base=removal.commit) as workspace:
        workspace.write(removal.files)
        commit = workspace.commit(message, removal.overrides)
    shutil.rmtree(bench.room.runs / study)
    return workspace.branch, commit


def _message(
    study: str, winner: Trial, measured: Sequence[Measurement], effect: str, without: Sequence[str]
) -> str:
    score = sum(item.score for item in measured) / len(measured)
    left_out = "\n".join(f"without  {change}" for change in without)
    return (
        f"trial {winner.number} without what is not shown to help: {score:.6g}\n\n{left_out}\n"
        f"together {effect}\n\nLab-Study: {study}-minimal\nLab-Score: {score:.6g}\n"
    )
