"""A Messages API server on loopback: it refuses what the real one refuses, and plays a script of replies.

A script is a list of plays, one a request, or a function of the request. What the API would refuse
(headers, schemas, cache marks, a forced tool while thinking, tool results that match no call) is answered
with status 400 and kept in `problems`, so a test fails even if the code under test swallows the error.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.agent.researcher.request_rules import problems_of

KEY = "sk-ant-test-0123456789abcdef"
MODELS = {"claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "local"}


@dataclass
class Play:
    """What the server does once. `body` is sent as it is; `message` as JSON or as a stream of events."""

    message: dict[str, Any] | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    cut: bool = False  # close the connection half-way through the body
    drop: bool = False  # close it before any answer
    hold: bool = False  # no answer: wait until the client has had enough
    lose_end: bool = False  # a stream that ends in order, before message_stop
    event: dict[str, Any] | None = None  # an error event in mid-stream


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(name: str, arguments: Any, identity: str = "") -> dict[str, Any]:
    identity = identity or "toolu_" + hashlib.sha256(repr((name, arguments)).encode()).hexdigest()[:12]
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


def raw_call(name: str, written: str) -> dict[str, Any]:
    """A call whose input is sent as `written`: huge numbers, broken JSON."""
    return {**call(name, {}, "toolu_raw"), "raw": written}


def says(*blocks: dict[str, Any], stop: str | None = None, usage: dict[str, Any] | None = None) -> Play:
    """A well-formed reply; the stop reason follows from its blocks unless given."""
    called = any(block["type"] == "tool_use" for block in blocks)
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": list(blocks),
        "stop_reason": stop or ("tool_use" if called else "end_turn"),
        "stop_sequence": None,
        "usage": usage,
    }
    return Play(message=message)


def fails(status: int, kind: str = "api_error", words: str = "no", **headers: str) -> Play:
    error = {"type": "error", "error": {"type": kind, "message": words}}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Play(status=status, body=json.dumps(error).encode(), headers=sent)


def page() -> Play:
    return Play(body=b"<html><body>Welcome to the hotel's network</body></html>", content_type="text/html")


CUT_SHORT = Play(message=says(text("x" * 5000)).message, cut=True)
DROPPED, HELD = Play(drop=True), Play(hold=True)
SCRIPT_IS_OVER = fails(400, "invalid_request_error", "the script is over")
Script = Sequence[Play] | Callable[[dict[str, Any]], Play]


class MessagesServer:
    """Use as a context manager; `url` is its address, `requests` what it was sent, `problems` what was
    illegal.
    """

    def __init__(self, script: Script, key: str = KEY, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.key = key
        self._script: Iterator[Play] | Callable[[dict[str, Any]], Play]
        self._script = script if callable(script) else iter(script)
        self._prefixes: set[str] = set()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> MessagesServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def play(self, path: str, headers: Any, request: Any) -> Play:
        with self._lock:
            if headers.get("authorization") != f"Bearer {self.key}":
                return fails(401, "authentication_error", "invalid bearer token")
            wrong = problems_of(path, headers, request)
            self.requests.append(request)
            if wrong:
                self.problems += wrong
                return fails(400, "invalid_request_error", "; ".join(wrong))
            if request["model"] not in MODELS:
                return fails(404, "not_found_error", f"model: {request['model']}")
        # a script of its own may keep one request waiting for another
        if callable(self._script):
            play = self._script(request)
        with self._lock:
            if not callable(self._script):
                play = next(self._script, SCRIPT_IS_OVER)
                self.problems += ["the script is over"] * (play is SCRIPT_IS_OVER)
            if play.message is not None and play.message["usage"] is None:
                play.message["usage"] = self._usage(request)
            return play

    def model(self, path: str, headers: Any) -> Play:
        name = path.removeprefix("/v1/models/")
        if headers.get("authorization") != f"Bearer {self.key}":
            return fails(401, "authentication_error", "invalid bearer token")
        if name not in MODELS:
            return fails(404, "not_found_error", f"model: {name}")
        known = {"id": name, "type": "model", "display_name": name, "created_at": "2026-10-21T00:00:00Z"}
        return Play(body=json.dumps(known).encode())

    def _usage(self, request: dict[str, Any]) -> dict[str, Any]:
        """Token counts as caching makes them: the longest known marked prefix is read, the rest written."""
        total, read, written, rolling = 0, 0, 0, hashlib.sha256()
        known = set(self._prefixes)
        for block in _blocks(request):
            mark = block.get("cache_control")
            plain = json.dumps({key: value for key, value in block.items() if key != "cache_control"})
            total += len(plain) // 4
            rolling.update(plain.encode())
            if rolling.hexdigest() in known:
                read = total
            if mark:
                self._prefixes.add(rolling.hexdigest())
                written = total
        fresh = max(written - read, 0)
        return {
            "input_tokens": total - read - fresh,
            "output_tokens": 120,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": fresh,
            "cache_creation": {"ephemeral_1h_input_tokens": fresh, "ephemeral_5m_input_tokens": 0},
        }


def _blocks(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from request["tools"]
    yield from request["system"]
    for message in request["messages"]:
        yield from message["content"]


def _handler(server: MessagesServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: no delayed acknowledgement of 40 ms

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            """The list of models, which knows a key and a name for nothing."""
            play = server.model(self.path, self.headers)
            body = play.body or b""
            self.send_response(play.status)
            self.send_header("content-type", play.content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            request = json.loads(raw)
            play = server.play(self.path, self.headers, request)
            if play.hold:
                self.rfile.read(1)
            if play.hold or play.drop:
                self.close_connection = True
                return
            streamed = bool(request.get("stream")) and play.message is not None
            body = play.body if play.body is not None else _encode(play, streamed)
            self.send_response(play.status)
            self.send_header("content-type", "text/event-stream" if streamed else play.content_type)
            self.send_header("content-length", str(len(body)))
            for name, value in play.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if play.cut else body)
            self.close_connection = self.close_connection or play.cut

    return Handler


def _encode(play: Play, streamed: bool) -> bytes:
    if not streamed:
        written = json.dumps(play.message)
        for block in (play.message or {})["content"]:
            if "raw" in block:
                written = written.replace(json.dumps({"raw": block["raw"]})[1:-1], f'"input": {block["raw"]}')
        return written.encode()
    events = list(_events(play))
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def _events(play: Play) -> Iterator[dict[str, Any]]:
    message = play.message or {}
    start = {**message, "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
    if play.event:
        yield play.event
        return
    if not play.lose_end:
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": message["usage"]}
        yield {"type": "message_stop"}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] in ("tool_use", "server_tool_use"):
        started = {key: value for key, value in block.items() if key != "raw"}
        yield {"type": "content_block_start", "index": index, "content_block": {**started, "input": {}}}
        # cut anywhere, as the API does
        written = block.get("raw", json.dumps(block.get("input")))
        for part in (written[:7], written[7:]):
            delta = {"type": "input_json_delta", "partial_json": part}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
    elif block["type"] == "text":
        yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        delta = {"type": "text_delta", "text": block["text"]}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    else:
        yield {"type": "content_block_start", "index": index, "content_block": block}
    yield {"type": "content_block_stop", "index": index}
