"""`scripts/status.py` reads ledgers of studies that run, have ended, or were killed; the dashboard serves them."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agent.records import Proposal, lineage
from scripts import dashboard, status
from tests.agent.scripted import ScriptedStudy, edit

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from agent.records import Proposal
from tests.agent.scripted import ScriptedStudy
study = ScriptedStudy(Path(sys.argv[1]), name="held").begin()
study.reference()
trial = study.start(Proposal({"optimizer.lr": 0.1}))
study.ledger.note(trial.number, phase="seed 0, fold 1 of 3")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """One study that has ended, with edits and a recipe two steps from the reference."""
    study = ScriptedStudy(tmp_path / "ledger.db").begin()
    study.reference(100.0)
    study.trial({"optimizer.lr": 0.01}, 90.0, "kept", edits=edit("src/toy/model.py"))
    study.trial({"model.pooling": "mean"}, 80.0, "kept", hypothesis="smoother")
    study.failed({"optimizer.lr": 0.5}, "crashed", "exit code 1: RuntimeError: shapes")
    study.trial({"loss.scale": 2.0}, 85.0, edits=edit("src/toy/data.py"))
    study.end()
    return tmp_path / "ledger.db"


def said(capsys: pytest.CaptureFixture[str], *words: str, rc: int = 0) -> str:
    assert status.main(words) == rc
    out, err = capsys.readouterr()
    return out if rc == 0 else err


def test_all_studies_in_a_table(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    other = ScriptedStudy(ledger, name="bare", sandbox="none").begin()
    other.end("stopped", "stopped")
    lines = said(capsys, f"ledger=sqlite:///{ledger}").splitlines()
    # reference 60 s, three completed trials 30 s, a crash 10 s
    expected = "story tpe 3 4/20 80.000 -20.0% 2:40 0.05 ended: all trials are used"
    assert lines[1].split() == expected.split()
    assert lines[2].split() == "bare tpe 3 0/20 0:00 0.00 stopped · sandbox=none".split()
    # where there is no room, columns that the name holds make it for the state
    monkeypatch.setenv("COLUMNS", "80")
    narrow = said(capsys, f"ledger.url=sqlite:///{ledger}").splitlines()
    assert narrow[1].split() == "story 4/20 80.000 -20.0% 2:40 0.05 ended: all trials are used".split()
    monkeypatch.setenv("COLUMNS", "140")
    assert said(capsys, "story", f"ledger=sqlite:///{ledger}") == said(
        capsys, f"ledger=sqlite:///{ledger}", "study=story"
    )


def test_one_study_with_recipe_and_what_is_left(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    text = said(capsys, f"ledger=sqlite:///{ledger}", "study=story")
    lines = text.splitlines()
    assert lines[0].strip() == "story · tpe, seed 3 · toy, lower is better"
    assert [line.split()[0] for line in lines[2:7]] == list("01234")
    assert "lr 0.01→0.5 · exit code 1: RuntimeError: shapes" in lines[5]
    recipe = lines[lines.index("recipe: trial 2, 80.000 -20.0%") :]
    assert recipe[1:] == [
        "  model.pooling = mean (reference: cls)",
        "  optimizer.lr = 0.01 (reference: 0.001)",
        "  edited: src/toy/model.py",
        "  commit c0ffee · git log lab/story",
        "16 of 20 trials left · 57:20 of 1:00:00 left · $1.95 of $2.00 left",
        "ended: all trials are used",
    ]


def test_json_for_programs(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, f"ledger=sqlite:///{ledger}", "study=story", "--json"))
    assert found["best"] == {"trial": 2, "score": 80.0, "commit": "c0ffee"}
    assert found["recipe"] == {"optimizer.lr": 0.01, "model.pooling": "mean"}
    assert found["recipe_edits"] == ["src/toy/model.py"]
    assert [trial["outcome"]["status"] for trial in found["trials"]] == ["completed"] * 3 + [
        "crashed",
        "completed",
    ]
    listed = json.loads(said(capsys, f"ledger=sqlite:///{ledger}", "--json"))
    assert [(study["study"], study["trials_used"]) for study in listed] == [("story", 4)]
    assert "trials" not in listed[0]


def test_study_that_runs_and_then_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        running = said(capsys, f"ledger=sqlite:///{path}", "study=held")
        assert "1 under way: seed 0, fold 1 of 3" in running
        assert running.splitlines()[-1] == f"running, process {process.pid}"
        process.send_signal(signal.SIGKILL)
    killed = said(capsys, f"ledger=sqlite:///{path}", "study=held")
    assert "1 left behind by a killed process: seed 0, fold 1 of 3" in killed
    assert killed.splitlines()[-1] == "killed; the same command resumes it"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == content, "status only reads"


def test_study_that_broke_off_and_one_that_was_resumed(tmp_path: Path) -> None:
    study = ScriptedStudy(tmp_path / "ledger.db")
    assert status.state(study.ledger) == "not begun"
    study.begin().reference()
    study.ledger.release(study.owner)
    assert status.state(study.ledger) == "broken off; the same command resumes it"
    study.end("stopped", "stopped")
    assert status.state(study.ledger) == "stopped"
    study.ledger.log("resumed", owner=study.owner)
    assert status.state(study.ledger) == "broken off; the same command resumes it"


def test_wrong_names_are_told_and_make_nothing(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are: story" in said(capsys, f"ledger=sqlite:///{ledger}", "study=stori", rc=1)
    missing = ledger.with_name("other.db")
    assert "there is no ledger at" in said(capsys, f"ledger=sqlite:///{missing}", rc=1)
    assert not missing.exists()
    with pytest.raises(SystemExit):
        status.main(["studi=story"])
    assert "unknown studi" in capsys.readouterr().err


def test_recipe_is_a_line_of_kept_trials(ledger: Path) -> None:
    study = ScriptedStudy(ledger)
    assert [trial.number for trial in lineage(study.ledger.best(), study.ledger.trials())] == [0, 1, 2]
    assert lineage(None, study.ledger.trials()) == []
    running = study.start(Proposal({}))
    assert lineage(running, study.ledger.trials()) == [running]


def test_dashboard_serves_every_study_on_loopback(ledger: Path) -> None:
    command = [sys.executable, "scripts/dashboard.py", f"ledger=sqlite:///{ledger}"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            studies = json.loads(_fetch(f"{address}api/studies"))["study_summaries"]
        finally:
            process.terminate()
    assert [study["study_name"] for study in studies] == ["story"]


def test_dashboard_needs_a_ledger_and_a_free_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard.main([f"ledger=sqlite:///{tmp_path / 'none.db'}"]) == 1
    assert "there is no ledger at" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert dashboard.free_port(taken.getsockname()[1]) > taken.getsockname()[1]


def _fetch(address: str) -> bytes:
    """The answer of a server that may not listen yet."""
    until = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
