"""A Zenodo of one record on loopback: files and faults enter; real HTTP and a log of it leave."""

import contextlib
import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

RECORD = "/api/records/1"


@dataclass
class Sent:
    """One answer: the record (key None) or a file, the Range asked for, the status, the body bytes sent."""

    key: str | None
    asked: str | None
    status: int
    body: int


@dataclass
class Zenodo:
    """The record's files by key, and how it misbehaves; `log` is what really went over the wire.

    - `break_after[key]`: for each coming answer, after how many bytes the connection is cut
    - `statuses[key]`: for each coming answer, an error status instead (key "" is the record)
    - `altered[key]`: how many coming answers have their first byte flipped
    - `while_sending`: told of each answer, once its bytes are settled and before they go out
    - `no_ranges`: keys sent whole whatever is asked
    """

    files: dict[str, bytes]
    break_after: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    headers: dict[str, str] = field(default_factory=dict)
    altered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    no_ranges: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    log: list[Sent] = field(default_factory=list)
    connections: int = 0
    while_sending: Callable[[Sent], None] = lambda sent: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    base: str = ""

    def record(self) -> dict[str, Any]:
        """As Zenodo's REST API describes the record."""
        return {
            "id": 1,
            "files": [
                {
                    "key": key,
                    "size": self.sizes.get(key, len(body)),
                    "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
                    "links": {"self": f"{self.base}{RECORD}/files/{key}/content"},
                }
                for key, body in self.files.items()
            ],
        }

    def requests(self, key: str | None) -> list[Sent]:
        """The answers about one file (None: the record)."""
        return [sent for sent in self.log if sent.key == key]

    def bytes_sent(self, key: str) -> int:
        """Body bytes of one file that went out, over all answers."""
        return sum(sent.body for sent in self.requests(key))

    def __enter__(self) -> "Zenodo":
        zenodo = self

        class Handler(_Handler):
            world = zenodo

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def record_url(self) -> str:
        """What --record-url takes."""
        return self.base + RECORD


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or headers and body, sent apart, wait 40 ms for each other
    world: Zenodo

    def setup(self) -> None:
        super().setup()
        with self.world.lock:
            self.world.connections += 1

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client may hang up in the middle
            super().handle()

    def log_message(self, *_: object) -> None:
        """Silent: the log is `Zenodo.log`."""

    def do_GET(self) -> None:
        match = re.fullmatch(f"{RECORD}(?:/files/(.+)/content)?", unquote(self.path))
        if match is None:
            self._send(None, 404, b"")
        elif match[1] is None:
            self._answer(None, json.dumps(self.world.record()).encode())
        elif match[1] in self.world.files:
            self._answer(match[1], self.world.files[match[1]])
        else:
            self._send(match[1], 404, b"")

    def _answer(self, key: str | None, body: bytes) -> None:
        with self.world.lock:
            errors = self.world.statuses[key or ""]
            status = errors.pop(0) if errors else 200
            if status == 200 and key and self.world.altered[key] > 0:
                self.world.altered[key] -= 1
                body = bytes([body[0] ^ 255]) + body[1:]
        if status != 200:
            return self._send(key, status, b"", self.world.headers)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span is None or key in self.world.no_ranges:
            return self._send(key, 200, body)
        first, last = int(span[1]), min(int(span[2]), len(body) - 1)
        self._send(key, 206, body[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(body)}"})

    def _send(self, key: str | None, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        with self.world.lock:
            cuts = self.world.break_after[key] if key and status < 300 else []
            sent = body[: cuts.pop(0)] if cuts else body
            entry = Sent(key, self.headers.get("Range"), status, len(sent))
            self.world.log.append(entry)
        self.world.while_sending(entry)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = len(sent) < len(body)
