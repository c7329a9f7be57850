"""Plans: made at the start, at a phase's beginning and on a plateau; by one call, or by advisors and a merge."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from agent.records import Budget, Outcome, Proposal, Trial, Verdict
from agent.researcher.calling import BudgetReached
from agent.researcher.client import Request
from agent.researcher.memory import Plan
from agent.researcher.planning import reason_to_plan
from agent.researcher.program import read_program
from tests.agent.researcher.messages_server import MessagesServer, Play, call, says, text
from tests.agent.researcher.study import ROOT, ToyDesk, plans, proposes, reference, researcher

PROGRAM = read_program(ROOT / "agent/program.md")
GOOD = says(call("propose_trial", proposes(2e-3)))


def trials(*decisions: str) -> list[Trial]:
    ended = [
        Trial(n, Proposal(), {}, Outcome("completed", 1.0), Verdict(decision))  # type: ignore[arg-type]
        for n, decision in enumerate(decisions, 1)
    ]
    return [reference(), *ended]


def test_when_a_plan_is_due() -> None:
    plan = Plan(1, "tuning", "start", "1. try")
    idle = trials("kept", *["reverted"] * 6)
    assert reason_to_plan(None, 1, "tuning", PROGRAM, trials()) == "start"
    assert reason_to_plan(plan, 2, "tuning", PROGRAM, trials("reverted")) == ""
    assert reason_to_plan(plan, 2, "architecture", PROGRAM, trials("kept")) == "phase architecture begins"
    assert reason_to_plan(plan, 8, "tuning", PROGRAM, idle) == "6 trials without a keep"
    assert reason_to_plan(plan, 8, "tuning", PROGRAM, [*idle[:-1], *trials("kept")[1:]]) == ""
    # once for a plateau: the next one after as many further trials
    assert reason_to_plan(Plan(8, "tuning", "6 trials", ""), 9, "tuning", PROGRAM, idle) == ""
    # where phases do not bind, their change is no reason
    assert reason_to_plan(plan, 3, "", PROGRAM, trials("kept")) == ""


def test_a_study_begins_with_a_plan_that_the_round_then_sees(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer([says(call("revise_plan", plans("widen the net"))), GOOD]) as server:
        researcher(desk, server).ask(desk.history())
    planning, round_ = server.requests
    assert "This is a planning call" in planning["messages"][0]["content"][-1]["text"]
    assert "widen the net" in round_["messages"][0]["content"][-1]["text"]
    # the same prefix serves both
    assert planning["tools"] == round_["tools"]
    assert planning["system"] == round_["system"]
    assert server.problems == []
    assert ("planned", {"trial": 1, "reason": "start", "ideas": 1}) in desk.events
    assert (tmp_path / "1/plan.jsonl").exists()


def test_a_trial_proposed_in_a_planning_call_is_not_run(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer([GOOD, says(call("revise_plan", plans())), GOOD]) as server:
        assert not researcher(desk, server).ask(desk.history()).invalid
    assert "no trial is run now" in str(server.requests[1]["messages"][-1])


def test_failed_planning_costs_no_trial_and_is_not_tried_again_at_once(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    useless = [says(text("Plans are worthless."))] * 3
    with MessagesServer([*useless, GOOD, GOOD]) as server:
        searcher = researcher(desk, server)
        assert not searcher.ask(desk.history()).invalid
        assert not searcher.ask(desk.history()).invalid
    assert [name for name, _ in desk.events].count("planning failed") == 1


class Advisers:
    """Answers by role; waits until all three have asked, so calls that were not parallel would never end."""

    def __init__(self, failing: str = "") -> None:
        self.meeting = threading.Barrier(3, timeout=10)
        self.failing = failing
        self.merge = ""

    def __call__(self, request: dict[str, Any]) -> Play:
        now = request["messages"][0]["content"][-1]["text"]
        if "Advisors have written" in now:
            self.merge = now
            return says(call("revise_plan", plans("merged idea")))
        for name in ("optimisation", "architecture", "data"):
            if f"You advise on {name}" in now:
                if len(request["messages"]) == 1:
                    self.meeting.wait()
                return (
                    says(text("no"))
                    if name == self.failing
                    else says(call("revise_plan", plans(f"by {name}")))
                )
        return GOOD


def test_advisors_plan_in_parallel_and_one_call_merges_them(tmp_path: Path) -> None:
    desk, advisers = ToyDesk(tmp_path), Advisers()
    with MessagesServer(advisers) as server:
        assert not researcher(desk, server, advisors=3).ask(desk.history()).invalid
    assert server.problems == []
    assert all(f"by {name}" in advisers.merge for name in ("optimisation", "architecture", "data"))
    assert "merged idea" in (tmp_path / "plan.md").read_text()
    purposes = {data["purpose"] for name, data in desk.events if name == "llm call"}
    assert purposes == {
        "plan-1-optimisation",
        "plan-2-architecture",
        "plan-3-data-and-experts",
        "plan-merge",
        "round",
    }
    assert len(list((tmp_path / "1").glob("plan-*.jsonl"))) == 4


def test_an_advisor_who_fails_is_left_out(tmp_path: Path) -> None:
    desk, advisers = ToyDesk(tmp_path), Advisers(failing="architecture")
    with MessagesServer(advisers) as server:
        researcher(desk, server, advisors=3).ask(desk.history())
    assert "by optimisation" in advisers.merge
    assert "architecture" not in advisers.merge.partition("Advisors have written")[2].partition("# ")[0]


def test_advisors_share_one_workspace_in_turn(tmp_path: Path) -> None:
    """The desk's workspace is one git worktree: two readers in it at once would meet here."""
    meeting, met = threading.Barrier(2), []

    class OneWorkspace(ToyDesk):
        def read_file(self, path: str) -> str:
            try:
                meeting.wait(0.1)
                met.append(path)
            except threading.BrokenBarrierError:
                pass
            return super().read_file(path)

    with MessagesServer(Advisers()) as server:
        researcher(OneWorkspace(tmp_path), server, advisors=3).ask([reference()])
    assert met == []


def test_calls_under_way_count_against_the_dollars(tmp_path: Path) -> None:
    """A call could cost some 0.5 and costs 0.003: two at once do not fit, one after the other do."""
    desk = ToyDesk(tmp_path, budget=Budget(trials=20, seconds=60, usd=0.9))
    arrived, go_on = threading.Event(), threading.Event()

    def answer(request: dict[str, Any]) -> Play:
        arrived.set()
        assert go_on.wait(10)
        return GOOD

    def send() -> None:
        board.send(Request([text("role")], [], [{"role": "user", "content": [text("x")]}]), 1, "plan")

    with MessagesServer(answer) as server:
        board = researcher(desk, server).chair.switchboard
        other = threading.Thread(target=send)
        other.start()
        assert arrived.wait(10)
        with pytest.raises(BudgetReached, match=r"of 0.9 dollars are spent"):
            send()
        go_on.set()
        other.join(10)
        send()
    assert 0 < desk.calls_usd < 0.1


def test_dollars_too_few_for_all_advisors_do_not_end_the_study(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path, budget=Budget(trials=20, seconds=60, usd=0.8))

    def answer(request: dict[str, Any]) -> Play:
        planning = "planning call" in request["messages"][0]["content"][-1]["text"]
        return says(call("revise_plan", plans("by one"))) if planning else GOOD

    with MessagesServer(answer) as server:
        proposal = researcher(desk, server, advisors=3).ask(desk.history())
    assert proposal is not None
    assert "by one" in (tmp_path / "plan.md").read_text()
