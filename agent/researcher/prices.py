"""A reply's usage and a price table go in, dollars come out; and what a call can cost at the very most."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agent.researcher.settings import Prices

# English and code hold about 4 characters a token; 3.5 errs on the safe side
CHARS_PER_TOKEN = 3.5
# where dollars must not be passed, as many tokens as any tokenizer is likely to make of it
LEAST_CHARS_PER_TOKEN = 2.0


@dataclass(frozen=True)
class Usage:
    """Tokens and requests that one reply was billed for. `thinking` is a part of `output`."""

    input: int = 0
    output: int = 0
    thinking: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    web_searches: int = 0

    @classmethod
    def from_reply(cls, usage: Mapping[str, Any]) -> Usage:
        """The Messages API's `usage` object; counts that are missing or no numbers are 0."""
        written = _count(usage, "cache_creation_input_tokens")
        hour = min(_count(usage, "cache_creation", "ephemeral_1h_input_tokens"), written)
        return cls(
            input=_count(usage, "input_tokens"),
            output=_count(usage, "output_tokens"),
            thinking=_count(usage, "output_tokens_details", "thinking_tokens"),
            cache_write_5m=written - hour,
            cache_write_1h=hour,
            cache_read=_count(usage, "cache_read_input_tokens"),
            web_searches=_count(usage, "server_tool_use", "web_search_requests"),
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def dollars(usage: Usage, prices: Prices) -> float:
    """What the reply cost."""
    input_tokens = (
        usage.input
        + usage.cache_write_5m * prices.cache_write_5m
        + usage.cache_write_1h * prices.cache_write_1h
        + usage.cache_read * prices.cache_read
    )
    tokens = input_tokens * prices.input + usage.output * prices.output
    return tokens / 1e6 + usage.web_searches * prices.web_search


def tokens_estimate(text: str, chars_per_token: float = CHARS_PER_TOKEN) -> int:
    """Bytes of UTF-8 over 3.5: somewhat more than there are of English."""
    return math.ceil(len(text.encode("utf-8", "replace")) / chars_per_token)


def worst_case(request: Mapping[str, Any], prices: Prices, web_searches: int) -> float:
    """Dollars if all is written to the cache, nothing read from it, and the reply is as long as it may be.

    A server-side search makes the model read its prompt again, with what was found.
    """
    sent = json.dumps([request[key] for key in ("system", "tools", "messages")])
    prompt = tokens_estimate(sent, LEAST_CHARS_PER_TOKEN)
    factor = max(1.0, prices.cache_write_5m, prices.cache_write_1h)
    found = web_searches * prices.web_search_tokens
    tokens = (prompt * (factor + web_searches) + found) * prices.input + request["max_tokens"] * prices.output
    return tokens / 1e6 + web_searches * prices.web_search


def _count(usage: Mapping[str, Any], *path: str) -> int:
    value: Any = usage
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
