"""Studies as records go in, real ledgers that hold them come out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution

from agent.codec import to_json
from agent.ledger import Ledger, rows
from agent.ledger.curve import pack
from agent.records import Trial
from agent.report.campaign import Study
from tests.agent.report.synthetic import KNOBS

DISTRIBUTIONS = {
    **{name: FloatDistribution(1e-6, 1e4, log=True) for name in KNOBS},
    "model.text.pooling": CategoricalDistribution(("cls", "mean", "max")),
}


def write(ledger: Ledger, study: Study, curves: Mapping[int, Any] | None = None) -> None:
    """The study into the ledger through its own interface, trial by trial."""
    there = ledger.study(study.name, create=study.spec)
    for trial in study.trials:
        known = {k: v for k, v in trial.overrides.items() if k in DISTRIBUTIONS}
        there.start(
            trial.proposal,
            overrides=trial.overrides,
            params=known,
            distributions={k: DISTRIBUTIONS[k] for k in known},
            owner="host:1:1.00",
        )
        more = {}
        if again := study.remeasured.get(trial.number):
            more["of_recipe"] = {"number": trial.number, "measurements": list(again)}
        there.note(trial.number, charges=trial.charges, phase="seed 0, fold 3 of 3", **more)
        if trial.outcome:
            outcome = replace(trial.outcome, curve=(curves or {}).get(trial.number, ()))
            there.finish(replace(trial, outcome=outcome))
    for event in study.events:
        there.log(event["event"], **{k: v for k, v in event.items() if k not in ("event", "time")})


def fill(path: Path, studies: Sequence[Study], curve: Sequence[Mapping[str, float]] = ()) -> Ledger:
    """Many studies into an SQLite ledger at once: the same rows as `write` makes, a hundred times as fast."""
    ledger = Ledger.open(f"sqlite:///{path}")
    with sqlite3.connect(path) as base:
        for study in studies:
            _insert(base, study, json.dumps(pack(curve)))
    return ledger


def _insert(base: sqlite3.Connection, study: Study, curve: str) -> None:
    of = base.execute("INSERT INTO studies (study_name) VALUES (?)", (study.name,)).lastrowid
    sql = "INSERT INTO study_directions (direction, study_id, objective) VALUES (?, ?, 0)"
    base.execute(sql, (study.spec.direction.upper(), of))
    attributes = {f"event:{place:08d}:x": event for place, event in enumerate(study.events)}
    sql = "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (?, ?, ?)"
    every = {"spec": to_json(study.spec), **attributes}
    base.executemany(sql, [(of, key, json.dumps(to_json(value))) for key, value in every.items()])
    for trial in study.trials:
        outcome, began = trial.outcome, datetime(2026, 3, 1) + timedelta(minutes=trial.number)
        done = outcome is not None and outcome.status == "completed"
        state = "COMPLETE" if done else "FAIL" if outcome else "RUNNING"
        sql = "INSERT INTO trials (number, study_id, state, datetime_start) VALUES (?, ?, ?, ?)"
        place = base.execute(sql, (trial.number, of, state, f"{began}.000000")).lastrowid
        if done and outcome:
            sql = (
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, 'FINITE')"
            )
            base.execute(sql, (place, outcome.score))
        rows_of = _attributes(study, trial)
        texts = {key: json.dumps(value) for key, value in rows_of.items()}
        if done:
            texts["result"] = texts["result"].replace('"curve": []', f'"curve": {curve}')
        sql = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"
        base.executemany(sql, [(place, key, text) for key, text in texts.items()])


def _attributes(study: Study, trial: Trial) -> dict[str, Any]:
    progress: dict[str, Any] = {"charges": to_json(trial.charges), "phase": "seed 0, fold 3 of 3"}
    if again := study.remeasured.get(trial.number):
        progress["of_recipe"] = {"number": trial.number, "measurements": to_json(list(again))}
    found = rows.opening(trial.proposal, trial.overrides, "host:1:1.00") | {"progress": progress}
    return found | (rows.closing(trial) if trial.outcome else {})
