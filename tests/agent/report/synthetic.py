"""Campaigns with a known truth, as records and as real ledgers: what the report says of them can be checked.

A study's kept trials add up to a true gain over the reference; measurements add the noise of training seeds
and folds. What chance does to a searcher (`between`) differs from study to study, which is why studies count.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution

from agent.codec import to_json
from agent.ledger import Ledger, StudySpec, rows
from agent.records import (
    Budget,
    Charges,
    Edit,
    Measurement,
    Outcome,
    Proposal,
    Status,
    Trial,
    Value,
    Verdict,
)
from agent.report.campaign import Campaign, Study

FOLDS, FRESH = (0, 1, 2), (100, 101, 102, 103, 104)
START = math.log(340.0)
KNOBS = ("optimizer.lr", "model.projection.dim", "expert.weight", "optimizer.warmup", "loss.label_smoothing")
KINDS = ("optimizer", "model", "expert", "schedule")
DISTRIBUTIONS = {
    **{name: FloatDistribution(1e-6, 1e4, log=True) for name in KNOBS},
    "model.text.pooling": CategoricalDistribution(("cls", "mean", "max")),
}


@dataclass(frozen=True)
class Kind:
    """What a searcher is like. Gains and standard deviations on the log scale, seconds a trial.

    promised: how much more the search believes than is true. late: the last kept trial comes at the very end;
    early: only the first is kept.
    """

    gain: float = 0.3
    between: float = 0.08
    promised: float = 0.0
    seconds: float = 60.0
    usd: float = 0.0
    crashes: float = 0.05
    route: str = "sampler"
    late: bool = False
    early: bool = False


@dataclass(frozen=True)
class Noise:
    seed: float = 0.015
    fold: float = 0.03

    def measure(
        self, random: np.random.Generator, level: float, seeds: Sequence[int], seconds: float = 20.0
    ) -> tuple[Measurement, ...]:
        found = []
        for seed in seeds:
            part = random.normal(0.0, self.seed)
            for fold in FOLDS:
                score = math.exp(level + part + random.normal(0.0, self.fold))
                found.append(Measurement(seed, fold, score, {"recall_at_1": 0.2}, seconds, seconds + 2))
        return tuple(found)


@dataclass
class Maker:
    """Makes studies of one campaign; the same seed makes the same ones."""

    random: np.random.Generator
    noise: Noise = field(default_factory=Noise)
    trials: int = 12
    curve_points: int = 0
    log_lines: int = 2

    def campaign(
        self, kinds: Mapping[str, Kind], studies: int | Mapping[str, int], confirm: bool = True
    ) -> Campaign:
        counts = studies if isinstance(studies, Mapping) else dict.fromkeys(kinds, studies)
        reference = self.noise.measure(self.random, START, FRESH)
        return Campaign(
            tuple(
                self.study(name, number, kind, reference if confirm else ())
                for name, kind in kinds.items()
                for number in range(counts[name])
            )
        )

    def study(self, searcher: str, seed: int, kind: Kind, reference: Sequence[Measurement] = ()) -> Study:
        """An ended study; confirmed if the reference's confirmation is given."""
        budget = Budget(trials=self.trials, seconds=20.0)
        spec = StudySpec(
            searcher, seed, budget, "eclip", training_seeds=(0, 1, 2, 3, 4), sandbox="bubblewrap"
        )
        gain = self.random.normal(kind.gain, kind.between)
        history, true = self._history(kind, gain)
        events: list[dict[str, Any]] = []
        winner = [t for t in history if t.verdict and t.verdict.decision == "kept"][-1:]
        if reference:
            events.append(_confirmed("reference", 0, 1, reference))
            level = true[winner[0].number] if winner else START
            if winner:
                for factor, more in ((1, 0.0), (4, 0.2)):
                    measured = self.noise.measure(self.random, level - more, FRESH)
                    events.append(_confirmed("winner", winner[0].number, factor, measured))
            longer = self.noise.measure(self.random, START - 0.2, FRESH)
            events.append(_confirmed("reference", 0, 4, longer))
        events.append({"event": "ended", "time": 9e4, "reason": f"all {self.trials} trials are used"})
        curves = {t.number: _curve(t.outcome.curve) for t in history if t.outcome and t.outcome.curve}
        stripped = tuple(replace(t, outcome=replace(t.outcome, curve=())) for t in history if t.outcome)
        self.last_curves = {t.number: t.outcome.curve for t in history if t.outcome}
        return Study(f"{searcher}-{seed}", spec, stripped, tuple(events), curves=curves)

    def _history(self, kind: Kind, gain: float) -> tuple[list[Trial], dict[int, float]]:
        """The trials, and the true level of each that was kept."""
        steps = max(2, min(self.trials // 4, 9))
        places = self.random.choice(np.arange(1, self.trials), steps, replace=False)
        kept = [1] if kind.early else sorted({*places.tolist()} | ({self.trials} if kind.late else set()))
        parts = self.random.dirichlet(np.full(len(kept), 2.0))
        shares = dict(zip(kept, parts, strict=True))
        luck = dict.fromkeys(kept, kind.promised / len(kept))
        level, believed, recipe = START, START, 0
        first = Outcome("completed", 0.0, self.noise.measure(self.random, START, (0, 1)))
        history = [
            self._trial(0, Proposal(base="reference", route="reference"), first, "reference", None, kind)
        ]
        true = {0: START}
        for number in range(1, self.trials + 1):
            if number in shares:
                level, believed = level - gain * shares[number], believed - gain * shares[number]
                believed -= luck[number]
                true[number] = level
            trial = self._next(number, kind, number in shares, believed, history[recipe])
            recipe = number if number in shares else recipe
            history.append(trial)
        return history, true

    def _next(self, number: int, kind: Kind, keep: bool, believed: float, recipe: Trial) -> Trial:
        knob = KNOBS[int(self.random.integers(len(KNOBS)))]
        value = float(f"{10 ** self.random.uniform(-5, 2):.3g}")
        edits = (
            (Edit("src/eclip/losses.py", "a = 1\nb = 2\n", f"a = 1\nb = {number}\n"),)
            if number % 3 == 0
            else ()
        )
        proposal = Proposal(
            overrides={knob: value, "model.text.pooling": str(self.random.choice(["cls", "mean"]))},
            edits=edits,
            hypothesis=f"{knob} = {value:g} suits the small batches better than what the recipe has",
            category=KINDS[number % len(KINDS)],
            phase="explore" if number < self.trials / 2 else "refine",
            route=kind.route,
        )
        if not keep and self.random.random() < kind.crashes:
            status: Status = ("crashed", "timeout", "rejected", "duplicate")[number % 4]  # type: ignore[assignment]
            lines = "\n".join(f"  File 'train.py', line {i}, in main" for i in range(self.log_lines))
            outcome = Outcome(status, reason="CUDA error", log_tail=f"Traceback\n{lines}\nValueError: x")
            return self._trial(number, proposal, outcome, "reverted", recipe, kind)
        worse = 0.0 if keep else abs(self.random.normal(0.08, 0.08))
        measured = self.noise.measure(self.random, believed + worse, (0,))
        decision = "kept" if keep else "reverted"
        return self._trial(number, proposal, Outcome("completed", 0.0, measured), decision, recipe, kind)

    def _trial(
        self,
        number: int,
        proposal: Proposal,
        outcome: Outcome,
        decision: Any,
        recipe: Trial | None,
        kind: Kind,
    ) -> Trial:
        score, delta = None, None
        if outcome.status == "completed":
            score = float(np.mean([m.score for m in outcome.measurements]))
            if recipe and recipe.outcome and recipe.outcome.score:
                delta = score - recipe.outcome.score
            outcome = replace(outcome, score=score, curve=self._curve())
        overrides: dict[str, Value] = {**(recipe.overrides if recipe else {}), **proposal.overrides}
        seconds = kind.seconds * float(self.random.uniform(0.98, 1.02)) * (2 if number == 0 else 1)
        charges = Charges(seconds, seconds * 0.9, kind.usd, 3)
        verdict = Verdict(
            decision, 0.95 if decision == "kept" else 0.2, delta, recipe.number if recipe else None
        )
        return Trial(number, proposal, overrides, outcome, verdict, charges, f"{number:040x}")

    def _curve(self) -> tuple[Mapping[str, float], ...]:
        if not self.curve_points:
            return ()
        points = []
        for fold in FOLDS:
            for step in range(self.curve_points):
                loss = 3.9 * math.exp(-step / self.curve_points) + 0.05 * self.random.random()
                more = {
                    "seconds": step * 0.1,
                    "learning_rate": 3e-4,
                    "logit_scale": 14.3,
                    "gradient_norm": 1.2,
                }
                points.append({"fold": float(fold), "step": float(step), "loss": loss, **more})
        return tuple(points)


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
            _insert(base, study, json.dumps(to_json(list(curve))))
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


def _confirmed(role: str, trial: int, factor: int, measured: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "event": "confirmed",
        "time": 1e5,
        "role": role,
        "trial": trial,
        "budget_factor": factor,
        "measurements": to_json(list(measured)),
        "charges": to_json(Charges(100.0, 80.0, 0.0, len(measured))),
    }


def _curve(points: Sequence[Mapping[str, float]]) -> tuple[tuple[float, float], ...]:
    first = [(p["step"], p["loss"]) for p in points if p["fold"] == 0.0]
    return tuple(first[:: max(1, math.ceil(len(first) / 48))])


def ablated(maker: Maker, study: Study, worths: Mapping[str, float]) -> Study:
    """The study with an ablation of its winner for each change, which is truly worth that much (log scale)."""
    assert study.winner is not None
    [event] = [
        e
        for e in study.events
        if e["event"] == "confirmed" and e["role"] == "winner" and e["budget_factor"] == 1
    ]
    level = float(np.mean([math.log(m["score"]) for m in event["measurements"]]))
    events = [
        {
            "event": "ablated",
            "time": 2e5,
            "change": change,
            "trial": study.winner.number,
            "effect": worth,
            "measurements": to_json(list(maker.noise.measure(maker.random, level + worth, FRESH))),
        }
        for change, worth in worths.items()
    ]
    return replace(study, events=(*study.events, *events))
