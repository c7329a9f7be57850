"""configs/llm/*.yaml goes in, typed settings of one model come out; every wrong key or value is named."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# how the model is reached, which may change while a study goes on; all the rest is part of what it is
TRANSPORT = ("base_url", "key_env", "key_needed", "stream", "timeout_seconds", "backoff")


class SettingsError(ValueError):
    """One setting is wrong; the message names the key, the value and what is expected."""


@dataclass(frozen=True)
class Prices:
    """Dollars. `input` and `output` per million tokens; cache factors are shares of the input price.

    Thinking tokens are part of the output tokens that a reply reports. `web_search` is the price of one
    request; the text it finds is billed as input, `web_search_tokens` a request being assumed beforehand.
    """

    input: float
    output: float
    cache_write_5m: float
    cache_write_1h: float
    cache_read: float
    web_search: float
    web_search_tokens: int


@dataclass(frozen=True)
class Backoff:
    """`attempts` calls in all; pauses double from `first_seconds`; none is longer than `longest_seconds`."""

    attempts: int
    first_seconds: float
    longest_seconds: float


@dataclass(frozen=True)
class LLMSettings:
    """One model and how it is called.

    base_url: another server that speaks the Messages API; null is Anthropic's own.
    key_env: the environment variable with the key; a server of one's own may do without (`key_needed`).
    thinking: adaptive or disabled; this and effort, if null, are left to the server's default.
    max_tokens: of one reply, thinking included. prompt_tokens: what a round's prompt may hold.
    timeout_seconds: of one call, from request to the last byte.
    cache_ttl: how long the stable prefix stays cached; a trial takes longer than five minutes, so 1h pays.
    advisors: planning calls that are made in parallel before one merges them; 0 or 1 is one planning call.
    web_searches: at most so many in one call, in phases that allow any.
    """

    name: str
    model: str
    base_url: str | None
    key_env: str
    key_needed: bool
    stream: bool
    thinking: Literal["adaptive", "disabled"] | None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    max_tokens: int
    prompt_tokens: int
    timeout_seconds: float
    cache_ttl: Literal["5m", "1h"] | None
    strict_tools: bool
    advisors: int
    web_searches: int
    backoff: Backoff
    prices: Prices

    @classmethod
    def from_mapping(cls, values: Any) -> LLMSettings:
        """The composed config's `llm` group, as plain containers. Raises SettingsError."""
        settings: LLMSettings = _section(cls, values, "llm")
        if settings.max_tokens < 256:
            raise SettingsError(f"llm.max_tokens={settings.max_tokens}: expected at least 256")
        if settings.prompt_tokens < 4000:
            raise SettingsError(f"llm.prompt_tokens={settings.prompt_tokens}: expected at least 4000")
        if settings.backoff.attempts < 1:
            raise SettingsError(f"llm.backoff.attempts={settings.backoff.attempts}: expected at least 1")
        return settings


def _section(kind: type, values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise SettingsError(f"{path}={values!r}: expected a section with keys")
    hints = get_type_hints(kind)
    if unknown := [str(key) for key in values if key not in hints]:
        raise SettingsError(f"{path}.{unknown[0]}: unknown key; allowed: {', '.join(hints)}")
    if missing := [f.name for f in fields(kind) if f.name not in values and f.default is MISSING]:
        raise SettingsError(f"{path}.{missing[0]} is missing; configs/llm/base.yaml has its default")
    return kind(**{key: _value(hints[key], value, f"{path}.{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    if hint in (Prices, Backoff):
        return _section(hint, value, path)
    for option in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(option) is Literal and value in get_args(option):
            return value
        if option is types.NoneType and value is None:
            return None
        if option is float and _number(value):
            return float(value)
        if option in (bool, str) and type(value) is option:
            return value
        if option is int and type(value) is int and value >= 0:
            return value
    raise SettingsError(f"{path}={value!r}: expected {_words(hint)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _words(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    names = {float: "a number from 0", int: "a whole number from 0", bool: "true or false", str: "text"}
    return "null" if hint is types.NoneType else names[hint]
