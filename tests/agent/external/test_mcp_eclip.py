"""A small study on the embedded data set, in the real sandbox, by the official client: settings and code."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio

from agent.git import Git
from tests.agent.external.place import LAB, PROGRAM, Place, caller, proposes
from tests.agent.study import accounts

TASK = """
defaults: [eclip, _self_]
base:
  data.prints: 60
  data.test_prints: 12
  data.workers: 2
  data.root: {folder}/prints
  data.pack_dir: {folder}/packs
  trainer.max_steps: 100
  trainer.batch_size: 16
folds: [0]
"""
WORDS = (
    "task=small budget=smoke budget.trials=1 budget.seconds=2 acceptance=greedy vault={folder}/vault tracker.name=none "
    "executor.threads=2"
)
SCHEDULES = "src/eclip/schedules.py"


def test_a_study_of_the_embedded_data(tmp_path: Path) -> None:
    place = eclip_place(tmp_path)
    anyio.run(_study, place)
    ledger = place.ledger("prints")
    accounts(ledger)
    reference, tried = ledger.trials()
    for trial in (reference, tried):
        assert trial.outcome is not None
        assert trial.outcome.status == "completed", trial.outcome.reason
        assert trial.outcome.measurements[0].metrics["mean_rank"] > 0
    assert tried.overrides["model.logit_scale.max"] == 100.0
    assert tried.proposal.edits[0].path == SCHEDULES
    assert ledger.spec.sandbox == "bubblewrap"
    assert "An edit of the researcher" in (place.root / "runs/prints/0001/edits.diff").read_text()


async def _study(place: Place) -> None:
    async with caller(place.stdio()) as call:
        await call.text("start_study", study="prints")
        program = await call.text("program")
        assert "model.logit_scale.max: number in [1, 200]" in program
        assert "src/eclip/losses.py" in program
        source = await call.text("read_file", path=SCHEDULES)
        refused = await call.refused("read_file", path="src/eclip/data/synthetic/scene.py")
        assert "neither editable nor readable" in refused
        locked = await call.refused("check_proposal", **proposes({"data.prints": 7000}))
        assert "data.prints is locked" in locked
        first_line = next(line for line in source.splitlines() if line.startswith('"""'))
        said = first_line.replace('"""', '"""An edit of the researcher. ', 1)
        edit = {"path": SCHEDULES, "old": first_line, "new": said}
        given = proposes({"model.logit_scale.max": 100}, edits=[edit])
        assert "would accept" in await call.text("check_proposal", **given)
        assert "trial 1 ended: completed" in await call.text("propose_trial", **given)
        assert "prints" in await call.text("report")


def eclip_place(folder: Path) -> Place:
    root, groups = folder / "checkout", folder / "groups"
    for part in ("configs", "src"):
        shutil.copytree(LAB / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(LAB / "train.py", root)
    (root / ".gitignore").write_text("runs/\n__pycache__/\n")
    git = Git(root / ".git", root, root / ".git")
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "-m", "The project")
    (groups / "task").mkdir(parents=True)
    (groups / "task" / "small.yaml").write_text(TASK.format(folder=folder))
    (folder / "program.md").write_text(PROGRAM)
    own = [f"hydra.searchpath=[file://{groups}]", f"searcher.program={folder / 'program.md'}"]
    return Place(root, (*own, *WORDS.format(folder=folder).split()))
