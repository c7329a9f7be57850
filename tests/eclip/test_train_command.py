"""`python train.py` as a person types it: a multirun of two tiny runs, logged to W&B offline, read back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from wandb.util import get_core_path

from tests.eclip.conftest import SMALL
from tests.eclip.test_entry import started


def read_back(file: Path) -> list[dict[str, Any]]:
    """The records of an offline run, as W&B's own inspector sees them."""
    command = [
        get_core_path(),
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        "--run-file",
        str(file),
        "x",
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def multirun(prints: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("multirun")
    small = [override for override in SMALL if override != "logger=none"]
    where = (f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs", "hydra.sweep.dir=runs")
    done = started(folder, "--multirun", *small, *where, "optimizer.lr=1e-3,1e-4", "trainer.max_steps=3")
    return folder, done


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / "runs" / job / "result.json").read_text()) for job in ("0", "1")]


def test_both_runs_end_with_a_score(multirun):
    folder, done = multirun
    assert done.returncode == 0, done.stderr
    for result in results(folder):
        assert result["status"] == "completed"
        assert result["steps"] == 3
        assert 0 < result["metrics"]["mean_rank"] < 19
    first, second = (result["curve"][-1]["learning_rate"] for result in results(folder))
    assert first == pytest.approx(10 * second)


def test_a_person_sees_the_score_and_the_folder(multirun):
    folder, done = multirun
    for job, result in enumerate(results(folder)):
        assert f"{result['metrics']['mean_rank']:.1f}" in done.stderr
        assert f"runs/{job}" in done.stderr


def test_nothing_asked_for_a_key(multirun):
    _, done = multirun
    shown = (done.stdout + done.stderr).lower()
    assert not [
        word for word in ("api key", "log in", "login", "enter your choice", "password") if word in shown
    ]


def test_the_offline_runs_can_be_read(multirun):
    folder, _ = multirun
    for job, result in enumerate(results(folder)):
        [file] = (folder / "runs" / str(job) / "wandb").glob("offline-run-*/run-*.wandb")
        records = read_back(file)
        [run] = [record["run"] for record in records if record["type"] == "run"]
        assert run["project"] == "kento"
        assert run["config"]["update"]["optimizer"]["lr"] == (1e-3, 1e-4)[job]
        summary: dict[str, Any] = {}
        for record in records:
            if record["type"] == "summary":
                summary |= record["summary"]["update"]
        assert summary["mean_rank"] == pytest.approx(result["metrics"]["mean_rank"])
        assert summary["train/loss"] == pytest.approx(result["curve"][-1]["loss"], rel=1e-4)
        assert sum(record["type"] == "history" for record in records) == 3


def test_each_run_has_its_own_log_and_config(multirun):
    folder, _ = multirun
    rates = [(folder / "runs" / job / "config.yaml").read_text().count("lr: 0.001\n") for job in ("0", "1")]
    assert rates == [1, 0]
    for job in ("0", "1"):
        assert (folder / "runs" / job / "train.log").read_text().count("20 candidates") == 1
