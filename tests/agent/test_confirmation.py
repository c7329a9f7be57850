"""Winners of toy studies, trained again: fresh seeds, longer budgets, the test set once; killed and resumed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

import agent.ledger.study
from agent.checkout import CheckoutChanged
from agent.composition import composed_file
from agent.confirmation import Confirmation
from agent.interrupt import on_interrupt
from agent.ledger import Ledger, LedgerError, Owner
from agent.report import load
from agent.report.comparison import finals
from agent.retraining import RetrainingError, Stopped, confirmed, open_retraining
from agent.sandbox import Bubblewrap
from tests.agent.campaign import ledger_of, toy_room
from tests.agent.study import toy_loop
from tests.fake_task import host

SEEDS, FACTORS = [100, 101], [1, 4]
GOOD = {"overrides": {"optimizer.lr": 0.1}}
# works on the search's seeds only
LUCKY = {
    "overrides": {"optimizer.lr": 0.11},
    "edits": [
        {
            "path": "src/toy/model.py",
            "old": "random = np.random.default_rng(seed)",
            "new": "random = np.random.default_rng(seed if seed < 100 else 'none')",
        }
    ],
}
EDITED = {
    "overrides": {"optimizer.lr": 0.12},
    "edits": [{"path": "src/toy/model.py", "old": "0.1 * random", "new": "0.0 * random"}],
}


def studies(folder, **proposals):
    for name, given in proposals.items():
        with toy_loop(folder, given, name=name, folds=(0,)) as loop:
            loop.run()
    return [ledger_of(folder, name) for name in proposals]


def events(ledger, name):
    return [event for event in ledger.events() if event["event"] == name]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two studies with different winners, one that kept nothing, one that failed on fresh seeds; in the sandbox."""
    folder, said = tmp_path_factory.mktemp("confirm"), []
    ledgers = studies(folder, edited=[EDITED], nothing=[], twin=[EDITED], lucky=[LUCKY])
    room = toy_room(folder)
    room.sandbox = Bubblewrap()
    confirmation = Confirmation(room, ledgers, SEEDS, FACTORS, say=said.append)
    confirmation.measure()
    confirmation.read_test()
    return folder, confirmation, dict(zip(("edited", "nothing", "twin", "lucky"), ledgers, strict=True)), said


def test_winner_and_reference_are_measured_on_every_seed_under_every_budget(done):
    ledger = done[2]["edited"]
    for trial, role in ((0, "reference"), (1, "winner")):
        for factor in FACTORS:
            assert set(confirmed(ledger, trial, factor)) == {(seed, 0) for seed in SEEDS}
        assert {e["role"] for e in events(ledger, "confirmed") if e["trial"] == trial} == {role}
    better = [confirmed(ledger, trial, 1)[100, 0].score for trial in (1, 0)]
    assert better[0] < better[1]


def test_the_winners_code_is_what_runs(done):
    folder, _, ledgers, _ = done
    commit = ledgers["edited"].lineage()[-1].commit
    code = folder / "runs" / "edited" / "code" / commit[:16]
    assert "0.0 * random" in (code / "src" / "toy" / "model.py").read_text()


def test_four_times_the_budget_means_four_times_the_steps(done):
    folder = done[0] / "runs" / "edited" / "confirm"
    for factor, steps in zip(FACTORS, (30, 120), strict=True):
        config = json.loads((folder / f"trial0000-x{factor}-seed100-fold0/run/config.yaml").read_text())
        assert config["optimizer"]["steps"] == steps


def test_the_same_recipe_is_measured_once_for_all_studies_and_charged_once(done):
    ledgers = done[2]
    for trial in (0, 1):
        assert confirmed(ledgers["twin"], trial, 1) == confirmed(ledgers["edited"], trial, 1)
    assert {event.get("measured_in") for event in events(ledgers["twin"], "confirmed")} == {"edited"}
    assert not any("charges" in event for event in events(ledgers["twin"], "confirmed"))
    assert all(event["charges"]["runs"] == 1 for event in events(ledgers["edited"], "confirmed"))


def test_a_study_that_kept_nothing_is_represented_by_the_reference(done):
    assert {event["role"] for event in events(done[2]["nothing"], "confirmed")} == {"reference"}


def test_a_recipe_that_fails_on_a_fresh_seed_is_a_result(done):
    failed = [event["failed"] for event in events(done[2]["lucky"], "confirmed") if "failed" in event]
    assert [(item["seed"], item["status"]) for item in failed] == [(100, "crashed"), (101, "crashed")] * 2
    assert any("crashed" in line for line in done[3])


def test_the_test_set_is_read_once_by_each_winner(done):
    ledgers = done[2]
    for name in ("edited", "nothing", "twin"):
        [read] = events(ledgers[name], "test_read")
        assert read["metrics"]["mean_rank"] > 0
        assert read["again"] is False
    assert events(ledgers["twin"], "test_read")[0]["measured_in"] == "edited"
    assert len(events(ledgers["edited"], "test_opened")) == 1
    assert not events(ledgers["lucky"], "test_read")
    assert events(ledgers["lucky"], "test_failed")[0]["status"] == "crashed"
    edited, nothing = (
        events(ledgers[name], "test_read")[0]["metrics"]["mean_rank"] for name in ("edited", "nothing")
    )
    assert edited < nothing


def test_what_is_measured_already_is_not_measured_again(done):
    _, confirmation, ledgers, _ = done
    before = {name: len(ledger.events()) for name, ledger in ledgers.items()}
    confirmation.measure()
    assert {name: len(ledger.events()) for name, ledger in ledgers.items()} == before


def test_the_report_sees_every_confirmation(done):
    folder, _, _, _ = done
    campaign = load(Ledger.open(f"sqlite:///{folder}/ledger.db"), ["edited", "nothing", "twin"])
    for factor in FACTORS:
        edited, nothing, twin = finals(campaign, factor)
        assert edited.seeds == twin.seeds == len(SEEDS)
        assert edited.confirmed == twin.confirmed
        assert nothing.confirmed == 0
    assert finals(campaign)[0].confirmed > 0


def test_a_second_read_is_refused_unless_asked_for_and_marked(done):
    _, confirmation, ledgers, said = done
    only = Confirmation(confirmation.room, [ledgers["edited"]], SEEDS, say=said.append)
    only.read_test()
    assert len(events(ledgers["edited"], "test_read")) == 1
    assert "again=true" in said[-1]
    only.read_test(again=True)
    first, second = events(ledgers["edited"], "test_read")
    assert (first["again"], second["again"]) == (False, True)
    assert first["metrics"] == second["metrics"]


def test_a_twin_shares_its_winners_test_scores_and_no_earlier_ones(tmp_path):
    """The first study had its test set read, went on, and has the winner of the second by now."""
    ledgers = studies(tmp_path, first=[GOOD], second=[GOOD])
    ledgers[0].log("test_read", trial=0, metrics={"mean_rank": 1.5}, again=False)
    Confirmation(toy_room(tmp_path), ledgers, SEEDS, [1], say=str).read_test()
    [read] = events(ledgers[1], "test_read")
    assert read["metrics"]["mean_rank"] != 1.5
    assert "measured_in" not in read


def test_stopped_at_any_run_it_goes_on_where_it_was(tmp_path):
    [ledger] = studies(tmp_path, s=[GOOD])
    sittings, said = 0, []
    while True:
        room = toy_room(tmp_path)
        sittings += 1

        def stop_after_two(text, room=room):
            said.append(text)
            if len(said) % 2 == 0:
                room.stop.set()

        try:
            Confirmation(room, [ledger], SEEDS, [1], say=stop_after_two).measure()
            break
        except Stopped:
            assert ledger.holder() is None
    assert sittings > 1
    assert len(events(ledger, "retraining_stopped")) == sittings - 1
    keys = [(e["trial"], e["measurements"][0]["seed"]) for e in events(ledger, "confirmed")]
    assert len(keys) == len(set(keys)) == 2 * len(SEEDS)
    assert len(events(ledger, "confirming")) == 1


def test_earlier_recipes_can_be_confirmed_too(tmp_path):
    [ledger] = studies(tmp_path, s=[{"overrides": {"optimizer.lr": 0.03}}, GOOD])
    assert len(ledger.lineage()) == 3
    Confirmation(toy_room(tmp_path), [ledger], [100], [1], trials={"s": [1]}, say=str).measure()
    assert all(confirmed(ledger, trial, 1) for trial in (0, 1, 2))
    with pytest.raises(RetrainingError, match=r"\[7\] are not in the recipe's lineage"):
        Confirmation(toy_room(tmp_path), [ledger], [100], [1], trials={"s": [7]}).measure()


def test_what_cannot_be_confirmed_is_refused(done, tmp_path):
    folder, _, ledgers, _ = done
    room = toy_room(folder)
    with pytest.raises(RetrainingError, match=r"seeds \[1\] were used by the search in edited"):
        Confirmation(room, [ledgers["edited"]], [1, 100])
    with pytest.raises(RetrainingError, match="different training seeds"):
        Confirmation(room, [ledgers["edited"]], [100, 100])
    with toy_loop(tmp_path, [], name="open", folds=(0,)) as loop:
        steps = loop.steps()
        next(steps)
        steps.close()
        with pytest.raises(RetrainingError, match="has not ended"):
            Confirmation(toy_room(tmp_path), [loop.ledger], SEEDS)


def test_a_checkout_that_refuses_the_study_by_now_says_what_to_do(done, monkeypatch):
    def newer(config):
        raise ValueError("trainer.num_nodes is missing; give it a value")

    monkeypatch.setattr(host, "check", newer)
    folder, _, ledgers, _ = done
    commit = ledgers["edited"].lineage()[0].commit
    said = f"study edited was begun at commit {commit}(.|\n)*num_nodes is missing(.|\n)*--detach {commit}\\)"
    with pytest.raises(CheckoutChanged, match=said):
        Confirmation(toy_room(folder), [ledgers["edited"]], [200]).measure()


def test_a_study_that_a_loop_works_on_is_left_alone(done):
    """PID 1 lives; a process that works on the study is not overrun, and nothing stays claimed."""
    folder, _, ledgers, _ = done
    holder = str(Owner.of(1))
    ledgers["nothing"].claim(holder)
    with pytest.raises(LedgerError, match="is held by"):
        Confirmation(toy_room(folder), [ledgers["edited"], ledgers["nothing"]], SEEDS).measure()
    ledgers["nothing"].release(holder)
    assert ledgers["edited"].holder() is None


def test_what_another_machine_has_taken_over_is_not_written_to(tmp_path, monkeypatch):
    [ledger] = studies(tmp_path, s=[GOOD])
    monkeypatch.setattr(agent.ledger.study, "LEASE_SECONDS", 0.1)
    room, far, before = toy_room(tmp_path), "elsewhere@12ab:17:12.50", []

    def taken_over(text):
        ledger.release(str(Owner.here()))
        ledger.claim(far)
        assert room.stop.wait(10)
        before.extend(ledger.events())

    with pytest.raises(LedgerError, match=f"no longer held by .*; {far} holds it"):
        Confirmation(room, [ledger], SEEDS, [1], say=taken_over).measure()
    assert ledger.events() == before
    assert len(events(ledger, "confirmed")) == 1
    assert ledger.holder().owner == far


def test_the_fork_server_ends_with_the_retraining():
    root = Path(__file__).parents[2]
    words = "searcher_name=any budget_name=any study=any sandbox=bubblewrap"
    config = composed_file(root / "configs", "confirm", words.split())
    others = psutil.Process().children()  # of tests before this one
    with ExitStack() as stack:
        room = open_retraining(config, root, stack)
        assert room.sandbox.name == "bubblewrap"
        [server] = set(psutil.Process().children()) - set(others)
    assert not server.is_running()


def test_the_first_interrupt_asks_to_stop_and_the_second_ends(capsys):
    asked, before = [], signal.getsignal(signal.SIGINT)
    try:
        on_interrupt(lambda: asked.append(True), "the run under way")
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [True]
        assert "the run under way is charged" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
