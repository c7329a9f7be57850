"""The researcher in a study opened as scripts/sweep.py opens it: a server down half of the time, Ctrl-C, no key."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.ledger import LedgerError
from agent.records import Charges
from agent.researcher.failures import LLMRefused
from agent.researcher.program import ProgramError
from agent.researcher.settings import SettingsError
from tests.agent.researcher.messages_server import (
    CUT_SHORT,
    DROPPED,
    HELD,
    KEY,
    MessagesServer,
    Play,
    call,
    fails,
    page,
    says,
)
from tests.agent.researcher.opened import Checkout
from tests.agent.researcher.study import plans, proposes
from tests.agent.study import accounts

TROUBLES = {
    "429": fails(429, "rate_limit_error", "slow down", retry_after="30"),
    "529": fails(529, "overloaded_error"),
    "500": fails(500),
    "timeout": HELD,
    "dropped": DROPPED,
    "cut": CUT_SHORT,
    "page": page(),
    "half a JSON": Play(body=b'{"id": "msg'),
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return Checkout(tmp_path)


def model(request: dict[str, Any]) -> Play:
    """A plan, then for each trial another learning rate and category."""
    now = request["messages"][0]["content"][-1]["text"]
    number = int(now.partition("Trial ")[2].split()[0])
    if "planning call" in now:
        return says(call("revise_plan", plans("find the rate")))
    category = ("optimisation", "data")[number % 2]
    return says(call("propose_trial", proposes(round(0.02 * number, 2), category=category)))


class Flaky:
    """Down half of the time: each kind of trouble in its turn, by a fair coin."""

    def __init__(self, seed: int) -> None:
        self.coin, self.met = random.Random(seed), Counter[str]()

    def __call__(self, request: dict[str, Any]) -> Play:
        if self.coin.random() < 0.5:
            return model(request)
        kind = list(TROUBLES)[self.met.total() % len(TROUBLES)]
        self.met[kind] += 1
        return TROUBLES[kind]


def test_with_the_server_down_half_of_the_time_twelve_trials_are_charged(checkout: Checkout) -> None:
    flaky = Flaky(3)
    terms = ["budget.trials=12", "llm.timeout_seconds=0.7", "llm.backoff.attempts=2"]
    with MessagesServer(flaky) as server, checkout.open(server, *terms) as loop:
        assert loop.run() == "all 12 trials are used"
    assert server.problems == []
    assert set(flaky.met) == set(TROUBLES)
    ledger = checkout.ledger
    accounts(ledger)
    trials = ledger.trials()
    assert [trial.number for trial in trials] == list(range(13))
    assert {trial.outcome.status for trial in trials if trial.outcome} == {"completed"}
    assert [trial.proposal.overrides["optimizer.lr"] for trial in trials[1:]] == [
        round(0.02 * number, 2) for number in range(1, 13)
    ]
    events = Counter(event["event"] for event in ledger.events())
    assert events["paused"] > 0
    assert events["llm trouble"] >= flaky.met.total()  # a call that was slower than the limit counts, too
    paid = [e["usd"] for e in ledger.events() if e["event"] in ("llm call", "llm trouble")]
    assert ledger.spent().usd == pytest.approx(sum(paid), abs=1e-12)
    assert all(trial.charges.usd > 0 for trial in trials[1:])


def test_stopped_during_a_call_it_stops_at_once_and_repeats_the_round(checkout: Checkout) -> None:
    calls: list[dict[str, Any]] = []

    def interrupted(request: dict[str, Any]) -> Play:
        calls.append(request)
        if len(calls) != 3:  # plan, trial 1, and then the call during which somebody presses Ctrl-C
            return model(request)
        loop.stop.set()
        return HELD

    with MessagesServer(interrupted) as server:
        with checkout.open(server, "budget.trials=3", "llm.timeout_seconds=600") as loop:
            assert loop.run() == "stopped"
        assert len(checkout.ledger.trials()) == 2
        assert not [e for e in checkout.ledger.events() if e["event"] == "paused"]
        with checkout.open(server, "budget.trials=3", "llm.timeout_seconds=600") as loop:
            assert loop.run() == "all 3 trials are used"
    assert json.dumps(calls[3]) == json.dumps(calls[2])
    accounts(checkout.ledger)


def test_what_a_round_cost_that_came_to_no_trial_is_charged_once(checkout: Checkout) -> None:
    """The plan is paid for, then the credit is exhausted: the study stops, and goes on when there is credit."""
    empty = fails(400, "invalid_request_error", "Your credit balance is too low to access the API")

    def poor(request: dict[str, Any]) -> Play:
        return empty if broke and "planning call" not in str(request) else model(request)

    broke = True
    with MessagesServer(poor) as server:
        with (
            checkout.open(server, "budget.trials=2") as loop,
            pytest.raises(LLMRefused, match="credit balance"),
        ):
            loop.run()
        planned = checkout.ledger.spent().usd
        assert planned > 0
        broke = False
        with checkout.open(server, "budget.trials=2") as loop:
            assert loop.desk is not None
            assert loop.desk.pending == Charges()
            assert loop.run() == "all 2 trials are used"
    paid = [event["usd"] for event in checkout.ledger.events() if event["event"] == "llm call"]
    assert checkout.ledger.spent().usd == pytest.approx(sum(paid), abs=1e-12)
    assert len(paid) == 3


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        (["llm.model=claude-nobody"], LLMRefused, "claude-nobody"),
        (["llm.effort=enormous"], SettingsError, "llm.effort='enormous'"),
        (["llm.prices.input=null"], SettingsError, "llm.prices.input=None"),
        (["searcher.program=nowhere.md"], ProgramError, "nowhere.md"),
        (["searcher=centaur", "searcher.program=nowhere.md"], ProgramError, "nowhere.md"),
    ],
    ids=["model", "effort", "price", "program", "centaur"],
)
def test_what_would_stop_the_first_call_is_said_before_a_study_exists(
    checkout: Checkout, said: list[str], error: type[Exception], message: str
) -> None:
    with MessagesServer([]) as server, pytest.raises(error, match=message), checkout.open(server, *said):
        pass
    assert checkout.traces() == []


@pytest.mark.parametrize("key", [None, "", "sk-ant-somebody-elses"])
def test_without_a_key_or_with_a_wrong_one_nothing_is_left_behind(
    checkout: Checkout, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", "/nonexistent")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    if key is not None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    reason = "authentication_error" if key else "no key for the LLM: set ANTHROPIC_API_KEY"
    with MessagesServer([]) as server, pytest.raises(LLMRefused, match=reason), checkout.open(server):
        pass
    assert checkout.traces() == []


def test_a_server_that_knows_no_list_of_models_is_left_to_the_first_round(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for refusal in (
        fails(404, "not_found_error", "no such path"),
        fails(529),
        page(),
        Play(status=405, body=b""),
    ):
        with MessagesServer([]) as server:
            monkeypatch.setattr(server, "model", lambda path, headers, refusal=refusal: refusal)
            with checkout.open(server) as loop:
                assert loop.ledger.name == "toy"


def test_a_study_goes_on_with_another_server_but_not_with_another_model(checkout: Checkout) -> None:
    with MessagesServer([]) as server, checkout.open(server):
        pass
    with MessagesServer([]) as server:
        with checkout.open(server, "llm.timeout_seconds=60", "llm.backoff.attempts=2") as loop:
            changed = [event for event in loop.ledger.events() if event["event"] == "versions changed"]
            assert changed[-1]["now"]["llm server"] == server.url
        with (
            pytest.raises(
                LedgerError, match=r"begun otherwise: details\.llm\.effort is 'high', asked for 'low'"
            ),
            checkout.open(server, "llm.effort=low"),
        ):
            pass
