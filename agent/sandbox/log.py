"""A run's output enters as chunks of bytes; a bounded, cleaned log file and a tail leave."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from agent.sandbox.text import clean_text

TAIL_CHARACTERS = 16_384


class Log:
    """Keeps the first and the last half of `keep_bytes` of output, whatever its length.

    The first half is written as it comes, for people who look on; the last half on close. The file is opened
    before untrusted code runs, so a log inside the run directory cannot be redirected by a link.
    """

    def __init__(self, path: Path, keep_bytes: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        self._half = max(1, keep_bytes // 2)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._head = 0
        self._tail = bytearray()
        self.total = 0

    def write(self, chunk: bytes) -> None:
        """Take `chunk` in; nothing is refused, the middle of a long log is forgotten."""
        self.total += len(chunk)
        room = self._half - self._head
        if room > 0:
            self._write_out(self._decoder.decode(chunk[:room]))
            self._head += min(room, len(chunk))
        self._tail += chunk
        if len(self._tail) > 2 * self._half + 4 * TAIL_CHARACTERS:
            del self._tail[: -max(self._half, 4 * TAIL_CHARACTERS)]

    def tail(self) -> str:
        """The end of the output, cleaned, at most 16,384 characters."""
        return clean_text(bytes(self._tail[-4 * TAIL_CHARACTERS :]), limit=TAIL_CHARACTERS)

    def close(self) -> None:
        """Write what the file still lacks."""
        missing = self.total - self._head
        if missing > 0:
            end = bytes(self._tail[-min(self._half, missing) :])
            if missing > len(end):
                self._write_out(f"\n[… {missing - len(end)} bytes left out …]\n")
            self._write_out(end.decode("utf-8", errors="replace"))
        os.close(self._file)

    def _write_out(self, text: str) -> None:
        data = clean_text(text, limit=len(text) + 1).encode()
        while data:
            data = data[os.write(self._file, data) :]
