"""Campaigns read from ledgers: all that was written comes back, whoever wrote it, at any moment."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.ledger import Ledger, LedgerError
from agent.records import Charges, Outcome, Verdict
from agent.report.campaign import Campaign, Study, load
from agent.report.lineage import lineage
from tests.agent.report.ledgers import fill, write
from tests.agent.report.synthetic import FRESH, START, Kind, Maker


def study(curve_points: int = 0) -> tuple[Maker, Study]:
    maker = Maker(np.random.default_rng(1), trials=7, curve_points=curve_points)
    made = maker.study("tpe", 0, Kind(crashes=0.3), maker.noise.measure(maker.random, START, FRESH))
    return maker, replace(made, remeasured={3: maker.noise.measure(maker.random, START, (1,))})


def without_times(study: Study) -> Study:
    events = tuple({k: v for k, v in event.items() if k != "time"} for event in study.events)
    return replace(study, events=events, began={})


def test_a_study_comes_back_through_the_ledgers_own_interface(sqlite_url: str) -> None:
    maker, made = study(curve_points=100)
    ledger = Ledger.open(sqlite_url)
    write(ledger, made, maker.last_curves)
    [read] = load(ledger, [made.name]).studies
    assert without_times(read) == without_times(made)
    assert len(read.curves[0]) in range(30, 49)
    assert set(read.began) == {trial.number for trial in made.trials}


def test_ledgers_filled_at_once_are_like_those_written_trial_by_trial(tmp_path: Path) -> None:
    _, made = study()
    write(slow := Ledger.open(f"sqlite:///{tmp_path / 'slow.db'}"), made)
    fast = fill(tmp_path / "fast.db", [made])
    [one], [other] = load(slow, [made.name]).studies, load(fast, [made.name]).studies
    assert without_times(one) == without_times(other) == without_times(made)


def test_unknown_study_is_named(sqlite_url: str) -> None:
    with pytest.raises(LedgerError, match="'none' is not in the ledger"):
        load(Ledger.open(sqlite_url), ["none"])


def test_curves_with_numbers_that_are_none_are_read(tmp_path: Path) -> None:
    _, made = study()
    points = [{"fold": 0.0, "step": float(s), "loss": math.nan if s == 1 else 3.0} for s in range(4)]
    # another training seed's run of the same fold
    points += [{"fold": 0.0, "step": 0.0, "loss": 9.0}]
    [read] = load(fill(tmp_path / "ledger.db", [made], points), [made.name]).studies
    assert read.curves[0] == ((0.0, 3.0), (2.0, 3.0), (3.0, 3.0))


def test_states() -> None:
    _, made = study()
    assert made.state == "ended"
    events = made.events[:-1]
    assert replace(made, events=events).state == "running"
    resumed = (*made.events, {"event": "resumed", "time": 1.0})
    assert replace(made, events=resumed).state == "running"
    crashed = replace(made.trials[0], outcome=Outcome("crashed"), verdict=None)
    assert replace(made, trials=(crashed,), events=()).state == "failed"
    assert replace(made, trials=(), events=()).state == "running"


def test_charges_of_the_search_leave_confirmation_out() -> None:
    _, made = study()
    trials = sum(trial.charges.seconds for trial in made.trials)
    assert made.charges.seconds == pytest.approx(trials)
    planning = {"event": "plan", "time": 5.0, "charges": {"seconds": 7.0, "usd": 0.5}}
    with_plan = replace(made, events=(planning, *made.events))
    assert with_plan.charges == sum((t.charges for t in made.trials), Charges(7.0, 0.0, 0.5))


def test_levels_and_gains() -> None:
    maker, made = study()
    campaign = Campaign((made,))
    measured = maker.noise.measure(maker.random, START, (1, 2))
    expected = sum(math.log(m.score) for m in measured) / 6
    assert campaign.level(measured) == pytest.approx(expected)
    # the second seed lacks a fold, and is left out
    assert campaign.level(measured[:-1]) == pytest.approx(sum(math.log(m.score) for m in measured[:3]) / 3)
    assert campaign.level([]) is None
    assert campaign.ratio(campaign.gain(math.log(80), math.log(100))) == pytest.approx(0.2)
    up = Campaign((replace(made, spec=replace(made.spec, direction="maximize")),), "linear")
    assert up.ratio(up.gain(0.6, 0.5)) == pytest.approx(0.1)


def test_of_trials_that_ran_side_by_side_a_later_one_may_come_first() -> None:
    _, made = study()
    reference, *others = made.trials
    kept = {1: Verdict("kept", compared_with=2), 2: Verdict("kept", compared_with=0)}
    trials = [replace(t, verdict=kept.get(t.number, Verdict("reverted"))) for t in others]
    found = lineage(replace(made, trials=(reference, *trials)))
    assert [trial.number for trial in found] == [0, 2, 1]
    assert lineage(replace(made, trials=())) == []
