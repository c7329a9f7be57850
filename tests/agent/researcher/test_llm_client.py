"""The client against a server that misbehaves in every way that was seen: it waits, stops, or asks again."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from agent.researcher.client import Client, Request
from agent.researcher.failures import LLMRefused, LLMStopped, LLMUnavailable
from agent.researcher.settings import LLMSettings
from tests.agent.researcher.messages_server import (
    CUT_SHORT,
    KEY,
    MessagesServer,
    Play,
    call,
    fails,
    page,
    raw_call,
    says,
    text,
)
from tests.agent.researcher.study import Clock, llm

REQUEST = Request([text("role")], [], [{"role": "user", "content": [text("hello")]}])
GOOD = says(text("hi"))
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
ENDLESS = Play(message=says(text("x")).message, lose_end=True)
BROKEN_OFF = Play(message=says(text("x")).message, event=OVERLOADED)


def client(server: MessagesServer, clock: Clock | None = None, key: str | None = KEY, **changes):
    clock = clock or Clock()
    notices = []

    def notice(*said):
        notices.append(said)

    settings = LLMSettings.from_mapping(llm(server, **changes))
    made = Client(settings, key, clock=clock, sleep=clock.sleep, notice=notice)
    return made, clock, notices


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "trouble",
    [
        fails(500),
        fails(529, "overloaded_error"),
        fails(429, "rate_limit_error"),
        fails(408),
        page(),
        CUT_SHORT,
        Play(body=b'{"id": "msg'),
        Play(body=b""),
    ],
    ids=["500", "529", "429", "408", "page", "cut", "half-json", "empty"],
)
def test_trouble_that_passes_is_waited_for(trouble: Play, stream: bool) -> None:
    with MessagesServer([trouble, GOOD]) as server:
        made, clock, notices = client(server, stream=stream)
        assert made.send(REQUEST).content == (text("hi"),)
    assert clock.slept == [2.0]
    assert len(notices) == 1


@pytest.mark.parametrize("trouble", [ENDLESS, BROKEN_OFF], ids=["ends", "error event"])
def test_a_stream_that_does_not_finish_is_no_reply_and_its_prompt_is_paid_for(trouble: Play) -> None:
    with MessagesServer([trouble, GOOD]) as server:
        made, _, notices = client(server, stream=True)
        assert made.send(REQUEST).stop_reason == "end_turn"
    assert notices[0][3] > 0


def test_back_off_doubles_ends_and_says_why() -> None:
    with MessagesServer(lambda request: fails(529, "overloaded_error", "too busy")) as server:
        made, clock, _ = client(server, backoff={"longest_seconds": 20})
        with pytest.raises(LLMUnavailable, match=r"6 attempts failed: 529 overloaded_error: too busy"):
            made.send(REQUEST)
    assert clock.slept == [2, 4, 8, 16, 20]


def test_retry_after_is_obeyed_up_to_a_cap() -> None:
    plays = [fails(429, retry_after=after) for after in ("7", "100000", "0", "Wed, 21 Oct 2026 07:28:00 GMT")]
    with MessagesServer([*plays, GOOD]) as server:
        made, clock, _ = client(server)
        made.send(REQUEST)
    assert clock.slept == [7, 60, 8, 16]


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with MessagesServer([]) as server:
        pass
    made, clock, _ = client(server)
    with pytest.raises(LLMUnavailable):
        made.send(REQUEST)
    assert len(clock.slept) == 5


@pytest.mark.parametrize(
    ("play", "word"),
    [
        (fails(402, "billing_error", "credit balance is too low"), "credit balance"),
        (fails(403, "permission_error"), "403"),
        (fails(400, "invalid_request_error", "prompt is too long"), "too long"),
        (fails(413, "request_too_large"), "413"),
    ],
)
def test_what_waiting_does_not_cure_stops_at_once(play: Play, word: str) -> None:
    with MessagesServer([play]) as server:
        made, clock, _ = client(server)
        with pytest.raises(LLMRefused, match=word):
            made.send(REQUEST)
    assert clock.slept == []


def test_a_spend_limit_is_not_waited_for() -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"limit","details":%s}}'
    play = Play(status=429, body=body % b'{"error_code":"enforced_spend_limit_reached"}')
    with MessagesServer([play]) as server:
        made, _, _ = client(server)
        with pytest.raises(LLMRefused):
            made.send(REQUEST)


def test_wrong_key_and_unknown_model_stop_with_the_reason() -> None:
    with MessagesServer([]) as server:
        made, _, _ = client(server, key="sk-ant-wrong-0000000")
        with pytest.raises(LLMRefused, match="authentication_error"):
            made.send(REQUEST)
        made, _, _ = client(server, model="claude-nobody")
        with pytest.raises(LLMRefused, match="claude-nobody"):
            made.send(REQUEST)


def test_no_key_names_the_way_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", "/nonexistent")
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for base_url in (None, "http://127.0.0.1:9"):
        settings = LLMSettings.from_mapping({**llm(None), "base_url": base_url})
        with pytest.raises(LLMRefused, match=r"ANTHROPIC_API_KEY.*llm=local.*searcher=playbook"):
            Client(settings, None)


def test_anthropics_key_is_never_sent_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-the-real-one")
    with MessagesServer([GOOD], key="none") as server:
        settings = LLMSettings.from_mapping({**llm(None, "local"), "base_url": server.url})
        assert Client(settings, None).send(REQUEST).stop_reason == "end_turn"
        assert server.problems == []


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "play",
    [
        says(raw_call("propose_trial", '{"a": ' + "9" * 5000 + "}")),
        says(raw_call("propose_trial", "[" * 100_000 + "]" * 100_000)),
    ],
    ids=["digits", "nesting"],
)
def test_what_no_parser_takes_is_an_unreadable_reply_not_a_crash(play: Play, stream: bool) -> None:
    with MessagesServer([play]) as server:
        made, clock, _ = client(server, stream=stream)
        reply = made.send(REQUEST)
    # a streamed number of 5,000 digits is read by the SDK, and refused later as a value
    assert reply.unreadable or reply.calls()
    assert clock.slept == []


def test_huge_numbers_arrive_as_infinity() -> None:
    for stream in (True, False):
        with MessagesServer([says(raw_call("propose_trial", '{"a": 1e999}'))]) as server:
            made, _, _ = client(server, stream=stream)
            assert made.send(REQUEST).calls()[0]["input"] == {"a": float("inf")}


def test_a_reply_that_trickles_is_given_up_at_its_deadline() -> None:
    clock = Clock()

    class Slow(Clock):
        def __call__(self) -> float:
            self.now += 300
            return self.now

    with MessagesServer(lambda request: GOOD) as server:
        made, _, notices = client(server, Slow(), stream=True, backoff={"attempts": 1})
        with pytest.raises(LLMUnavailable, match="not complete after 900 s"):
            made.send(REQUEST)
    assert clock.slept == []
    assert notices


def test_stopped_in_mid_stream_it_pays_for_what_had_come() -> None:
    stop = threading.Event()

    class Stopping(Clock):
        """Somebody presses Ctrl-C when the stream has begun: the client looks at its clock at every event."""

        looks = 0

        def __call__(self) -> float:
            self.looks += 1
            if self.looks == 2:
                stop.set()
            return self.now

    notices: list[tuple[int, str, float, float]] = []
    with MessagesServer([GOOD]) as server:
        settings = LLMSettings.from_mapping(llm(server))
        made = Client(settings, KEY, clock=Stopping(), stop=stop, notice=lambda *said: notices.append(said))
        with pytest.raises(LLMStopped):
            made.send(REQUEST)
        with pytest.raises(LLMStopped):
            made.send(REQUEST)
        assert len(server.requests) == 1  # a study that stops asks nothing more
    assert [notice[3] > 0 for notice in notices] == [True, False]


def test_a_pause_ends_when_the_study_is_to_stop() -> None:
    stop = threading.Event()

    def overloaded(request: dict[str, Any]) -> Play:
        stop.set()
        return fails(529, retry_after="60")

    with MessagesServer(overloaded) as server:
        made = Client(LLMSettings.from_mapping(llm(server)), KEY, stop=stop)
        with pytest.raises(LLMStopped):
            made.send(REQUEST)


def test_a_broken_stream_is_charged_for_the_words_that_had_come() -> None:
    """The usage that a stream begins with counts its prompt; what it wrote is estimated from what arrived."""
    usage = {"input_tokens": 1000, "output_tokens": 1}
    costs = []
    for words in ("x" * 35, "x" * 35_000):
        broken = replace(says(text(words), usage=usage), lose_end=True)
        with MessagesServer([broken, GOOD]) as server:
            made, _, notices = client(server, stream=True)
            made.send(REQUEST)
            costs.append(notices[0][3])
    prices = made.settings.prices
    assert costs[0] == pytest.approx((1000 * prices.input + 10 * prices.output) / 1e6)
    assert costs[1] == pytest.approx((1000 * prices.input + 10_000 * prices.output) / 1e6)


def test_options_reach_the_wire_and_arms_differ_in_thinking() -> None:
    with MessagesServer([GOOD, GOOD, GOOD]) as server:
        for name in ("opus", "sonnet_no_thinking", "local"):
            made, _, _ = client(server, **{k: v for k, v in llm(server, name).items() if k != "base_url"})
            made.send(REQUEST)
    thinking, plain, local = server.requests
    assert (thinking["model"], thinking["thinking"]) == ("claude-opus-5-5", {"type": "adaptive"})
    assert thinking["output_config"] == {"effort": "high"}
    assert thinking["tool_choice"] == {"type": "auto"}
    assert (plain["model"], plain["thinking"]) == ("claude-sonnet-5-5", {"type": "disabled"})
    assert "thinking" not in local
    assert "output_config" not in local
    assert server.problems == []


def test_tool_calls_are_read_the_same_streamed_and_whole() -> None:
    block = call("propose_trial", {"a": [1, {"b": "ü"}]})
    for stream in (True, False):
        with MessagesServer([says(text("so"), block)]) as server:
            made, _, _ = client(server, stream=stream)
            assert made.send(REQUEST).calls() == [block]
