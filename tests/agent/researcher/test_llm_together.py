"""A round for several trials that run side by side: each distinct and checked, the cost shared to the last digit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.desk import Desk
from agent.records import Budget, Charges, Outcome, Proposal, Trial, Verdict
from agent.searchers.base import pending
from agent.workdesk import WorkDesk
from tests.agent.researcher.messages_server import MessagesServer, Play, call, fails, says, text
from tests.agent.researcher.study import ToyDesk, proposes, researcher
from tests.agent.study import toy_loop

DONE = says(text("These are all."))


def trial(lr: float, **fields: Any) -> dict[str, Any]:
    return call("propose_trial", proposes(lr, **fields), f"toolu_{lr}_{len(str(fields))}")


def ask(desk: ToyDesk, count: int, *plays: Play, **options: Any) -> tuple[list[Proposal], MessagesServer]:
    if not (desk.folder / "plan.md").exists():
        (desk.folder / "plan.md").write_text("---\ntrial: 0\nphase: tuning\nreason: start\n---\n1. try\n")
    with MessagesServer(plays) as server:
        found = researcher(desk, server, **options).ask_many(desk.history(), count)
    assert server.problems == []
    return found, server


def rates(found: list[Proposal]) -> list[Any]:
    return [proposal.overrides.get("optimizer.lr") for proposal in found]


def last_of(server: MessagesServer) -> str:
    return json.dumps(server.requests[-1]["messages"][-1], ensure_ascii=False)


def test_one_reply_fills_every_place(tmp_path: Path) -> None:
    three = says(trial(1e-3), trial(2e-3), trial(4e-3, category="loss"))
    found, server = ask(ToyDesk(tmp_path), 3, three)
    assert rates(found) == [1e-3, 2e-3, 4e-3]
    assert {(p.searcher, p.route, p.phase) for p in found} == {("claude", "llm", "tuning")}
    assert len(server.requests) == 1
    assert "3 places are free" in last_of(server)


def test_fewer_are_welcome_and_one_after_the_other_is_too(tmp_path: Path) -> None:
    found, server = ask(ToyDesk(tmp_path), 4, says(trial(1e-3)), says(trial(2e-3)), DONE)
    assert rates(found) == [1e-3, 2e-3]
    assert "accepted; up to 2 more may run beside it" in last_of(server)


def test_the_same_experiment_twice_is_refused_with_the_reason(tmp_path: Path) -> None:
    same = trial(1e-3, category="other")
    found, server = ask(ToyDesk(tmp_path), 2, says(trial(1e-3), same), says(trial(2e-3)))
    assert "the same as another proposal of this round" in last_of(server)
    assert rates(found) == [1e-3, 2e-3]


def test_a_bad_one_costs_the_others_nothing(tmp_path: Path) -> None:
    bad = call("propose_trial", proposes(overrides={"data.root": "/"}))
    found, server = ask(ToyDesk(tmp_path), 3, says(trial(1e-3), bad, trial(2e-3)), says(trial(3e-3)))
    assert rates(found) == [1e-3, 2e-3, 3e-3]
    assert last_of(server).count("is_error") == 1


def test_three_failed_tries_are_one_rejected_trial_beside_the_accepted(tmp_path: Path) -> None:
    bad = says(call("propose_trial", proposes(overrides={"data.root": "/"})))
    found, _ = ask(ToyDesk(tmp_path), 3, bad, bad, says(trial(1e-3)), bad, bad, bad)
    assert rates(found) == [1e-3, None]
    assert found[1].invalid.count("data.root") == 3
    nothing, _ = ask(ToyDesk(tmp_path), 3, bad, bad, bad)
    assert len(nothing) == 1
    assert nothing[0].invalid


def test_more_than_there_is_room_for_is_refused_as_a_whole(tmp_path: Path) -> None:
    found, server = ask(
        ToyDesk(tmp_path), 2, says(trial(1e-3), trial(2e-3), trial(3e-3)), says(trial(5e-3)), DONE
    )
    assert "may be called 2 times in all" in json.dumps(server.requests[1]["messages"][-1])
    assert rates(found) == [5e-3]


def test_rules_count_what_is_proposed_and_what_runs(tmp_path: Path) -> None:
    """Three of one category in a row is the most, whether they have ended, run, or were just proposed."""
    desk = ToyDesk(tmp_path)
    desk.trials.append(pending(desk.trials, Proposal({"optimizer.lr": 9e-3}, category="optimisation")))
    three = says(trial(1e-3), trial(2e-3), trial(3e-3))
    found, server = ask(desk, 3, three, says(trial(3e-3, category="loss")))
    assert "choose another category" in last_of(server)
    assert [proposal.category for proposal in found] == ["optimisation", "optimisation", "loss"]
    assert (
        "# Running now, beside what you propose" in server.requests[0]["messages"][0]["content"][-1]["text"]
    )
    assert (
        "1 | optimisation | optimizer.lr=0.009 | " in server.requests[0]["messages"][0]["content"][-1]["text"]
    )


def test_a_round_does_not_reach_into_the_next_phase(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path, budget=Budget(trials=20, seconds=60))
    for number in range(1, 6):
        outcome, verdict = Outcome("completed", 400.0), Verdict("reverted", 0.1, 3.0, 0)
        desk.trials.append(Trial(number, Proposal({"trainer.batch_size": number}), {}, outcome, verdict))
    found, server = ask(desk, 8, says(trial(1e-3), trial(2e-3)))  # tuning is the first 7 of 20
    assert len(found) == 2
    assert "2 places are free" in last_of(server)


@pytest.mark.parametrize(
    "trouble", [[fails(529)] * 2, [fails(401, "authentication_error")]], ids=["down", "key"]
)
def test_what_was_accepted_outlives_an_outage(tmp_path: Path, trouble: list[Play]) -> None:
    found, _ = ask(ToyDesk(tmp_path), 3, says(trial(1e-3)), *trouble, backoff={"attempts": 2})
    assert rates(found) == [1e-3]


def test_a_note_that_is_too_long_does_not_cost_the_trial(tmp_path: Path) -> None:
    """A single trial, too: what was accepted stands, and the note can be shortened."""
    long, short = call("write_scratchpad", {"text": "x" * 7000}), call("write_scratchpad", {"text": "short"})
    found, server = ask(ToyDesk(tmp_path), 1, says(long, trial(1e-3)), says(short, trial(2e-3)))
    assert rates(found) == [1e-3]
    assert "not needed: what was accepted stands" not in json.dumps(server.requests[-1])
    assert (tmp_path / "scratchpad.md").read_text() == "short"


def test_shares_add_up_to_the_whole() -> None:
    whole = Charges(seconds=100.1, usd=0.1 + 0.2)
    for count in range(1, 9):
        assert sum(whole.shares(count), Charges()) == whole
        assert whole.shares(count)[0].usd == pytest.approx(whole.usd / count)


def test_a_shared_round_is_charged_once_even_if_the_process_dies_half_way(tmp_path: Path) -> None:
    """Two of three trials were charged when the process was killed: a new desk owes the third share alone."""
    with toy_loop(tmp_path, []) as loop:

        def desk() -> WorkDesk:
            return WorkDesk(loop.ledger, loop.workspace, loop.space, loop.experiment.runner, loop.folder)

        first = desk()
        for usd in (0.1, 0.2):
            first.log("llm call", usd=usd, seconds=1.5)
            first.charge(usd, 1.5)
        shares = first.pending.shares(3)
        for number in (1, 2):
            first.settle(number, shares[number - 1])
        second: Desk = desk()
        assert isinstance(second, WorkDesk)
        assert second.pending == first.pending
        assert second.pending.usd == pytest.approx(0.1)
        second.settle(3, shares[2])
        assert desk().pending == Charges()


def test_the_real_desk_knows_the_same_experiment_by_its_complete_settings(tmp_path: Path) -> None:
    with toy_loop(tmp_path, [], trials=1, seconds=6.0) as loop:
        loop.run()
        desk = WorkDesk(loop.ledger, loop.workspace, loop.space, loop.experiment.runner, loop.folder)
        one, other = Proposal({"optimizer.lr": 0.3}), Proposal({"optimizer.lr": 0.2})
        longhand = replace(
            one, overrides={"optimizer.lr": 0.3, "optimizer.steps": loop.space.defaults["optimizer.steps"]}
        )
        assert desk.check(one, [other]) is None
        assert re.search("another proposal of this round", desk.check(longhand, [other, one]) or "")
