"""A campaign goes in, a W&B run on disk comes out: a table of all its trials, saved as an artifact.

Written offline, whole, below <folder>/wandb/, as studies write theirs; `make wandb-sync` uploads both alike. The
run's id follows from the studies' names and beginnings, so that a table made anew replaces the earlier one, here and
in W&B, and studies of the same names in another ledger's do not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.codec import to_json
from agent.records import Trial
from agent.report.campaign import Campaign, Study
from agent.report.text import line
from agent.wandb_file import written
from agent.wandb_runs import COMPLETE, END_SECONDS, RunFolderError, quiet

COLUMNS = (
    "study", "searcher", "searcher seed", "trial", "status", "verdict", "score", "share of reference",
    "probability", "delta", "stopped early", "hypothesis", "category", "phase", "route", "overrides", "edits",
    "reason", "seconds", "usd", "runs", "commit",
)  # fmt: skip
MOST_TEXT = 2_000  # characters of a hypothesis or reason


def rows(campaign: Campaign) -> list[list[Any]]:
    """One row for every trial that has ended, under COLUMNS, study by study. What is not known is None."""
    return [_row(study, trial) for study in campaign.studies for trial in study.trials if trial.outcome]


def _row(study: Study, trial: Trial) -> list[Any]:
    proposal, outcome, verdict, spec = trial.proposal, trial.outcome, trial.verdict, study.spec
    assert outcome is not None
    first = study.reference.outcome if study.reference else None
    known = outcome.score is not None and first is not None and first.score
    found = {
        "study": study.name,
        "searcher": spec.searcher,
        "searcher seed": spec.searcher_seed,
        "trial": trial.number,
        "status": outcome.status,
        "verdict": verdict.decision if verdict else None,
        "score": outcome.score,
        "share of reference": outcome.score / first.score if known else None,  # type: ignore[operator, union-attr]
        "probability": verdict.probability if verdict else None,
        "delta": verdict.delta if verdict else None,
        "stopped early": outcome.stopped_early,
        "hypothesis": line(proposal.hypothesis, MOST_TEXT),
        "category": proposal.category,
        "phase": proposal.phase,
        "route": proposal.route,
        "overrides": json.dumps(to_json(proposal.overrides), sort_keys=True),
        "edits": ", ".join(sorted({edit.path for edit in proposal.edits})),
        "reason": line(outcome.reason or (verdict.reason if verdict else ""), MOST_TEXT),
        "seconds": trial.charges.seconds,
        "usd": trial.charges.usd,
        "runs": trial.charges.runs,
        "commit": trial.commit,
    }
    return [found[name] for name in COLUMNS]


def write_table(campaign: Campaign, folder: Path, project: str, name: str) -> Path:
    """Writes the table as artifact `name-trials` of a run of its own; returns the run's folder.

    Raises RunFolderError where W&B wrote somewhere else or nothing.
    """
    import wandb

    names = [study.name for study in campaign.studies]
    begun = [(study.name, min(study.began.values(), default=None)) for study in campaign.studies]
    run_id = f"trials-{hashlib.sha256(json.dumps(begun).encode()).hexdigest()[:12]}"
    for earlier in _runs(folder, run_id):
        shutil.rmtree(earlier)
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    with _staging(folder / "wandb" / "artifacts"):
        run = wandb.init(
            project=project,
            dir=folder,
            id=run_id,
            name=f"{name}: all trials",
            group=name,
            job_type="report",
            config={"kind": "campaign", "task": campaign.task, "studies": names},
            tags=["campaign"],
            mode="offline",
            settings=quiet(),
        )
        try:
            artifact = wandb.Artifact(f"{name}-trials", type="trials", metadata={"studies": names})
            artifact.add(wandb.Table(columns=list(COLUMNS), data=rows(campaign)), "trials")
            run.log_artifact(artifact)
        finally:
            run.finish()
    made = _runs(folder, run_id)
    if len(made) != 1 or not written(made[0] / f"run-{run_id}.wandb", END_SECONDS):
        raise RunFolderError(f"{folder / 'wandb'} cannot be written, so there is no table of trials for W&B")
    (made[0] / COMPLETE).touch()
    return made[0]


def _runs(folder: Path, run_id: str) -> list[Path]:
    return [file.parent for file in (folder / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")]


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Artifacts' files wait beside their run to be uploaded; W&B would leave them in the home directory."""
    before = os.environ.get("WANDB_DATA_DIR")
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def group_links(
    studies: Sequence[str], project: str, entity: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """Name -> address of each study's group of runs in W&B. Empty without an entity, or on a server without https."""
    server = environment.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")
    server = server.replace("https://api.wandb.ai", "https://wandb.ai")
    if not entity or not server.startswith("https://"):
        return {}
    base = f"{server}/{quote(entity, safe='')}/{quote(project, safe='')}"
    return {f"W&B: {name}": f"{base}/groups/{quote(name, safe='')}" for name in studies}
