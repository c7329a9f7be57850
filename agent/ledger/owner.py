"""Who works on a study: a process enters, a string that names it for good leaves."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Owner:
    """A process by host, pid and the time it was started (Unix seconds): a pid alone is given out again."""

    host: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> Owner:
        """The calling process."""
        return cls(socket.gethostname(), os.getpid(), _start_time(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Owner:
        """The reverse of `str(owner)`; raises ValueError for anything else."""
        try:
            host, pid, started = text.rsplit(":", 2)
            return cls(host, int(pid), float(started))
        except ValueError as error:
            raise ValueError(f"owner {text!r} is not host:pid:start time") from error

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started:.2f}"

    def alive(self) -> bool | None:
        """Whether the process still runs; None where that cannot be known, because it ran on another host."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(_start_time(self.pid) - self.started) < 0.05
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _start_time(pid: int) -> float:
    return round(psutil.Process(pid).create_time(), 2)
