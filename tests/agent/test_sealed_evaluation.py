"""Sealed evaluation under attack, on the real task: drawn prints, sealed folds, bubblewrap, the host's judge.

Twenty candidates: knowing the pairs scores 0, knowing nothing about 9.5 (of standard deviation 1.3), constant
embeddings 19.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.git import Git
from agent.records import Budget, Edit
from agent.runner import Run, Runner, Sealed
from agent.sandbox import Bubblewrap, Limits, Sandbox, Unsandboxed
from agent.study import run_environment, seal
from agent.task import Task
from agent.workspace import Workspace
from tests.agent.attacks import THIEF, program

ROOT = Path(__file__).resolve().parents[2]
# lower than ignorance gets in a lifetime (5 standard deviations), far above what knowing the pairs would give
KNOWS_NOTHING = 3.0
# the same where every image is declared the exact match of one text: 19 for none right, 0 for all, 18 by luck
GUESSES_NOTHING = 10.0
SMALL = (
    "trainer.max_steps=3 trainer.batch_size=8 model.image.width=32 model.image.depth=1 model.text.width=32 "
    "model.text.depth=1 model.projection.dim=16"
).split()
MIB = 2**20
LIMITS = {
    "memory_bytes": 4096 * MIB, "file_bytes": 64 * MIB, "disk_bytes": 128 * MIB, "inodes": 500,
    "log_bytes": MIB, "log_kill_bytes": 16 * MIB, "shm_bytes": 64 * MIB, "tmp_bytes": 64 * MIB,
}  # fmt: skip
MODULE = "src/eclip/lightning_module.py"


@dataclass
class Lab:
    """A workspace of a copy of this project, and a runner over its sealed folds."""

    folder: Path
    workspace: Workspace
    runner: Runner

    def run(self, fold: int = 0, sandbox: Sandbox | None = None, **environment: str) -> Run:
        """The workspace as it stands; then everything is as it was."""
        task = self.runner.task
        seen = {**self.runner.environment, **environment}
        runner = replace(self.runner, environment=seen, sandbox=sandbox or self.runner.sandbox)
        where = self.folder / "trial"
        ended = runner.run(self.workspace.path, [*task.base, *SMALL], seed=0, fold=fold, folder=where)
        self.workspace.revert()
        return ended

    def replaced(self, body: str, **options: Any) -> Run:
        """A run whose train.py is the attacker's."""
        (self.workspace.path / "train.py").write_text(program(body))
        return self.run(**options)

    def edited(self, *edits: Edit) -> Run:
        """A run with a proposal's edits, as a study would apply them."""
        self.workspace.apply(edits)
        return self.run()

    @property
    def found(self) -> dict[str, Any]:
        """What the last thief says that it found."""
        facts: dict[str, Any] = json.loads((self.folder / "trial" / "run" / "found.json").read_text())
        return facts


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    task = Task.load(ROOT / "configs" / "task" / "eclip.yaml", _repository(folder / "checkout"))
    data = f"data.prints=60 data.test_prints=12 data.workers=2 data.root={folder}/prints"
    task = replace(task, base=(*task.base, *data.split(), f"data.pack_dir={folder}/packs"))
    vault = seal(task, folder / "vault")
    budget = Budget(1, 90.0, wall_factor=1.0, setup_seconds=60.0)
    sandbox = Bubblewrap(warm=True)  # as configs/sandbox has it
    notices: list[str] = []
    with Workspace.create(task, "attacks", folder / "runs") as workspace, closing(sandbox):
        runner = Runner(
            task=task,
            sandbox=sandbox,
            limits=lambda wall: Limits(wall_seconds=wall, **LIMITS),
            budget=budget,
            sealed=vault,
            environment=run_environment(2),
            notice=notices.append,
            keep=("found.json",),
        )
        yield Lab(folder, workspace, runner)
    assert notices == []


def _repository(folder: Path) -> Path:
    """The project's files as they are now, in a git repository of their own."""
    for part in ("agent", "configs", "scripts", "src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", folder)
    git = Git(folder / ".git", folder, folder / ".git")
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "-m", "The project")
    return folder


def score(run: Run) -> float:
    assert run.status == "completed", run
    assert run.measurement is not None
    return run.measurement.score


# --- an honest run


@pytest.fixture(scope="module")
def honest(lab: Lab) -> Run:
    return lab.run()


def test_an_honest_run_is_scored_by_the_judge(honest: Run) -> None:
    assert KNOWS_NOTHING < score(honest) < 19
    assert honest.measurement is not None
    assert honest.measurement.metrics["candidates"] == 20
    assert 0 < honest.measurement.train_seconds < honest.seconds
    assert [point["step"] for point in honest.curve] == [0, 1, 2]


def test_a_run_started_cold_is_scored_alike(lab: Lab) -> None:
    assert KNOWS_NOTHING < score(lab.run(sandbox=Bubblewrap())) < 19


# --- learning the pairs


def test_a_thief_that_looks_everywhere_and_leaves_notes_finds_nothing(lab: Lab) -> None:
    """Keys, other packs, notes of another fold's run, the data set's program, processes, environment, times."""
    everywhere = {"TOP": "/", "NOTES": "everywhere"}
    lab.replaced(THIEF, fold=1, **everywhere)
    assert "/dev/shm" in lab.found["notes"]
    assert "/run_dir" in lab.found["notes"]
    assert score(lab.replaced(THIEF, fold=0, **everywhere)) > GUESSES_NOTHING
    assert lab.found["found"] == []
    assert lab.found["seen"] > 1000
    assert lab.found["told"] == []
    # the times of a sealed folder's files say nothing
    assert lab.found["times"] == [0]


def test_without_a_sandbox_the_same_thief_finds_the_pairs_four_times(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The attack is armed: what stops it is the sandbox."""
    monkeypatch.setenv("TMPDIR", str(lab.folder / "prints"))
    options: dict[str, Any] = {"sandbox": Unsandboxed(), "TOP": str(lab.folder)}
    lab.replaced(THIEF, fold=1, **options)
    assert score(lab.replaced(THIEF, fold=0, **options)) == 0
    (lab.folder / "prints" / "note.npz").unlink()
    assert lab.found["found"] == ["generator", "key", "note", "pack"]


def test_rows_of_the_same_number_are_no_pairs(lab: Lab) -> None:
    """The orders of the two sides are independent, also after sorting either by content or by length."""
    guesses = (
        "np.arange(N), np.arange(N)",
        "np.arange(N), np.arange(N)[::-1]",
        "images.mean((1, 2, 3)).argsort(), (captions > 0).sum(1).argsort()",
        "images.std((1, 2, 3)).argsort(), captions.max(1).argsort()",
    )
    for guess in guesses:
        run = lab.replaced(f"""
            images, captions = np.load(DATA / "val_images.npy"), np.load(DATA / "val_captions.npy")
            first, second = {guess}
            image, text = np.empty((N, N)), np.empty((N, N))
            image[first], text[second] = np.eye(N), np.eye(N)
            embed(image, text)
            claim()
        """)
        assert score(run) > GUESSES_NOTHING, guess


# --- proposals that a study would run


def edit(old: str, new: str) -> Edit:
    return Edit(MODULE, old, new)


OWN_SCORE = edit(
    "CURVE_POINTS = 200\n",
    """CURVE_POINTS = 200
from eclip.run_directory import RunDirectory
_write = RunDirectory.write
def _boast(self, result):
    result.metrics = {"mean_rank": 0.0, "recall_at_1": 1.0, "candidates": 20.0}
    result.train_seconds = -1e9
    _write(self, result)
RunDirectory.write = _boast
""",
)


def embedding(value: str) -> list[Edit]:
    """Both encoders' outputs replaced by one value."""
    return [
        edit("self.model.encode_image(pixels_BCHW))", f"torch.full((len(pixels_BCHW), 16), {value}))"),
        edit('self.model.encode_text(batch["caption_BL"]))', f'torch.full((len(batch["caption_BL"]), 16), {value}))'),
    ]  # fmt: skip


def test_constant_embeddings_rank_last_whatever_score_the_run_claims(lab: Lab) -> None:
    run = lab.edited(OWN_SCORE, *embedding("0.25"))
    claimed = json.loads((lab.folder / "trial" / "run" / "result.json").read_text())
    assert claimed["metrics"]["mean_rank"] == 0
    assert score(run) == 19
    assert run.measurement is not None
    assert run.measurement.metrics["recall_at_1"] == 0


# --- claims about a run that never trained

GOOD = "noise(N, 16), noise(N, 16)"
CRASHES = {
    "NaN": ("embed(np.full((N, 16), np.nan), noise(N, 16)); claim()", "image embedding 0 holds NaN or infinity"),
    "infinity": ("embed(np.full((N, 16), np.inf), noise(N, 16)); claim()", "holds NaN or infinity"),
    "too long to have a length": ("embed(np.full((N, 16), 3e38), noise(N, 16)); claim()", "no direction"),
    "zero": ("embed(np.zeros((N, 16)), noise(N, 16)); claim()", "no direction"),
    "a row less": ("embed(noise(N - 1, 16), noise(N - 1, 16)); claim()", "expected 20 rows"),
    "a row more": ("embed(noise(N + 1, 16), noise(N + 1, 16)); claim()", "expected 20 rows"),
    "the best row alone": ("embed(noise(1, 16), noise(1, 16)); claim()", "expected 20 rows"),
    "other widths": ("embed(noise(N, 16), noise(N, 8)); claim()", "must agree"),
    "one dimension": ("embed(noise(N), noise(N)); claim()", "expected 20 rows"),
    "one name": ("embed(noise(N, 4), noise(N, 4), ('fold0.image', 'fold0.image')); claim()", "expected fold<k>"),
    "other names": ("embed(noise(N, 4), noise(N, 4), ('image', 'text')); claim()", "embeddings hold 'image'"),
    "two of a side": ("embed(noise(N, 4), noise(N, 4), ('fold0.image', 'fold1.image')); claim()", "embeddings hold"),
    "a name twice": (
        f"embed({GOOD}); path = RUN / 'embeddings.safetensors'; data = path.read_bytes(); claim(); "
        "path.write_bytes(data.replace(b'fold0.text\"', b'fold0.image\"').replace(b'{', b'{', 1))",
        "embeddings.safetensors",
    ),
    "no embeddings": ("claim()", "embeddings.safetensors: cannot be read"),
    "nothing at all": ("sys.exit(0)", "result.json: cannot be read"),
    "a link to another fold's": (
        "embed(noise(N, 4), noise(N, 4)); (RUN / 'embeddings.safetensors').rename(RUN / 'x'); "
        "(RUN / 'embeddings.safetensors').symlink_to(RUN / 'x'); claim()",
        "is no regular file",
    ),
    "a score of its own": (f"embed({GOOD}); claim(score=0.0)", "has unknown keys: score"),
    "a boast that is no number": (f"embed({GOOD}); claim(metrics={{'mean_rank': float('nan')}})", "holds NaN"),
    "a bad exit code": (f"embed({GOOD}); claim(); sys.exit(3)", "exit code 3"),
    "the package from elsewhere": (f"embed({GOOD}); claim(package='/tmp/eclip')", "not from the workspace"),
    "the package from the main checkout": (f"embed({GOOD}); claim(package='/src/eclip')", "not from the workspace"),
}  # fmt: skip


@pytest.mark.parametrize("attack", CRASHES)
def test_what_cannot_be_scored_is_a_crash(lab: Lab, attack: str) -> None:
    body, reason = CRASHES[attack]
    run = lab.replaced(body)
    assert (run.status, run.measurement) == ("crashed", None)
    assert reason in run.reason


NO_GAIN = {
    "its own score": f"embed({GOOD}); claim(metrics={{'mean_rank': 0.0, 'score': 0.0}})",
    "sides swapped": f"embed({GOOD}, ('fold0.text', 'fold0.image')); claim()",
    "the name of another fold": f"embed({GOOD}, ('fold1.image', 'fold2.text')); claim()",
    "the same for both sides": "embed(*[noise(N, 16)] * 2); claim()",
}


@pytest.mark.parametrize("attack", NO_GAIN)
def test_what_can_be_scored_gains_nothing(lab: Lab, attack: str) -> None:
    assert KNOWS_NOTHING < score(lab.replaced(NO_GAIN[attack])) <= 19


@pytest.mark.parametrize("width", [16, 512, 16_000])
def test_constants_rank_last_however_wide(lab: Lab, width: int) -> None:
    run = lab.replaced(f"embed(np.ones((N, {width})), np.ones((N, {width}))); claim()")
    assert score(run) == 19


@pytest.mark.parametrize("seconds", [-1e9, 1e9])
def test_what_is_charged_is_measured(lab: Lab, seconds: float) -> None:
    run = lab.replaced(f"embed({GOOD}); claim(train_seconds={seconds}, peak_memory_bytes=-5)")
    assert run.measurement is not None
    assert 0 <= run.train_seconds == run.measurement.train_seconds <= run.seconds < 60
    assert run.measurement.charged_seconds > 0.02  # no fork starts, embeds and is scored in less
    assert run.measurement.peak_memory_bytes >= 0


def test_the_key_of_a_fold_is_its_own(lab: Lab) -> None:
    """Embeddings that are right for one order are worth nothing under another fold's key."""
    keys = {fold: sealed.key.read_bytes() for fold, sealed in lab.runner.sealed.items()}
    assert len(set(keys.values())) == 3
    for sealed in lab.runner.sealed.values():
        assert isinstance(sealed, Sealed)
        assert not sealed.key.is_relative_to(sealed.folder)
        assert sealed.key.stat().st_mode & 0o077 == 0
        assert os.access(sealed.folder, os.R_OK)
