"""The ledger: records come back as they were, whatever was killed, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import optuna
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from agent.codec import RecordError, from_json, loads, to_json
from agent.ledger import Ledger, LedgerError, Owner, StudyLedger, StudySpec, rows
from agent.ledger.curve import PackedCurve, column, pack
from agent.ledger.holder import Keeper
from agent.records import (
    Budget,
    Charges,
    Edit,
    Measurement,
    Outcome,
    Proposal,
    Trial,
    Verdict,
    current_recipe,
)

SPEC = StudySpec(
    searcher="tpe",
    searcher_seed=3,
    budget=Budget(trials=20, seconds=60.0),
    task="eclip",
    training_seeds=(1, 2, 3),
    acceptance="paired",
    sandbox="bubblewrap",
    price_table={"model": {"in": 1.0, "out": 5.0}},
    versions={"optuna": "5.0.0"},
)
PROPOSAL = Proposal(
    overrides={"optimizer.lr": 1e-3, "model.layers": 2, "model.frozen": True, "loss.kind": "clip", "x": None},
    edits=(Edit("src/a.py", 'old "text"\n\ttabs', "new ünïcode \x00"),),
    base="reference",
    hypothesis="a higher rate",
    category="optimizer",
    searcher="tpe",
    route="sampler",
    params={"optimizer.lr": 1e-3, "@latent": [0.1, 0.2]},
)
ME = str(Owner.here())


def study(url: str, name: str = "first", clock: Callable[[], float] = time.time) -> StudyLedger:
    return Ledger.open(url, clock).study(name, create=SPEC)


def completed(number: int, score: float = 300.0, proposal: Proposal = PROPOSAL) -> Trial:
    measurement = Measurement(1, 0, score, {"recall_at_1": 0.17}, 20.0, 25.5, 1 << 30)
    curve = ({"step": 1.0, "loss": 3.5}, {"step": 2.0, "loss": math.inf})
    outcome = Outcome("completed", score, (measurement,), curve, log_tail="…end")
    verdict = Verdict("reverted", 0.31, 4.5, 0, 1, "not sure enough")
    return Trial(
        number, proposal, {"optimizer.lr": 1e-3}, outcome, verdict, Charges(30.0, 20.0, 0.25, 3), "c0ffee"
    )


def run_trial(ledger: StudyLedger, trial: Trial) -> Trial:
    trial = replace(trial, number=ledger.start(trial.proposal, owner=ME))
    ledger.finish(trial)
    return trial


# ------------------------------------------------------------------ records


def test_records_come_back_as_they_were(url: str) -> None:
    ledger = study(url)
    failed = replace(
        completed(0), outcome=Outcome("diverged", reason="loss is nan", log_tail="Traceback…"), verdict=None
    )
    written = [
        run_trial(ledger, completed(0)),
        run_trial(ledger, failed),
        run_trial(ledger, completed(0, 200.0)),
    ]
    assert ledger.trials() == written
    assert study(url).trials() == written
    assert study(url).spec == SPEC


def test_optuna_sees_scores_of_completed_trials_only(url: str) -> None:
    ledger = study(url)
    run_trial(ledger, completed(0, 123.5))
    run_trial(ledger, replace(completed(0), outcome=Outcome("timeout")))
    ledger.start(PROPOSAL, owner=ME)
    seen = optuna.load_study(study_name="first", storage=url).get_trials()
    assert [(t.state.name, t.value) for t in seen] == [("COMPLETE", 123.5), ("FAIL", None), ("RUNNING", None)]
    shown = {"status": "completed", "verdict": "reverted", "hypothesis": "a higher rate"}
    assert shown.items() <= seen[0].user_attrs.items()


def test_params_inside_their_distributions_are_shown(sqlite_url: str) -> None:
    ledger = study(sqlite_url)
    distributions = {
        "optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
        "steps": IntDistribution(1, 10),
        "pool": CategoricalDistribution(("cls", "mean")),
    }
    ledger.start(
        PROPOSAL,
        overrides={"optimizer.lr": 0.5},
        params={"optimizer.lr": 0.5, "steps": 3, "pool": "cls", "@latent": [1.0]},
        distributions=distributions,
        owner=ME,
    )
    assert ledger.study.trials[0].params == {"steps": 3, "pool": "cls"}
    assert ledger.trials()[0].overrides == {"optimizer.lr": 0.5}


_texts = st.text(st.characters(exclude_categories=["Cs"]))
_values = st.none() | st.booleans() | st.integers() | st.floats() | _texts


@given(st.dictionaries(_texts, _values))
def test_any_override_survives_json(overrides: dict[str, bool | int | float | str | None]) -> None:
    text = json.dumps(to_json(Proposal(overrides=overrides)), allow_nan=False)
    back = from_json(Proposal, loads(text)).overrides
    assert back.keys() == overrides.keys()
    for key, value in overrides.items():
        same = back[key] == value or (value != value and back[key] != back[key])
        assert same, (key, value, back[key])
        assert type(back[key]) is type(value)


@pytest.mark.parametrize("value", ["nan", "x", 1.0, None])
def test_a_key_that_looks_like_the_codecs_own_word_does_not_close_the_study(
    sqlite_url: str, value: float | str | None
) -> None:
    """A model's proposal, rejected for its key, is in the ledger for good: it must be possible to read it."""
    odd = Proposal({"$float": value}, claimed={"$float": value, "$$": {"$float": value}}, invalid="the key")
    ledger = study(sqlite_url)
    run_trial(ledger, replace(completed(0), proposal=odd, outcome=Outcome("rejected")))
    assert study(sqlite_url).trials()[0].proposal == odd


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"overrides": {}, "lr": 1}, "unknown key 'lr'; allowed: overrides, edits"),
        ({"base": "middle"}, "'middle' is not one of"),
        ({"edits": {}}, "expected a list"),
        ({"overrides": {"a": {}}}, "is none of bool, int, float, str, NoneType"),
        ({"hypothesis": None}, "expected a str"),
        ([], "expected an object"),
    ],
)
def test_wrong_records_are_refused_with_their_place(data: object, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        from_json(Proposal, data)


def test_numbers_of_other_libraries_are_refused() -> None:
    import numpy as np

    with pytest.raises(RecordError, match=r"record\.overrides\.lr: .* is a float32"):
        to_json(Proposal({"lr": np.float32(1.0)}))  # type: ignore[dict-item]


# ------------------------------------------------------------------ studies


def test_an_unknown_study_names_those_there(url: str) -> None:
    ledger = Ledger.open(url)
    with pytest.raises(LedgerError, match="'first' is not in the ledger; there are: none yet"):
        ledger.study("first")
    study(url, "second")
    study(url, "first")
    assert ledger.studies() == ["second", "first"]
    with pytest.raises(LedgerError, match="there are: second, first"):
        ledger.study("third")


def test_a_study_is_resumed_only_as_it_was_begun(sqlite_url: str) -> None:
    ledger = Ledger.open(sqlite_url)
    ledger.study("first", create=SPEC)
    with pytest.raises(
        LedgerError, match=r"searcher_seed is 3, asked for 4.*begin another one with study=NAME"
    ):
        ledger.study("first", create=replace(SPEC, searcher_seed=4))
    # of a budget, the keys that differ; of many, the first few
    fewer = replace(SPEC, budget=replace(SPEC.budget, trials=5))
    with pytest.raises(LedgerError, match=r"otherwise: budget\.trials is 20, asked for 5\. Ask for it"):
        ledger.study("first", create=fewer)
    with pytest.raises(LedgerError, match=r"; and 2 more\. Ask for it as it is"):
        ledger.study(
            "first", create=replace(fewer, searcher="x", searcher_seed=0, task="y", acceptance="", sandbox="")
        )
    ledger.study("of one commit", create=replace(SPEC, versions={"checkout": "12ab"}))
    with pytest.raises(
        LedgerError, match=r"begun otherwise \(by the code of commit 12ab; this is 34cd\): sear"
    ):
        ledger.study("of one commit", create=replace(SPEC, searcher_seed=4, versions={"checkout": "34cd"}))
    for _ in range(2):  # what is known by now is no change
        resumed = ledger.study("first", create=replace(SPEC, versions={"optuna": "5.0.1"}))
    [event] = resumed.events()
    assert event["event"] == "versions changed"
    assert event["before"] == {"optuna": "5.0.0"}
    back = ledger.study("first", create=SPEC).events()
    assert [(e["before"]["optuna"], e["now"]["optuna"]) for e in back[1:]] == [("5.0.1", "5.0.0")]


def test_a_study_of_someone_else_is_left_alone(sqlite_url: str) -> None:
    other = optuna.create_study(study_name="theirs", storage=sqlite_url)
    other.add_trial(optuna.trial.create_trial(value=1.0))
    ledger = Ledger.open(sqlite_url)
    with pytest.raises(LedgerError, match="not begun by this lab"):
        ledger.study("theirs", create=SPEC)
    assert ledger.studies() == []


def test_a_study_killed_between_its_two_first_writes_is_begun_again(sqlite_url: str) -> None:
    optuna.create_study(study_name="first", storage=sqlite_url)
    assert study(sqlite_url).spec == SPEC


@pytest.mark.parametrize("bad", ["runs/ledger.db", "postgresql+psycopg://kento@127.0.0.1:1/none"])
def test_a_ledger_that_does_not_open_says_why(bad: str) -> None:
    if bad.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(LedgerError, match="ledger"):
        Ledger.open(bad)


# ------------------------------------------------------------------ progress, the end, charges


def test_what_was_noted_is_charged_when_a_trial_goes_stale(url: str) -> None:
    ledger = study(url)
    number = ledger.start(PROPOSAL, overrides={"a": 1}, owner=ME)
    first, again = Measurement(1, 0, 310.0), Measurement(1, 0, 309.0)
    ledger.note(number, phase="training", charges=Charges(5.0, 4.0, 0.0, 1), measurement=first)
    ledger.note(number, charges=Charges(9.0, 8.0, 0.0, 1), measurement=again)
    ledger.note(number, phase="judging", measurement=Measurement(1, 1, 320.0))
    resumed = study(url)
    [stale] = resumed.unfinished()
    assert (stale.number, stale.proposal, stale.overrides, stale.outcome) == (0, PROPOSAL, {"a": 1}, None)
    assert stale.charges == Charges(9.0, 8.0, 0.0, 1)
    assert resumed.progress(0)["phase"] == "judging"
    assert resumed.owner(0) == Owner.here()
    ended = resumed.fail_stale(number, "the machine went down")
    assert resumed.trials() == [ended] == study(url).trials()
    assert ended.outcome == Outcome(
        "interrupted", measurements=(again, Measurement(1, 1, 320.0)), reason="the machine went down"
    )
    assert resumed.spent() == Charges(9.0, 8.0, 0.0, 1)
    assert resumed.unfinished() == []


def test_charges_never_fall(sqlite_url: str) -> None:
    ledger = study(sqlite_url)
    number = ledger.start(PROPOSAL, owner=ME)
    ledger.note(number, charges=Charges(5.0, 4.0, 1.0, 1))
    for less in (Charges(4.0, 4.0, 1.0, 1), Charges(5.0, 4.0, 0.5, 1), Charges(math.nan, 4.0, 1.0, 1)):
        with pytest.raises(LedgerError, match=r"trial 0: charges\.\w+ would fall"):
            ledger.note(number, charges=less)
        with pytest.raises(LedgerError, match=r"trial 0: charges\.\w+ would fall"):
            ledger.finish(replace(completed(number), charges=less))
    assert ledger.spent() == Charges(5.0, 4.0, 1.0, 1)


def test_an_end_is_refused_where_it_cannot_be_true(sqlite_url: str) -> None:
    ledger = study(sqlite_url)
    number = ledger.start(PROPOSAL, owner=ME)
    trial = completed(number)
    with pytest.raises(LedgerError, match="trial 7 is not in the ledger"):
        ledger.finish(replace(trial, number=7))
    with pytest.raises(LedgerError, match="has no outcome"):
        ledger.finish(replace(trial, outcome=None))
    with pytest.raises(LedgerError, match="another proposal"):
        ledger.finish(replace(trial, proposal=Proposal()))
    for score in (None, math.nan, math.inf):
        with pytest.raises(LedgerError, match="only a finite score completes"):
            ledger.finish(replace(trial, outcome=Outcome("completed", score)))
    assert [t.outcome for t in ledger.trials()] == [None]
    ledger.finish(trial)
    for late in (lambda: ledger.finish(trial), lambda: ledger.note(number, phase="again")):
        with pytest.raises(LedgerError, match="has ended and stays as it is"):
            late()
    assert ledger.trials() == [trial]


def test_planning_is_spent_too_and_events_keep_their_order(url: str) -> None:
    ledger = study(url, clock=iter(range(100, 200)).__next__)
    run_trial(ledger, completed(0))
    ledger.log("planning", charges=Charges(seconds=2.0, usd=0.5), words="ü\x00")
    for number in range(12):
        ledger.log("test set read", number=number, score=math.nan if number == 3 else 1.0)
    events = study(url).events()
    assert [e.get("number") for e in events] == [None, *range(12)]
    assert events[0] | {"charges": None} == {
        "event": "planning",
        "time": 100,
        "charges": None,
        "words": "ü\x00",
    }
    assert math.isnan(events[4]["score"])
    assert ledger.spent() == Charges(32.0, 20.0, 0.75, 3)


def _judged(number: int, decision: str, compared_with: int | None = None) -> Trial:
    verdict = Verdict(decision, compared_with=compared_with)  # type: ignore[arg-type]
    return Trial(number, Proposal(), outcome=Outcome("completed", 1.0), verdict=verdict)


def test_the_current_recipe_is_the_kept_trial_that_none_surpassed(sqlite_url: str) -> None:
    assert current_recipe([]) is None
    reference, again = _judged(0, "reference"), _judged(1, "reference")
    assert current_recipe([reference, again, _judged(2, "reverted", 0)]) == reference
    # trials 3 and 4 ran side by side: 4 was kept first, then 3 beat it
    beside = [reference, again, _judged(3, "kept", 4), _judged(4, "kept", 0), _judged(5, "reverted", 3)]
    assert current_recipe(beside) == beside[2]
    ledger = study(sqlite_url)
    assert ledger.best() is None
    run_trial(ledger, replace(completed(0), verdict=Verdict("reference")))
    kept = run_trial(ledger, replace(completed(0), verdict=Verdict("kept", compared_with=0)))
    run_trial(ledger, completed(0))
    assert ledger.best() == kept


# ------------------------------------------------------------------ owners


def test_a_second_loop_is_refused_while_the_first_lives(sqlite_url: str) -> None:
    study(sqlite_url).claim(ME)
    # a live process other than this one
    other = Owner(Owner.here().host, os.getppid(), 0.0)
    with pytest.raises(LedgerError, match=f"'first' is held by {ME}"):
        study(sqlite_url).claim(str(other))
    study(sqlite_url).claim(ME)
    study(sqlite_url).release(str(other))
    with pytest.raises(LedgerError, match="held by"):
        study(sqlite_url).claim(str(other))
    study(sqlite_url).release(ME)
    study(sqlite_url).claim(str(other))


def test_a_holder_lives_on_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set forward or back by NTP, on a laptop that wakes up say: another program must not take its study."""
    holder = Owner.here()
    boot = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot + 3)
    assert Owner.parse(str(holder)).alive() is True


def test_a_dead_holder_holds_nothing(sqlite_url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = Owner.of(process.pid)
        assert holder.alive() is True
        study(sqlite_url).claim(str(holder))
        with pytest.raises(LedgerError, match="held by"):
            study(sqlite_url).claim(ME)
        process.kill()
    assert holder.alive() is False
    study(sqlite_url).claim(ME)
    # the same pid given out again is another process
    assert replace(Owner.here(), started=1.0).alive() is False


def test_a_holder_on_another_machine_is_believed_for_its_lease(url: str) -> None:
    ledger, far = study(url), "elsewhere@12ab:17:12.50"
    assert Owner.parse(far).alive() is None
    ledger.claim(far)
    with pytest.raises(LedgerError, match="held by elsewhere@12ab:17") as refusal:
        ledger.claim(ME)
    assert "for another 60 s" in str(refusal.value)
    ledger.heartbeat(far, lease_seconds=-1.0)  # and then nothing for a whole lease
    ledger.claim(ME)
    with pytest.raises(LedgerError, match=f"no longer held by {far}.*{ME} holds it"):
        ledger.heartbeat(far)
    ledger.release(far)
    assert ledger.holder().owner == ME


def test_of_two_machines_that_claim_at_once_one_is_refused(url: str) -> None:
    ledgers = [study(url) for _ in range(8)]
    start, won, lost = threading.Barrier(8), [], []

    def claim(number: int) -> None:
        start.wait()
        try:
            ledgers[number].claim(f"machine{number}@0:1:1.00")
            won.append(number)
        except LedgerError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 7
    assert all(f"held by machine{won[0]}@0" in refusal for refusal in lost)


def test_two_containers_of_one_name_are_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Owner.here()
    assert here.host.startswith(f"{socket.gethostname()}@")
    assert here.machine == socket.gethostname()
    assert replace(here, host=f"{socket.gethostname()}@other").alive() is None


def test_a_dead_machines_trial_is_charged_until_it_was_last_seen(url: str) -> None:
    ledger, far = study(url), "elsewhere@12ab:17:12.50"
    ledger.claim(far)
    running, waiting = (ledger.start(PROPOSAL, owner=far) for _ in range(2))
    for number in (running, waiting):
        ledger.note(number, charges=Charges(5.0), phase="seed 0, fold 1 of 3", waits=number == waiting)
    noted = ledger.progress(running)["at"]
    ledger.heartbeat(far, lease_seconds=-1.0)
    seen = ledger.holder().at
    ledger.claim(ME)
    used = [ledger.fail_stale(number, "its machine died").charges.seconds for number in (running, waiting)]
    assert used == [pytest.approx(5.0 + seen - noted), 5.0]
    assert used[0] > 5.0


def test_a_holder_that_lost_its_study_is_told(url: str) -> None:
    ledger, told = study(url), threading.Event()
    far = "elsewhere@12ab:17:12.50"
    ledger.claim(far)
    with Keeper(lambda: ledger.heartbeat(far), lambda why: told.set(), every=0.01):
        ledger.release(far)
        ledger.claim(ME)
        assert told.wait(10)


@pytest.mark.parametrize("text", ["", "host:12", "host:x:1.0", "host:1:y"])
def test_an_owner_is_host_pid_and_start(text: str, sqlite_url: str) -> None:
    with pytest.raises(ValueError, match="is not host:pid:start time"):
        Owner.parse(text)
    with pytest.raises(LedgerError, match="is not host:pid:start time"):
        study(sqlite_url).start(PROPOSAL, owner=text)


# ------------------------------------------------------------------ curves

_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_points = st.dictionaries(_names, st.floats(allow_nan=False), max_size=4)


@given(st.lists(_points, max_size=6))
def test_any_curve_comes_out_of_its_pack_as_it_went_in(points: list[dict[str, float]]) -> None:
    """Also where points lack what others have, or have nothing."""
    lies = json.loads(json.dumps(pack(points), allow_nan=False))
    curve = PackedCurve(lies) if lies else ()
    assert list(curve) == points
    assert len(curve) == len(points)
    assert [point.keys() for point in curve] == [point.keys() for point in points]
    assert pack(curve) == lies
    for name in {name for point in points for name in point} | {"?"}:
        assert column(lies, name) == column(points, name)


def test_a_curve_lies_packed_and_is_unpacked_by_who_looks_at_it(url: str) -> None:
    ledger = study(url)
    points = tuple(
        {"fold": float(i // 200), "step": float(i % 200), "loss": round(3 / (i % 200 + 1), 5)}
        for i in range(600)
    )
    trial = completed(0)
    assert trial.outcome
    number = run_trial(ledger, replace(trial, outcome=replace(trial.outcome, curve=points))).number
    stored = study(url).study.get_trials()[number].user_attrs["result"]["outcome"]["curve"]
    assert len(json.dumps(stored)) < len(json.dumps(points)) / 4
    read = study(url).trials()[number].outcome
    assert read
    assert read.curve == points
    assert tuple(read.curve) == points
    assert read.curve[0] == points[0]
    assert read.curve[-2:] == list(points[-2:])
    # as the loop notes it before a commit, for whoever resumes a study that was killed right after it
    noted = replace(trial, outcome=read, commit="")
    again = ledger.start(PROPOSAL, owner=ME)
    ledger.note(again, decided=rows.packed(noted))
    assert rows.unpacked(ledger.progress(again)["decided"]) == noted
    # as JSON for programs it is what it was, and in another study's ledger, too
    assert to_json(read)["curve"] == list(points)
    other = study(url, "second")
    assert run_trial(other, replace(trial, outcome=read)) == study(url, "second").trials()[0]


def test_curves_of_earlier_ledgers_read_as_they_did(url: str) -> None:
    """They lie in the row as points."""
    ledger = study(url)
    trial = replace(completed(0), number=ledger.start(PROPOSAL, owner=ME))
    parts = ("overrides", "outcome", "verdict", "charges", "commit")
    ledger._write(trial.number, "result", {name: to_json(getattr(trial, name)) for name in parts})
    ledger.unfinished()
    assert study(url).trials() == [trial]
    assert study(url).trials()[0].outcome.curve == trial.outcome.curve  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-8], "damaged curve: loss: "),
        (lambda text: "ü" + text, "damaged curve: loss: "),
        (lambda text: pack([{"loss": 1.0}])["packed"]["loss"], "damaged curve: loss: 1 of 2 points"),
    ],
)
def test_a_damaged_curve_is_named_by_who_looks_at_it(damage: Callable[[str], str], message: str) -> None:
    data = pack([{"loss": 1.0, "step": 0.0}, {"loss": 2.0, "step": 1.0}])
    data["packed"]["loss"] = damage(data["packed"]["loss"])
    curve = PackedCurve(data)
    assert curve.column("step") == [0.0, 1.0]
    with pytest.raises(RecordError, match=message):
        list(curve)


# ------------------------------------------------------------------ kill -9, and several at once

# the server imports this module once; its forks then start in milliseconds, with no thread of pytest's
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.agent.test_ledger"])


def work(url: str, name: str, count: int, said: Connection) -> None:
    """What a loop writes, saying so after each write."""
    ledger = study(url, name)
    me = str(Owner.here())
    for index in range(count):
        proposal = replace(PROPOSAL, hypothesis=f"{me}, {index}")
        number = ledger.start(proposal, overrides={"a": 1}, owner=me)
        said.send(("started", number, 0.0))
        for seconds in (1.0, 2.0):
            charges = Charges(seconds, runs=1)
            ledger.note(number, phase="run", charges=charges, measurement=Measurement(1, 0, 1.0))
            said.send(("noted", number, seconds))
        trial = completed(number, 300.0 - number, proposal)
        ledger.finish(replace(trial, charges=Charges(3.0, runs=1)))
        said.send(("finished", number, 3.0))
    said.close()


def begin(url: str, name: str, count: int) -> tuple[BaseProcess, Connection]:
    heard, said = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=work, args=(url, name, count, said))
    process.start()
    said.close()
    return process, heard


def rest(heard: Connection) -> list[tuple[str, int, float]]:
    """What was said before the other end went away."""
    words = []
    with contextlib.suppress(EOFError):
        while True:
            words.append(heard.recv())
    return words


@pytest.mark.parametrize("seed", range(5))
def test_kill_9_leaves_every_trial_accounted_for(seed: int, url: str) -> None:
    """Killed at a random moment after a random number of writes: what a process was told, the ledger has."""
    chance = random.Random(seed)
    for _ in range(2):
        process, heard = begin(url, "killed", 1000)
        said = [heard.recv() for _ in range(chance.randrange(1, 20))]
        # from the last word heard to anywhere within the next write or two
        time.sleep(chance.random() * 0.02)
        process.kill()
        said += rest(heard)
        process.join()
        _account(study(url, "killed"), said)


def _account(ledger: StudyLedger, said: list[tuple[str, int, float]]) -> None:
    numbers = [trial.number for trial in ledger.trials()]
    assert numbers == list(range(len(numbers)))
    stale = ledger.unfinished()
    assert len(stale) <= 1
    by_number = {trial.number: trial for trial in ledger.trials()}
    for word, number, seconds in said:
        assert by_number[number].charges.seconds >= seconds, (word, number)
        if word == "finished":
            assert by_number[number].outcome == completed(0, 300.0 - number).outcome
    for trial in stale:
        assert ledger.owner(trial.number).alive() is False
        ledger.fail_stale(trial.number, "killed")
    ended = ledger.trials()
    assert all(trial.outcome is not None for trial in ended)
    assert ledger.spent() == sum((trial.charges for trial in ended), Charges())
    assert all(t.charges.seconds == 3.0 for t in ended if t.outcome and t.outcome.status == "completed")
    assert all(t.charges.seconds < 3.0 for t in ended if t.outcome and t.outcome.status == "interrupted")


@pytest.mark.parametrize("writes", range(1, 5))
def test_a_death_between_any_two_writes_of_an_end_is_mended(
    writes: int, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`finish` writes three attributes and the state; a process that dies after each of them in turn."""
    ledger = study(sqlite_url)
    number = ledger.start(PROPOSAL, owner=ME)
    trial = completed(number)
    done = 0

    def dying(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal done
            if done == writes:
                raise KeyboardInterrupt
            done += 1
            return method(*arguments, **options)

        return call

    storage = ledger.study._storage
    monkeypatch.setattr(storage, "set_trial_user_attr", dying(storage.set_trial_user_attr))
    monkeypatch.setattr(storage, "set_trial_state_values", dying(storage.set_trial_state_values))
    if writes < 4:
        with pytest.raises(KeyboardInterrupt):
            ledger.finish(trial)
    else:
        ledger.finish(trial)
    resumed = study(sqlite_url)
    stale = resumed.unfinished()
    if writes < 3:
        assert [t.number for t in stale] == [number]
        resumed.finish(trial)
    else:
        assert stale == []
    assert study(sqlite_url).trials() == [trial]
    assert resumed.study.trials[0].value == 300.0


def test_four_processes_write_one_study(url: str) -> None:
    """They also create the database at the same time."""
    running = [begin(url, "shared", 6) for _ in range(4)]
    for process, heard in running:
        rest(heard)
        process.join()
        assert process.exitcode == 0
    trials = study(url, "shared").trials()
    assert [trial.number for trial in trials] == list(range(24))
    assert all(trial.outcome and trial.outcome.score == 300.0 - trial.number for trial in trials)
    assert study(url, "shared").spent() == Charges(72.0, runs=24)


def test_events_of_several_processes_are_all_kept(sqlite_url: str) -> None:
    first, second = study(sqlite_url), study(sqlite_url)
    for number in range(5):
        first.log("one", number=number)
        second.log("two", number=number)
    assert len(study(sqlite_url).events()) == 10


def test_the_ledger_stays_fast(sqlite_url: str) -> None:
    """One more trial, its history read, its recipe found: a fraction of the 0.5 s that a loop may take.

    Processor time, as machines are shared.
    """
    ledger = study(sqlite_url)
    for _ in range(40):
        run_trial(ledger, completed(0))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        run_trial(ledger, completed(0))
        assert len(ledger.trials()) > 40
        assert ledger.best() is None
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.25
