"""A started run, its output pipe and its watch enter; the limit that ended it, or None, leaves."""

from __future__ import annotations

import os
import selectors
import threading
import time

from agent.sandbox.base import KilledBy, Limits
from agent.sandbox.log import Log
from agent.sandbox.processes import Processes
from agent.sandbox.watch import Watch

_CHUNK = 1 << 18
_STOP_EVERY = 0.1
_AFTER_KILL = 0.02


class Supervisor:
    """Drains the output and asks the watch, in the calling thread, until the last process is gone."""

    def __init__(
        self,
        processes: Processes,
        watch: Watch,
        output: int,
        log: Log,
        limits: Limits,
        wake: int | None = None,
    ) -> None:
        self._processes, self._watch, self._limits = processes, watch, limits
        self._output, self._log = output, log
        self._output_open = True
        self._selector = selectors.DefaultSelector()
        os.set_blocking(output, False)
        self._selector.register(output, selectors.EVENT_READ)
        if wake is not None:
            self._selector.register(wake, selectors.EVENT_READ)

    def supervise(self, stop: threading.Event | None) -> KilledBy | None:
        """Return when nothing of the run is left. An exception leaves it to the caller to kill the run."""
        began = time.monotonic()
        killed_by: KilledBy | None = None
        try:
            while not self._processes.gone():
                now = time.monotonic() - began
                if killed_by is None:
                    killed_by = self._reason(now, stop)
                if killed_by is not None:
                    self._processes.kill()
                self._wait(_AFTER_KILL if killed_by else min(self._watch.next_due() - now, _STOP_EVERY))
            while self._output_open and self._read():
                pass
        finally:
            self._selector.close()
        return killed_by or self._reason_after_the_end()

    def _reason(self, now: float, stop: threading.Event | None) -> KilledBy | None:
        if stop is not None and stop.is_set():
            return "stop"
        if self._log.total > self._limits.log_kill_bytes:
            return "log"
        return self._watch.broken(now)

    def _reason_after_the_end(self) -> KilledBy | None:
        return "log" if self._log.total > self._limits.log_kill_bytes else self._watch.final()

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(max(0.0, seconds)):
            if key.fd == self._output:
                self._read()

    def _read(self) -> bool:
        """Take one chunk; False when there is none now."""
        try:
            chunk = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._selector.unregister(self._output)
            self._output_open = False
            return False
        self._log.write(chunk)
        return True
