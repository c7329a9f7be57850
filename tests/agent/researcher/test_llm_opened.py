"""The researcher in a study opened as scripts/sweep.py opens it: a server down half of the time, Ctrl-C, no key."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.ledger import LedgerError
from agent.observers import Observers
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
    return Checkout(tmp_path).make()


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
    with MessagesServer(flaky) as server, checkout.open(server.url, *terms) as loop:
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
        with checkout.open(server.url, "budget.trials=2", "llm.timeout_seconds=600") as loop:
            assert loop.run() == "stopped"
        assert len(checkout.ledger.trials()) == 2
        assert not [e for e in checkout.ledger.events() if e["event"] == "paused"]
        with checkout.open(server.url, "budget.trials=2", "llm.timeout_seconds=600") as loop:
            assert loop.run() == "all 2 trials are used"
    assert json.dumps(calls[3]) == json.dumps(calls[2])
    accounts(checkout.ledger)


def test_killed_during_a_call_the_round_is_repeated_and_what_it_had_cost_is_charged(
    checkout: Checkout,
) -> None:
    """kill -9 of the process, while it waits for the second reply of trial 2's round."""
    calls: list[dict[str, Any]] = []
    terms = ["budget.trials=2", "llm.timeout_seconds=600"]

    def killing(request: dict[str, Any]) -> Play:
        calls.append(request)
        if len(calls) == 3:
            return says(call("look_up_trial", {"number": 0}))
        if len(calls) == 4:
            process.kill()
            return HELD
        return model(request)

    with MessagesServer(killing) as server:
        command = [
            sys.executable,
            "-m",
            "tests.agent.researcher.opened",
            str(checkout.root.parent),
            server.url,
        ]
        process = subprocess.Popen([*command, *terms], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, output.decode()
        assert len(checkout.ledger.trials()) == 2
        with checkout.open(server.url, *terms) as loop:
            assert loop.desk is not None
            assert loop.desk.pending.usd > 0
            assert loop.run() == "all 2 trials are used"
    same = [re.sub(r"[\d.]+ of 100 dollars", "", json.dumps(request)) for request in (calls[2], calls[4])]
    assert same[0] == same[1]
    accounts(checkout.ledger)
    paid = [event["usd"] for event in checkout.ledger.events() if event["event"] == "llm call"]
    assert len(paid) == 4
    assert checkout.ledger.spent().usd == pytest.approx(sum(paid), abs=1e-12)


def test_what_a_round_cost_that_came_to_no_trial_is_charged_once(checkout: Checkout) -> None:
    """The plan is paid for, then the credit is exhausted: the study stops, and goes on when there is credit."""
    empty = fails(400, "invalid_request_error", "Your credit balance is too low to access the API")

    def poor(request: dict[str, Any]) -> Play:
        return empty if broke and "planning call" not in str(request) else model(request)

    broke = True
    with MessagesServer(poor) as server:
        with (
            checkout.open(server.url, "budget.trials=2") as loop,
            pytest.raises(LLMRefused, match="credit balance"),
        ):
            loop.run()
        ends = [event["reason"] for event in checkout.ledger.events() if event["event"] == "stopped"]
        assert ["credit balance" in reason for reason in ends] == [True]
        planned = checkout.ledger.spent().usd
        assert planned > 0
        broke = False
        with checkout.open(server.url, "budget.trials=2") as loop:
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
    with MessagesServer([]) as server, pytest.raises(error, match=message), checkout.open(server.url, *said):
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
    with MessagesServer([]) as server, pytest.raises(LLMRefused, match=reason), checkout.open(server.url):
        pass
    assert checkout.traces() == []


@pytest.mark.parametrize(
    "refusal",
    [fails(404, "not_found_error", "no such path"), fails(529), page(), Play(status=405, body=b"")],
    ids=["404", "529", "page", "405"],
)
def test_a_server_that_knows_no_list_of_models_is_left_to_the_first_round(
    checkout: Checkout, refusal: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MessagesServer([]) as server:
        monkeypatch.setattr(server, "model", lambda path, headers: refusal)
        with checkout.open(server.url) as loop:
            assert loop.ledger.name == "toy"


@pytest.mark.parametrize("name", ["opus", "local"])
def test_where_nothing_answers_no_study_is_begun(checkout: Checkout, name: str) -> None:
    with MessagesServer([]) as server:
        pass
    reason = f"nothing answers at {server.url}.*start the server"
    with pytest.raises(LLMRefused, match=reason), checkout.open(server.url, f"llm={name}"):
        pass
    assert checkout.traces() == []


def test_a_study_goes_on_with_another_server_but_not_with_another_model(checkout: Checkout) -> None:
    with MessagesServer([]) as server, checkout.open(server.url):
        pass
    with MessagesServer([]) as server:
        with checkout.open(server.url, "llm.timeout_seconds=60", "llm.backoff.attempts=2") as loop:
            changed = [event for event in loop.ledger.events() if event["event"] == "versions changed"]
            assert changed[-1]["now"]["llm server"] == server.url
        with (
            pytest.raises(
                LedgerError, match=r"begun otherwise: details\.llm\.effort is 'high', asked for 'low'"
            ),
            checkout.open(server.url, "llm.effort=low"),
        ):
            pass


def test_the_command_without_a_key_says_so_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    places = [f"{name}={tmp_path}/{name}" for name in ("runs", "vault")]
    done = subprocess.run(
        [
            sys.executable,
            "scripts/sweep.py",
            "searcher=claude",
            f"ledger.url=sqlite:///{tmp_path}/ledger.db",
            *places,
        ],
        env={**known, "ANTHROPIC_CONFIG_DIR": "/nonexistent", "PYTHONPATH": "src:."},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("LLMRefused: no key for the LLM: set ANTHROPIC_API_KEY")
    assert done.stderr.count("\n") == 1
    assert "searcher=playbook" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.name != "runs"] == []


def test_after_an_interrupted_trial_prompts_and_replies_lie_with_the_trial_they_are_of(
    checkout: Checkout,
) -> None:
    class Interrupting:
        """Stops the study as soon as trial 1 has begun."""

        def __getattr__(self, name: str) -> Any:
            return lambda *given: (
                loop.stop.set() if name == "trial_started" and given[0].number == 1 else None
            )

    with MessagesServer(model) as server:
        with checkout.open(server.url, "budget.trials=1") as loop:
            loop.observers = Observers([Interrupting()])
            assert loop.run() == "stopped"
        with checkout.open(server.url, "budget.trials=1") as loop:
            assert loop.run() == "all 1 trials are used"
    statuses = [trial.outcome.status for trial in checkout.ledger.trials() if trial.outcome]
    assert statuses == ["completed", "interrupted", "completed"]
    transcripts = [(checkout.root / f"runs/toy/000{number}/round.jsonl").read_text() for number in (1, 2)]
    assert ["Trial 1 is next" in transcripts[0], "Trial 2 is next" in transcripts[1]] == [True, True]
    assert "Trial 2 is next" not in transcripts[0]


@pytest.mark.parametrize(
    ("arm", "key"),
    [("claude_config", "optimizer.lr"), ("claude_blind", "p0"), ("centaur", "optimizer.lr")],
)
def test_every_arm_runs_from_its_config(checkout: Checkout, arm: str, key: str) -> None:
    def anyone(request: dict[str, Any]) -> Play:
        shown = str(request["messages"])
        if "planning call" in shown:
            return says(call("revise_plan", plans(category="explore" if arm == "claude_blind" else "other")))
        # the blind arm's name of the learning rate is the one with its range
        name = re.search(r"(p\d\d): number in \[0\.001, 1\]", shown)
        given = proposes(
            overrides={name[1] if name else key: 0.2},
            category="explore" if arm == "claude_blind" else "other",
        )
        return says(call("propose_trial", {k: v for k, v in given.items() if k != "edits"}))

    terms = [f"searcher={arm}", f"searcher_name={arm}", "budget.trials=1"]
    terms += ["searcher.llm_share=1"] * (arm == "centaur")
    with MessagesServer(anyone) as server, checkout.open(server.url, *terms) as loop:
        assert loop.run() == "all 1 trials are used"
        assert server.problems == []
    trial = checkout.ledger.trials()[1]
    assert trial.outcome is not None
    assert trial.outcome.status == "completed"
    assert (trial.proposal.searcher, trial.proposal.route) == (arm, "llm")
    assert trial.overrides["optimizer.lr"] == 0.2
    assert trial.charges.usd > 0
