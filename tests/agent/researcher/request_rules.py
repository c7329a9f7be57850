"""A request to the Messages API goes in, the reasons for which the API would refuse it come out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TOP = {
    "model",
    "max_tokens",
    "system",
    "tools",
    "messages",
    "tool_choice",
    "thinking",
    "output_config",
    "stream",
}
SCHEMA_WORDS = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "description",
    "enum",
    "items",
    "anyOf",
}
EFFORTS = {"low", "medium", "high", "xhigh", "max"}


def problems_of(path: str, headers: Any, request: Any) -> list[str]:
    found = list(_head(path, headers))
    if not isinstance(request, dict) or not set(request) <= TOP:
        return [*found, f"unknown fields: {sorted(set(request) - TOP)}"]
    found += _options(request)
    for tool in request.get("tools", []):
        found += _tool(tool)
    found += _marks(request)
    found += _messages(request.get("messages", []))
    return found


def _head(path: str, headers: Any) -> Iterator[str]:
    if path != "/v1/messages":
        yield f"path {path}"
    if headers.get("anthropic-version") != "2026-10-21":
        yield f"anthropic-version {headers.get('anthropic-version')}"
    if headers.get("x-api-key"):
        yield "x-api-key beside a bearer token"


def _options(request: dict[str, Any]) -> Iterator[str]:
    if not isinstance(request.get("max_tokens"), int) or request["max_tokens"] < 1:
        yield "max_tokens"
    thinking = request.get("thinking", {"type": "disabled"})
    if thinking["type"] not in ("adaptive", "disabled") or set(thinking) - {"type", "display"}:
        yield f"thinking {thinking}"
    forced = request.get("tool_choice", {"type": "auto"})["type"] in ("any", "tool")
    if forced and thinking["type"] != "disabled":
        yield "thinking may not be enabled when tool_choice forces tool use"
    if request.get("output_config", {}).get("effort", "low") not in EFFORTS:
        yield "effort"
    if not request.get("system") or any(block["type"] != "text" for block in request["system"]):
        yield "system"


def _tool(tool: dict[str, Any]) -> Iterator[str]:
    if "type" in tool:
        if (tool["type"], tool["name"]) != ("web_search_20260318", "web_search"):
            yield f"unknown server tool {tool['type']}"
        return
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"]) or not tool.get("description"):
        yield f"tool {tool['name']!r}"
    if set(tool) - {"name", "description", "strict", "input_schema", "cache_control"}:
        yield f"tool {tool['name']}: unknown fields"
    if tool.get("strict"):
        yield from _strict(tool["input_schema"], tool["name"])


def _strict(schema: dict[str, Any], where: str) -> Iterator[str]:
    if extra := set(schema) - SCHEMA_WORDS:
        yield f"{where}: strict schemas know no {sorted(extra)}"
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield f"{where}: additionalProperties must be false"
        if set(schema.get("required", [])) != set(schema["properties"]):
            yield f"{where}: every property must be required"
        for name, part in schema["properties"].items():
            yield from _strict(part, f"{where}.{name}")
    if schema.get("type") == "array":
        yield from _strict(schema["items"], f"{where}[]")
    for part in schema.get("anyOf", []):
        yield from _strict(part, where)


def _marks(request: dict[str, Any]) -> Iterator[str]:
    blocks = [*request.get("tools", []), *request.get("system", [])]
    for message in request.get("messages", []):
        blocks += message["content"] if isinstance(message["content"], list) else []
    marks = [block["cache_control"] for block in blocks if block.get("cache_control")]
    if len(marks) > 4:
        yield f"{len(marks)} cache marks; at most 4 are allowed"
    lives = [mark.get("ttl", "5m") for mark in marks]
    if lives != sorted(lives):  # "1h" < "5m": the longer ones come first
        yield "a 1h cache mark comes after a 5m one"
    if any(mark.get("type") != "ephemeral" for mark in marks):
        yield "cache mark"


def _messages(messages: list[dict[str, Any]]) -> Iterator[str]:
    if not messages or messages[0]["role"] != "user":
        yield "the first message must be the user's"
    open_calls: set[str] = set()
    searches: set[str] = set()
    for message in messages:
        blocks = message["content"]
        if not isinstance(blocks, list) or not blocks:
            yield "empty content"
            return
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if message["role"] == "user" and results != open_calls:
            yield f"tool results {sorted(results)} for calls {sorted(open_calls)}"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            yield "empty text block"
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if message["role"] == "user" and searches:
            yield f"web_search {sorted(searches)} was found without a corresponding web_search_tool_result"
        searches |= {block["id"] for block in blocks if block["type"] == "server_tool_use"}
        searches -= {block["tool_use_id"] for block in blocks if block["type"] == "web_search_tool_result"}
    if open_calls:
        yield f"calls without results: {sorted(open_calls)}"
