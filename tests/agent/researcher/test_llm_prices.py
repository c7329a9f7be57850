"""Dollars against sums done by hand, and settings that are refused by name."""

from __future__ import annotations

import pytest

from agent.researcher.client import Client, Request
from agent.researcher.prices import Usage, dollars, tokens_estimate
from agent.researcher.settings import LLMSettings, SettingsError
from tests.agent.researcher.messages_server import KEY, text
from tests.agent.researcher.study import llm

OPUS = LLMSettings.from_mapping(llm(None)).prices


def test_every_kind_of_token_has_its_price() -> None:
    usage = {
        "input_tokens": 1000,
        "output_tokens": 2000,
        "cache_read_input_tokens": 30_000,
        "cache_creation_input_tokens": 5000,
        "cache_creation": {"ephemeral_1h_input_tokens": 4000, "ephemeral_5m_input_tokens": 1000},
        "output_tokens_details": {"thinking_tokens": 1500},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
    }
    # 4 and 20 dollars a million: thinking is a part of the output, and not paid twice
    by_hand = (1000 + 1.25 * 1000 + 2.0 * 4000 + 0.1 * 30_000) * 4e-6 + 2000 * 20e-6 + 2 * 0.01
    assert dollars(Usage.from_reply(usage), OPUS) == pytest.approx(by_hand)
    assert Usage.from_reply(usage).thinking == 1500


def test_without_the_breakdown_writes_are_those_of_the_short_cache() -> None:
    usage = Usage.from_reply({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 100})
    assert (usage.cache_write_5m, usage.cache_write_1h) == (100, 0)


@pytest.mark.parametrize("nonsense", [{}, {"input_tokens": None}, {"input_tokens": -5, "output_tokens": "9"}])
def test_nonsense_usage_costs_nothing_and_breaks_nothing(nonsense: dict) -> None:
    assert dollars(Usage.from_reply(nonsense), OPUS) == 0


def test_the_worst_case_is_above_what_any_such_call_was_billed() -> None:
    settings = LLMSettings.from_mapping({**llm(None), "web_searches": 2})
    request = Request([text("a" * 70_000)], [], [{"role": "user", "content": [text("b")]}], web_searches=2)
    worst = Client(settings, KEY).worst_case(request)
    billed = Usage(output=settings.max_tokens, cache_write_1h=20_000, input=30_000, web_searches=2)
    assert dollars(billed, settings.prices) < worst < 3 * dollars(billed, settings.prices)


def test_token_estimate_errs_on_the_safe_side() -> None:
    assert tokens_estimate("x" * 350) == 100
    assert tokens_estimate("ü" * 350) == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modle": "x"}, "llm.modle: unknown key"),
        ({"thinking": "enabled"}, "llm.thinking='enabled': expected one of adaptive, disabled or null"),
        ({"max_tokens": "many"}, "llm.max_tokens='many': expected a whole number"),
        ({"max_tokens": 10}, "llm.max_tokens=10: expected at least 256"),
        ({"prices": {"input": 1}}, "llm.prices.output is missing"),
        ({"timeout_seconds": float("nan")}, "llm.timeout_seconds=nan: expected a number"),
        ({"stream": 1}, "llm.stream=1: expected true or false"),
    ],
)
def test_wrong_settings_are_refused_by_name(change: dict, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        LLMSettings.from_mapping({**llm(None), **change})
    assert said in str(raised.value)


def test_a_model_without_prices_is_refused_since_no_budget_could_hold() -> None:
    with pytest.raises(SettingsError, match=r"llm\.prices\.input=None"):
        LLMSettings.from_mapping({**llm(None, "base"), "name": "base", "model": "m"})


@pytest.mark.parametrize(
    "model", ["opus", "sonnet", "haiku", "local", "opus_no_thinking", "haiku_no_thinking"]
)
def test_every_model_config_is_complete(model: str) -> None:
    settings = LLMSettings.from_mapping(llm(None, model))
    assert settings.name == model
