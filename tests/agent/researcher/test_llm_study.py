"""Whole studies: a scripted model walks a known path through keep, revert, crash, repair, edit, plan and phases."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.records import Budget
from agent.researcher.failures import LLMUnavailable
from tests.agent.researcher.messages_server import (
    CUT_SHORT,
    MessagesServer,
    Play,
    call,
    fails,
    page,
    says,
    text,
)
from tests.agent.researcher.study import ToyDesk, plans, proposes, researcher

EDIT = {"path": "src/loss.py", "old": "error * error", "new": "abs(error"}


class Model:
    """Plays by the trial's number, whatever was asked before: so a repeated round gets the same answers."""

    def __init__(self, edit_at: int = 4) -> None:
        self.planned: list[int] = []
        self.edit_at = edit_at
        self.path = {
            1: proposes(overrides={"model.logit_scale.max": 100.0}, category="loss"),  # kept
            2: proposes(1e-2),  # no gain: reverted
            3: proposes(overrides={"trainer.batch_size": 96}, category="data"),  # kept
            edit_at: proposes(
                overrides={}, edits=[EDIT], category="loss"
            ),  # fails its first step, then mended
        }

    def __call__(self, request: dict[str, Any]) -> Play:
        now = request["messages"][0]["content"][-1]["text"]
        number = int(now.partition("Trial ")[2].split()[0])
        if "planning call" in now:
            self.planned.append(number)
            return says(call("revise_plan", plans(f"plan of trial {number}")))
        if number == 2 and len(request["messages"]) == 1:
            return says(text("First a note."), call("write_scratchpad", {"text": "The limit was the bug."}))
        if number == self.edit_at and len(request["messages"]) > 1:
            mended = [EDIT | {"new": "abs(error)"}]
            return says(call("propose_trial", proposes(overrides={}, edits=mended, category="loss")))
        given = self.path.get(number) or proposes(
            overrides={"trainer.batch_size": 96 + number}, category=("data", "other")[number % 2]
        )
        return says(call("propose_trial", given))


def play(desk: ToyDesk, server: MessagesServer, until: int) -> None:
    searcher = researcher(desk, server)
    while len(desk.trials) <= until:
        trial = desk.run(searcher.ask(desk.history()))
        searcher.tell(trial)


def test_a_study_keeps_reverts_repairs_edits_plans_and_changes_phase(tmp_path: Path) -> None:
    desk, model = ToyDesk(tmp_path, budget=Budget(trials=10, seconds=60)), Model()
    with MessagesServer(model) as server:
        play(desk, server, 10)
    assert server.problems == []
    decisions = [trial.verdict.decision for trial in desk.trials if trial.verdict]
    assert decisions[:5] == ["reference", "kept", "reverted", "kept", "kept"]
    assert desk.trials[4].proposal.edits[0].new == "abs(error)"
    assert [len(desk.tried_out), desk.tried_out[0].edits[0].new] == [2, "abs(error"]
    phases = Counter(trial.proposal.phase for trial in desk.trials[1:])
    assert list(phases) == ["tuning", "expert mechanism", "architecture", "advanced training", "bold ideas"]
    assert model.planned == [1, 4, 6, 8, 10]  # the start, and each phase's first trial
    assert (tmp_path / "scratchpad.md").read_text() == "The limit was the bug."
    assert "plan of trial 10" in (tmp_path / "plan.md").read_text()
    for number in range(1, 11):
        assert (tmp_path / str(number) / "round.jsonl").stat().st_size > 1000
    spent = sum(data["usd"] for name, data in desk.events if name == "llm call")
    assert desk.calls_usd == pytest.approx(spent)
    assert spent > 0


def test_a_study_that_is_killed_and_resumed_sends_what_an_undisturbed_one_sends(tmp_path: Path) -> None:
    """A kill in the middle of a round: the process is gone after the model's first reply in the round of trial 4."""
    budget = Budget(trials=10, seconds=60)
    whole, broken = ToyDesk(tmp_path / "a", budget), ToyDesk(tmp_path / "b", budget)
    with MessagesServer(Model()) as undisturbed:
        play(whole, undisturbed, 6)

    class Killed(BaseException):
        pass

    class Killer(Model):
        alive = True

        def __call__(self, request: dict[str, Any]) -> Play:
            answer = super().__call__(request)
            if self.alive and "Trial 4 is next" in str(request) and len(request["messages"]) > 1:
                self.alive = False
                broken.try_out = lambda proposal: (_ for _ in ()).throw(Killed())  # type: ignore[method-assign]
            return answer

    with MessagesServer(Killer()) as server:
        with pytest.raises(Killed):
            play(broken, server, 6)
        del broken.try_out
        play(broken, server, 6)
    assert [t.proposal for t in broken.trials] == [t.proposal for t in whole.trials]
    assert [t.verdict for t in broken.trials] == [t.verdict for t in whole.trials]
    last = [json.dumps(server.requests[-1]["messages"]) for server in (undisturbed, server)]
    assert last[0] == last[1]


def test_with_the_server_down_half_of_the_time_twelve_trials_are_charged(tmp_path: Path) -> None:
    chance, model = random.Random(7), Model(edit_at=6)
    desk = ToyDesk(tmp_path, budget=Budget(trials=12, seconds=60))
    troubles = [fails(529), fails(500), fails(429, retry_after="3"), page(), CUT_SHORT, Play(body=b"{")]

    def flaky(request: dict[str, Any]) -> Play:
        return chance.choice(troubles) if chance.random() < 0.5 else model(request)

    pauses = 0
    with MessagesServer(flaky) as server:
        searcher = researcher(desk, server, backoff={"attempts": 2})
        while len(desk.trials) <= 12:
            try:
                desk.run(searcher.ask(desk.history()))
            except LLMUnavailable:
                pauses += 1
    assert [trial.number for trial in desk.trials] == list(range(13))
    assert not any(trial.proposal.invalid for trial in desk.trials)
    assert pauses > 0
    assert len([1 for name, _ in desk.events if name == "llm trouble"]) > 5
