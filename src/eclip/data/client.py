"""HTTP that goes on where it broke off: an address and a byte range enter; bytes, or a clear error, leave."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy

CHUNK = 1 << 14  # bytes; what a break can cost at most: an unfinished chunk is dropped
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
# Zenodo asks programs to name themselves: requests' own name has been throttled as a whole.
HEADERS = {"User-Agent": "kento-prepare-data/0.1 (Ukiyo-eVG)", "Accept-Encoding": "identity"}


class FetchError(RuntimeError):
    """The data cannot be had; the message says which file, why, and what to do."""


class NoNetworkError(FetchError):
    """Nothing answers at the server's address."""


class RangesRefusedError(FetchError):
    """The server sends whole files only."""


class TransientError(Exception):
    """Worth another attempt, after `wait` seconds where the server named them."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server; all but `attempts` in seconds."""

    attempts: int = 6  # in a row, without one new byte
    backoff: float = 1.0  # before the second attempt; doubles up to a minute
    connect: float = 2.0
    read: float = 60.0
    rate_limit: float = 3660.0  # Zenodo counts by the minute and by the hour


class Client:
    """A few kept-alive connections that go on where one breaks off; safe to share among threads.

    `notice` receives a sentence whenever somebody has to wait. `requests` and `received` count what was
    asked for and the bytes of the bodies that came.
    """

    def __init__(
        self,
        connections: int = 4,
        patience: Patience = Patience(),
        notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.requests = self.received = 0
        self._patience, self._notice = patience, notice
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._session = requests.Session()
        self._session.headers.update(HEADERS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=2, pool_maxsize=connections))

    def close(self) -> None:
        """End every wait and every transfer of this client, those of other threads too."""
        self._stopped.set()
        self._session.close()

    def reach(self, url: str) -> None:
        """Return if something listens at `url`'s host (or its proxy); NoNetworkError within seconds.

        On a thread of its own, because resolving a name takes no timeout and can hang for a minute.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise FetchError(f"{url!r} is not an http or https address")
        address = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
        port = address.port or (443 if address.scheme == "https" else 80)
        failures: list[BaseException] = [TimeoutError(f"no answer within {self._patience.connect:g} s")]

        def knock() -> None:
            try:
                socket.create_connection((address.hostname, port), self._patience.connect).close()
                failures.clear()
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=knock, daemon=True)
        thread.start()
        thread.join(self._patience.connect)
        if failures:
            raise NoNetworkError(f"{address.hostname}:{port} cannot be reached: {failures[-1]}")

    def json(self, url: str) -> Any:
        """The JSON document at `url`; FetchError if it is none."""
        failures = 0
        while True:
            try:
                body = b"".join(self._body(url, 0, None, whole=True))
                return json.loads(body)
            except ValueError as error:
                raise FetchError(f"{url} answered with something else than JSON: {body[:80]!r}") from error
            except TransientError as error:
                failures += 1
                self._pause(url, error, failures)

    def stream(self, url: str, start: int, end: int, whole: bool = False) -> Iterator[bytes]:
        """Yield bytes `start` to `end` (exclusive), going on by range request where a connection breaks.

        With `whole`, a server that ignores ranges may send everything from byte 0. RangesRefusedError where
        one is needed, or FetchError once `patience` is exhausted.
        """
        position, failures = start, 0
        while position < end:
            try:
                for chunk in self._body(url, position, end, whole):
                    position, failures = position + len(chunk), 0
                    yield chunk
                if position < end:
                    raise TransientError(f"it ended after {position:,} of {end:,} bytes")
            except TransientError as error:
                failures += 1
                self._pause(url, error, failures)

    def _body(self, url: str, start: int, end: int | None, whole: bool) -> Iterator[bytes]:
        headers = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        timeouts = (max(self._patience.connect, 5.0), self._patience.read)
        with self._lock:
            self.requests += 1
        try:
            with self._session.get(url, headers=headers, stream=True, timeout=timeouts) as response:
                self._check(response, url, start, end, whole)
                left = (1 << 62) if end is None else end - start
                for chunk in response.iter_content(CHUNK):
                    if self._stopped.is_set():
                        raise FetchError(f"{url}: stopped")
                    with self._lock:
                        self.received += len(chunk)
                    yield chunk[:left]
                    left -= len(chunk)
                    if left < 0:  # more than the record says; the checksum will tell
                        return
        except (requests.exceptions.SSLError, requests.exceptions.TooManyRedirects) as error:
            raise FetchError(f"{url}: {error}") from error
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise TransientError(f"the connection broke off ({type(error).__name__})") from error
        except requests.RequestException as error:
            raise FetchError(f"{url}: {error}") from error

    def _check(self, response: requests.Response, url: str, start: int, end: int | None, whole: bool) -> None:
        if response.status_code in TRANSIENT_STATUS:
            raise TransientError(f"HTTP {response.status_code} {response.reason}", _named_wait(response))
        if not response.ok:
            raise FetchError(f"{url}: HTTP {response.status_code} {response.reason}")
        if end is None or (whole and start == 0 and response.status_code == 200):
            return
        if response.status_code != 206:
            raise RangesRefusedError(f"{url}: asked for bytes {start:,} to {end:,}, was sent the whole file")
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise FetchError(
                f"{url}: asked from byte {start}, sent {response.headers.get('Content-Range')!r}"
            )

    def _pause(self, url: str, error: TransientError, failures: int) -> None:
        if failures >= self._patience.attempts:
            raise FetchError(f"{url}: {error}; {failures} attempts. Try again later.") from error
        backoff = min(self._patience.backoff * 2 ** (failures - 1), 60.0)
        wait = backoff if error.wait is None else max(error.wait, backoff)
        if wait > self._patience.rate_limit:
            raise FetchError(f"{url}: {error}, and wants {wait:,.0f} s of waiting. Try again after that.")
        if wait >= 5:
            self._notice(f"{urlsplit(url).hostname}: {error}; going on in {wait:.0f} s")
        if self._stopped.wait(wait):
            raise FetchError(f"{url}: stopped")


def _named_wait(response: requests.Response) -> float | None:
    """Seconds to wait: Retry-After (seconds or a date), else X-RateLimit-Reset (Zenodo's); None if unsaid."""
    after, reset = response.headers.get("Retry-After"), response.headers.get("X-RateLimit-Reset")
    try:
        if after is not None:
            moment = (
                time.time() + float(after) if after.isdigit() else parsedate_to_datetime(after).timestamp()
            )
        elif reset is not None and response.status_code == 429:
            moment = float(reset)
        else:
            return None
    except ValueError:
        return None
    return max(0.0, moment - time.time())
