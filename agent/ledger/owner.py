"""Who works on a study: a process enters, a string that names it for good leaves."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Owner:
    """A process by host, pid and when it was started: a pid alone is given out again.

    started: seconds since the boot, on Linux. Unix seconds of the same would change whenever the clock is set, and
    with them the answer to whether it still runs; elsewhere the system keeps them.
    host: the machine's name and, behind an @, which boot and which process namespace of it: two containers
    may have the same name, and each its own process 17.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> Owner:
        """The calling process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A process of this machine."""
        return cls(_host(), pid, _start_time(pid))

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

    @property
    def machine(self) -> str:
        """The machine's name, for people."""
        return self.host.partition("@")[0]

    def alive(self) -> bool | None:
        """Whether the process still runs; None where that cannot be known, because it ran on another host."""
        if self.host != _host():
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(_start_time(self.pid) - self.started) < 0.05
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@cache
def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        place = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        place = ""
    return f"{socket.gethostname()}@{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def _start_time(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        # no such process, or no Linux
        return round(psutil.Process(pid).create_time(), 2)
    return round(int(fields[19]) / os.sysconf("SC_CLK_TCK"), 2)
