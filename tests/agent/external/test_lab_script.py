"""The chair from a shell: the same study by commands, for people and for programs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from scripts import lab
from tests.agent.external.place import Place, toy_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = toy_place(tmp_path_factory.mktemp("shell"), "budget.trials=2")
    started = found.shell("start", *found.words, "--as", "kim")
    assert started.returncode == 0, started.stderr
    assert "the reference as it is" in started.stdout
    assert "reference 0" in started.stderr  # progress
    return found


class Shell:
    """Commands of one person, in this process: an interpreter's start is most of a command."""

    def __init__(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        self.place, self.capsys = place, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = lab.main([*words, "--checkout", str(self.place.root)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def json(self, *words: str) -> dict[str, Any]:
        code, out, _ = self(*words, "--json")
        said: dict[str, Any] = json.loads(out)
        assert said["ok"] == (code == 0)
        return said


@pytest.fixture
def shell(place: Place, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(place, capsys)


def test_a_trial_by_one_line(shell: Shell, place: Place, tmp_path: Path) -> None:
    line = (
        "propose --override optimizer.lr=0.1 --hypothesis low --category optimisation --as kim --usd 0 --json"
    )
    done = place.shell(*line.split())
    said = json.loads(done.stdout)
    assert said["ok"], said
    assert said["trial"]["verdict"]["decision"] == "kept"
    assert said["trial"]["proposal"]["by"] == "kim"
    assert said["trial"]["proposal"]["route"] == "shell"
    assert said["dollars"] == "as claimed"
    assert shell("status")[1].startswith("# Study external-smoke-0")
    assert shell.json("history")["trials"][1]["overrides"] == {"optimizer.lr": 0.1}
    assert "hypothesis: low" in shell("trial", "1")[1]
    assert shell("note", "The rate matters.", "--as", "kim")[0] == 0
    assert "The rate matters." in shell("status")[1]
    file = tmp_path / "idea.json"
    file.write_text(json.dumps({"overrides": {"optimizer.lr": 0.1}, "hypothesis": "again"}))
    assert "the same configuration and code as trial 1" in shell.json("check", str(file))["text"]


def test_another_person_is_told_who_holds_the_study(shell: Shell) -> None:
    assert shell("note", "Ours.", "--as", "kim")[0] == 0
    code, _, error = shell("note", "Mine.", "--as", "lee")
    assert code == 1
    assert "the study is held by kim" in error
    assert shell("leave", "--as", "kim")[0] == 0
    assert shell("note", "Mine.", "--as", "lee")[0] == 0
    assert shell("leave", "--as", "lee")[0] == 0


def test_what_cannot_be_used_is_named(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"overrides": {"optimizer.lr": NaN}}'))
    assert shell.json("check", "-")["text"].startswith("-: ")
    assert "no such file" in shell("check", "nowhere.json")[2].lower()
    assert "--override lr: expected KEY=VALUE" in shell("check", "--override", "lr")[2]
    elsewhere = f"ledger.url=sqlite:///{tmp_path}/other.db"
    assert "choose --study NAME; there are: none" in shell("status", "--setting", elsewhere)[2]
    assert "searcher is set for every external study" in shell("start", "searcher=tpe")[2]
    assert "no external study 'red'" in shell("status", "--study", "red")[2]
