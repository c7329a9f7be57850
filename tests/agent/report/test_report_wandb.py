"""The table of all trials, read back from the files that W&B wrote; and links to groups."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wandb.util import get_core_path

from agent.report.wandb_table import COLUMNS, group_links, rows, write_table
from agent.wandb_upload import complete
from tests.agent.report.synthetic import Kind, Maker

CAMPAIGN = Maker(np.random.default_rng(4), trials=9).campaign(
    {"tpe": Kind(crashes=0.5), "claude": Kind(usd=0.1, route="llm")}, 2
)


def records(run: Path) -> list[dict[str, Any]]:
    [file] = run.glob("run-*.wandb")
    inspect = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    done = subprocess.run([*inspect, str(file), str(run)], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def table_of(run: Path) -> dict[str, Any]:
    """The artifact's table, as the offline run points to it."""
    [artifact] = [record["artifact"] for record in records(run) if record["type"] == "artifact"]
    [content] = artifact["manifest"]["contents"]
    assert (artifact["name"], artifact["type"], content["path"]) == (
        "demo-trials",
        "trials",
        "trials.table.json",
    )
    table: dict[str, Any] = json.loads(Path(content["local_path"]).read_text(encoding="utf-8"))
    return table


def test_studies_of_the_same_names_do_not_replace_each_others_table(tmp_path: Path) -> None:
    """In a project of several people: each has a demo-tpe-0."""
    ids = set()
    for place, began in (("one", 1e9), ("two", 2e9), ("again", 1e9)):
        studies = tuple(replace(study, began={0: began, 1: began + 60}) for study in CAMPAIGN.studies)
        [run] = write_table(replace(CAMPAIGN, studies=studies), tmp_path / place, "kento-test", "demo").glob(
            "run-*.wandb"
        )
        ids.add(run.name)
    assert len(ids) == 2


def test_every_trial_is_in_the_artifact(tmp_path: Path) -> None:
    run = write_table(CAMPAIGN, tmp_path, "kento-test", "demo")
    assert complete(tmp_path) == [run]
    begun = next(record["run"] for record in records(run) if record["type"] == "run")
    assert (begun["project"], begun["run_group"], begun["job_type"]) == ("kento-test", "demo", "report")
    table = table_of(run)
    assert table["columns"] == list(COLUMNS)
    assert table["data"] == rows(CAMPAIGN)
    # ended trials of the ledger's records, no more and no fewer, with their own figures
    found = {(row[0], row[3]): dict(zip(COLUMNS, row, strict=True)) for row in table["data"]}
    trials = {(study.name, trial.number): trial for study in CAMPAIGN.studies for trial in study.trials}
    assert found.keys() == trials.keys()
    for key, trial in trials.items():
        assert trial.outcome is not None
        assert found[key]["score"] == trial.outcome.score
        assert found[key]["status"] == trial.outcome.status
        assert json.loads(found[key]["overrides"]) == dict(trial.proposal.overrides)
        assert found[key]["usd"] == trial.charges.usd
    assert {row["route"] for row in found.values()} == {"reference", "sampler", "llm"}


def test_a_table_made_anew_replaces_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "elsewhere")

    def staged() -> list[Path]:
        return [path for path in (tmp_path / "wandb" / "artifacts").rglob("*") if path.is_file()]

    first = write_table(CAMPAIGN, tmp_path, "kento-test", "demo")
    begun = next(record["run"] for record in records(first) if record["type"] == "run")
    count = len(staged())
    second = write_table(CAMPAIGN, tmp_path, "kento-test", "demo")
    assert complete(tmp_path) == [second]
    assert next(r["run"]["run_id"] for r in records(second) if r["type"] == "run") == begun["run_id"]
    assert table_of(second)["data"] == rows(CAMPAIGN)
    assert len(staged()) == count, "the files of the first are gone"
    assert os.environ["WANDB_DATA_DIR"] == "elsewhere"


def test_links_lead_to_the_studies_groups() -> None:
    found = group_links(["tpe-0", "a b"], "kento", "me & co", {})
    assert found == {
        "W&B: tpe-0": "https://wandb.ai/me%20%26%20co/kento/groups/tpe-0",
        "W&B: a b": "https://wandb.ai/me%20%26%20co/kento/groups/a%20b",
    }
    own = group_links(["x"], "kento", "me", {"WANDB_BASE_URL": "https://wandb.example.org/"})
    assert own == {"W&B: x": "https://wandb.example.org/me/kento/groups/x"}
    assert group_links(["x"], "kento", "", {}) == {}
    assert group_links(["x"], "kento", "me", {"WANDB_BASE_URL": "http://127.0.0.1:9"}) == {}
