"""This machine's /proc enters; gone is what a supervisor, killed at the wrong millisecond, left behind.

When a supervisor dies, its sandboxes die with it (--die-with-parent). The exception: bubblewrap's inner
process, between its birth and its first word from the outer one, waits for ever if both others are killed
then. Nothing of the payload runs in it, but it stays. Every descriptor that a supervisor passes to bubblewrap
carries the supervisor's name, so what it left can be told from everything else.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_PREFIX = "sandbox"


def supervisor_mark() -> str:
    """This process's name on memory files: PID namespace, PID and start time, which no other process has."""
    return _mark(os.getpid()) or ""


def sweep_strays() -> list[int]:
    """SIGKILL each bubblewrap process of this user and PID namespace whose supervisor is dead; their PIDs."""
    killed = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.joinpath("comm").read_text() != "bwrap\n" or folder.stat().st_uid != os.geteuid():
                continue
            if _orphaned(folder):
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
    return killed


def _orphaned(folder: Path) -> bool:
    """Whether the process holds a memory file of a supervisor of this PID namespace that is no more."""
    ours = f"/memfd:{_PREFIX}-{_namespace()}-"
    for link in folder.joinpath("fd").iterdir():
        target = str(link.readlink())
        if target.startswith(ours):
            mark = target.removeprefix("/memfd:").removesuffix(" (deleted)")
            return _mark(int(mark.split("-")[2])) != mark
    return False


def _mark(pid: int) -> str | None:
    """None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return f"{_PREFIX}-{_namespace()}-{pid}-{int(fields[19])}"


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
