"""The command: from a ledger to files, and what it says where it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.wandb_upload import complete
from tests.agent.report.ledgers import fill
from tests.agent.report.synthetic import Kind, Maker

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "ledger.db"
    maker = Maker(np.random.default_rng(1), trials=5)
    fill(path, maker.campaign({"tpe": Kind(), "random": Kind()}, 2).studies)
    return path


def report(ledger: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "scripts/report.py",
        f"ledger.url=sqlite:///{ledger}",
        f"out={out}",
        *overrides,
    ]
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(out.parent)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_campaign(ledger: Path, tmp_path: Path) -> None:
    done = report(ledger, tmp_path / "out", "studies=[tpe-?,random-*]")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html")
    # the metric's name comes from the task's own file
    assert "best mean rank so far" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    made = {file.name for file in (tmp_path / "out" / "figures").iterdir()}
    assert {
        "race-trials-light.svg",
        "race-trials-dark.png",
        "confirmed-light.svg",
        "progress-tpe-0-dark.svg",
    } <= made
    assert "tpe-0" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    # without a key the table of trials waits on disk, and no link is made up
    assert len(complete(tmp_path / "out")) == 1
    assert "wandb.ai" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / ".local").exists(), "the artifact is not left in the home directory"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "choose study=NAME or studies=[A,B]; the ledger has: tpe-0, tpe-1, random-0, random-1"),
        (["study=none"], "no study none in the ledger; there are: tpe-0, tpe-1, random-0, random-1"),
        (["studies=[tpe-*,x-*]"], "no study x-* in the ledger; there are: tpe-0"),
        (["study=tpe-0", "scale=cubic"], "scale='cubic'"),
    ],
)
def test_what_is_wrong_is_said(ledger: Path, tmp_path: Path, overrides: list[str], said: str) -> None:
    done = report(ledger, tmp_path / "out", *overrides)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
