"""What the host writes to W&B is read back from the files, as W&B's own inspector sees them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from wandb.util import get_core_path

from agent.records import Charges, Outcome, Proposal, Status, Trial
from agent.task import Task
from agent.tracking import WandbTracker, composed_config
from agent.wandb_runs import COMPLETE, curve_rows, nested
from agent.wandb_upload import complete, uploaded, wandb_mode
from scripts import wandb_sync
from tests.agent.scripted import ScriptedStudy

FAKE = Path(__file__).parents[1] / "fake_task"
DEAD = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}


def config_of(trial: Trial) -> Mapping[str, Any]:
    return {"optimizer.lr": 0.001, "optimizer.name": "adamw", "model.pooling": "cls", **trial.overrides}


def tracker(folder: Path, **options: Any) -> WandbTracker:
    return WandbTracker("kento-test", folder, config_of, mode=options.pop("mode", "offline"), **options)


def study_of(folder: Path, observer: WandbTracker) -> ScriptedStudy:
    return ScriptedStudy(folder / "ledger.db", observer).begin()


def read_back(folder: Path) -> dict[str, dict[str, Any]]:
    """Run name -> {"run", "summary", "history", "metrics", "path"}, for every run that was written."""
    found = {}
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        # what `wandb leet inspect` starts
        command = [
            get_core_path(),
            "leet",
            "inspect",
            "--no-observability",
            "--json",
            "--run-file",
            str(path),
            str(folder),
        ]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        records = [json.loads(line) for line in lines]
        run = next(record["run"] for record in records if record["type"] == "run")
        summary: dict[str, Any] = {}
        for record in records:
            if record["type"] == "summary":
                summary |= record["summary"]["update"]
        found[run["display_name"]] = {
            "run": run,
            "summary": summary,
            "history": [record["history"]["item"] for record in records if record["type"] == "history"],
            "axes": {
                record["metric"].get("name") or record["metric"]["glob_name"]: record["metric"].get(
                    "step_metric"
                )
                for record in records
                if record["type"] == "metric"
            },
            "whole": records[-1]["type"] == "exit",
            "path": path,
        }
    return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A study with a reference on two seeds, a kept trial, planning for a dollar, a divergence and a rejection."""
    folder = tmp_path_factory.mktemp("story")
    study = study_of(folder, tracker(folder))
    study.reference(100.0)
    study.trial({"optimizer.lr": 0.01}, 90.0, "kept", hypothesis="faster", category="optimizer", route="llm")
    study.ledger.log("planning", charges=Charges(5.0, 0, 1.0, 0))
    study.failed({"optimizer.lr": 0.5}, "diverged", "loss is nan at step 3")
    study.failed({"optimizer.lr": 7.0}, "rejected", "optimizer.lr: 7.0 is above 1.0")
    study.end()
    return read_back(folder)


def test_one_run_a_trial_and_one_for_the_study(tracked: dict[str, dict[str, Any]]) -> None:
    assert sorted(tracked) == ["story", "story/0", "story/1", "story/2", "story/3"]
    for found in tracked.values():
        assert found["whole"]
        assert found["run"]["project"] == "kento-test"
        assert found["run"]["run_group"] == "story"
        assert found["run"]["job_type"] == "tpe"
    tags = {name: found["run"]["tags"] for name, found in tracked.items()}
    assert tags == {
        "story": ["study"],
        "story/0": ["reference"],
        "story/1": ["kept"],
        "story/2": ["reverted", "diverged"],
        "story/3": ["reverted", "rejected"],
    }


def test_config_is_what_ran(tracked: dict[str, dict[str, Any]]) -> None:
    config = tracked["story/1"]["run"]["config"]["update"]
    assert config["optimizer"] == {"lr": 0.01, "name": "adamw"}
    assert config["model"] == {"pooling": "cls"}
    spec = tracked["story"]["run"]["config"]["update"]
    assert (spec["searcher_seed"], spec["budget"]["trials"], spec["sandbox"]) == (3, 20, "bubblewrap")


def test_summary_holds_what_was_judged_decided_and_charged(tracked: dict[str, dict[str, Any]]) -> None:
    summary = tracked["story/1"]["summary"]
    expected = {
        "score": 90.0, "judged/mean_rank": 90.0, "judged/fold0/mean_rank": 89.0, "judged/fold2/mean_rank": 91.0,
        "verdict": "kept", "probability": 0.95, "delta": -10.0, "outcome": "completed", "hypothesis": "faster",
        "category": "optimizer", "route": "llm", "commit": "c0ffee", "sandbox": "bubblewrap",
        "charges/seconds": 30.0, "charges/train_seconds": 24.0, "charges/usd": 0.01, "charges/runs": 3,
    }  # fmt: skip
    assert {key: summary.get(key) for key in expected} == expected
    diverged = tracked["story/2"]["summary"]
    assert (diverged["outcome"], diverged["reason"]) == ("diverged", "loss is nan at step 3")
    assert "score" not in diverged


def test_curves_stand_by_fold_and_rerun_over_the_step(tracked: dict[str, dict[str, Any]]) -> None:
    rows = tracked["story/0"]["history"]
    shown = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    names = [f"{rerun}fold{fold}/loss" for rerun in ("", "rerun1/") for fold in range(3)]
    assert shown == [{"step": 0, **dict.fromkeys(names, 5)}, {"step": 10, **dict.fromkeys(names, 4)}]
    assert tracked["story/0"]["axes"]["*"] == "step"
    assert tracked["story/2"]["history"][0]["failed/loss"] == 9


def test_study_stands_against_trials_seconds_and_dollars(tracked: dict[str, dict[str, Any]]) -> None:
    found = tracked["story"]
    axes = ("trials", "seconds", "usd")
    assert {axis: found["axes"][f"best/over_{axis}"] for axis in axes} == {axis: axis for axis in axes}
    rows = [[row[f"best/over_{axis}"] for axis in axes] for row in found["history"]]
    assert rows == [[100.0] * 3, [90.0] * 3, [90.0] * 3, [90.0] * 3]
    # the reference counts as no trial; planning is charged from when it was done
    assert [row["trials"] for row in found["history"]] == [0, 1, 2, 3]
    assert [row["seconds"] for row in found["history"]] == [60.0, 90.0, 105.0, 115.0]
    assert [round(row["usd"], 2) for row in found["history"]] == [0.01, 0.02, 1.03, 1.04]
    assert found["summary"]["best/over_trials"] == 90.0


def test_resumed_study_adds_what_is_missing_and_has_one_curve(tmp_path: Path) -> None:
    first = study_of(tmp_path, tracker(tmp_path))
    first.reference(100.0)
    first.trial({"optimizer.lr": 0.01}, 90.0, "kept")
    first.trial({"optimizer.lr": 0.02}, 95.0)
    before = {path.name: path for path in complete(tmp_path)}
    # as after kill -9 in the middle of writing trial 1, and before trial 2 was written at all
    halves = [path for name, path in before.items() if name.endswith("-0001")]
    (halves[0] / COMPLETE).unlink()
    unwritten = ScriptedStudy(tmp_path / "ledger.db")
    unwritten.trial({"optimizer.lr": 0.03}, 94.0)

    second = study_of(tmp_path, tracker(tmp_path))
    second.trial({"optimizer.lr": 0.04}, 80.0, "kept")
    second.end()
    found = read_back(tmp_path)
    assert sorted(found) == ["story", *(f"story/{number}" for number in range(5))]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 6, "a superseded run is gone"
    assert all(run["whole"] for run in found.values())
    assert [row["best/over_trials"] for row in found["story"]["history"]] == [100.0, 90.0, 90.0, 90.0, 80.0]
    ids = {name: run["run"]["run_id"] for name, run in found.items()}
    assert {ids["story/0"], ids["story"]} <= {
        path.name.split("-", 3)[3].removesuffix("-1") for path in before.values()
    }
    assert found["story/0"]["path"].parent in before.values(), "what was whole is not written again"


def test_what_blocks_wandb_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text("in the way")
    told: list[str] = []
    study = study_of(tmp_path, tracker(tmp_path, report=told.append))
    study.reference(100.0)
    study.trial({"optimizer.lr": 0.01}, 90.0, "kept")
    study.end()
    assert len(told) == 1
    assert "FileExistsError" in told[0]
    assert [event["reason"] for event in study.ledger.events() if event["event"] == "wandb failed"] == [
        told[0].removeprefix("W&B: ")
    ]
    assert [trial.number for trial in study.ledger.trials()] == [0, 1]


def test_a_server_that_does_not_answer_costs_its_time_limit_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in DEAD.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    study = study_of(tmp_path, tracker(tmp_path, mode="online", upload_seconds=1.5, report=told.append))
    study.reference(100.0)
    study.trial({"optimizer.lr": 0.01}, 90.0, "kept")
    began = time.monotonic()
    study.end()
    assert time.monotonic() - began < 6
    assert len(told) == 1
    assert "within the time limit" in told[0]
    assert "make wandb-sync study=story" in told[0]
    assert sum(event["event"] == "wandb failed" for event in study.ledger.events()) == 1
    assert len(complete(tmp_path)) == 3
    # the curve is written again after the upload that read it
    assert len(read_back(tmp_path)["story"]["history"]) == 2

    assert wandb_sync.main([f"study={tmp_path.name}", f"runs={tmp_path.parent}", "seconds=1"]) == 1
    out, err = capsys.readouterr()
    assert out.count("not uploaded") == 3
    assert "within the time limit" in err


def test_sync_skips_what_is_uploaded_and_says_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "story" / "wandb" / "offline-run-20260101_000000-abc-0000"
    run.mkdir(parents=True)
    for name in ("run-abc-0000.wandb", "run-abc-0000.wandb.synced", COMPLETE):
        (run / name).touch()
    assert uploaded(run)
    assert wandb_sync.main(["study=story", f"runs={tmp_path}"]) == 0
    assert "was uploaded before" in capsys.readouterr().out
    assert wandb_sync.main(["study=other", f"runs={tmp_path}"]) == 1
    assert "holds no runs" in capsys.readouterr().err


def test_sync_without_a_key_fails_instead_of_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "story" / "wandb" / "offline-run-20260101_000000-abc-0000"
    run.mkdir(parents=True)
    for name in ("run-abc-0000.wandb", COMPLETE):
        (run / name).touch()
    assert wandb_sync.main(["study=story", f"runs={tmp_path}", "seconds=20"]) == 1
    assert "API key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "k"}, "", "online"),
        ({}, "machine api.wandb.ai login user password k", "online"),
        ({}, "machine example.org login user password k", "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_MODE": "disabled"}, "", "disabled"),
    ],
)
def test_mode_follows_from_key_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], netrc: str, mode: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode() == mode


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    study = study_of(tmp_path, tracker(tmp_path, mode="disabled"))
    study.reference(100.0)
    study.end()
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {
        "ledger.db"
    }


def test_composed_config_is_the_run_without_what_the_runner_sets() -> None:
    of = composed_config(Task.load(FAKE / "task.yaml", FAKE))
    ran = ended({"optimizer.lr": 0.25}, "completed")
    config = of(ran)
    assert config["optimizer.lr"] == 0.25
    assert config["model.activation"] in ("tanh", "relu")
    assert not {key for key in config if key.startswith("run.") or key in ("seed", "data.sealed")}
    rejected = ended({"optimizer.lr": "${oc.env:HOME}"}, "rejected")
    assert of(rejected) == {"proposed.optimizer.lr": "${oc.env:HOME}"}


def ended(overrides: dict[str, Any], status: Status) -> Trial:
    return Trial(1, Proposal(overrides), overrides, Outcome(status))


def test_rows_of_a_trial_without_curve_and_nesting() -> None:
    assert curve_rows(ended({}, "completed")) == []
    assert nested({"a.b.c": 1, "a.d": [2], "e": None}) == {"a": {"b": {"c": 1}, "d": [2]}, "e": None}
