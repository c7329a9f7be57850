"""What goes into a sandboxed run (limits, mounts, a command) and what comes out of it (`Finished`)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

KilledBy = Literal["wall", "memory", "disk", "log", "cpu", "stop"]

RUN_DIR = "/run_dir"
"""Where every sandboxed run finds its one writable, lasting folder."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may use, in bytes and seconds; for the run as a whole unless it says otherwise.

    memory_bytes: anonymous, shared, swapped and page-table memory of all processes; page cache is free.
    processes: processes and threads alive at one time. open_files: per process.
    file_bytes: the largest single file. disk_bytes, inodes: the run directory, unlinked open files included.
    log_bytes: how much of standard output and error is kept (half from the start, half from the end);
    log_kill_bytes: how much may be written at all. cpu_seconds: over all processes; None for no limit.
    shm_bytes, tmp_bytes: the sizes of /dev/shm and /tmp, which live in memory beside memory_bytes.
    """

    wall_seconds: float
    memory_bytes: int
    file_bytes: int
    disk_bytes: int
    inodes: int
    log_bytes: int
    log_kill_bytes: int
    shm_bytes: int
    tmp_bytes: int
    cpu_seconds: float | None = None
    processes: int = 256
    open_files: int = 4096

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"sandbox limit {name} must be positive, got {value!r}")


@dataclass(frozen=True)
class Mount:
    """The host's `source` (a folder or a file), read-only at the absolute path `target` inside."""

    source: Path
    target: str

    def __post_init__(self) -> None:
        parts = self.target.split("/")
        if (
            not self.target.startswith("/")
            or self.target == "/"
            or any(part in (".", "..") for part in parts)
        ):
            raise ValueError(f"mount target {self.target!r} must be an absolute path below / without . or ..")


@dataclass(frozen=True)
class Finished:
    """How a run ended. Everything in it was measured from outside, but for two claims of untrusted code.

    returncode: None when the supervisor killed the run, or, with killed_by None too, when something else on
        the machine killed the sandbox itself. A claim: untrusted code chooses it.
        128 + n stands for death by signal n, 126 and 127 for a command that could not be executed.
    killed_by: the limit that ended the run, "stop" for the caller's event, None for a run that ended itself.
    seconds: from the first instruction of the command to the last process gone.
    peak_memory_bytes: the highest polled use (see Limits.memory_bytes); a run shorter than 20 ms may show 0.
    log_tail: the end of standard output and error, cleaned for terminals and prompts. Also a claim.
    started: False when `stop` was set, or the sandbox was killed, before the command began.
    waited: seconds in which nothing ran for it: until a machine was free, its files were there, and what a
        machine that was lost had done. Not charged.
    cold: why the interpreter was started anew where libraries should have been loaded already; else empty.
    """

    returncode: int | None
    killed_by: KilledBy | None
    seconds: float
    peak_memory_bytes: int
    log_tail: str
    started: bool
    waited: float = 0.0
    cold: str = ""


@dataclass(frozen=True)
class Preload:
    """Libraries for a command that is a Python script: see agent.sandbox.forkserver.

    modules: what to import ahead, never the script's own. hidden: packages that probes are not to find meanwhile.
    """

    modules: tuple[str, ...]
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of untrusted code: what it is, what it sees, and what it may use.

    run_dir: an existing folder of the host, writable inside at /run_dir, which is also the working directory.
    mounts: what else of the host is visible. masked: paths inside, each below a mount, that an empty read-only
    file or folder hides. environment: all that the command sees of the environment beside PATH, HOME, TMPDIR,
    LANG and USER. log_path: receives output and errors. preload: `command` is Python, a script and its
    arguments, and may begin in a process that has these libraries imported already.
    """

    command: Sequence[str]
    run_dir: Path
    log_path: Path
    limits: Limits
    mounts: Sequence[Mount] = ()
    masked: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    preload: Preload | None = None


class SandboxUnavailable(RuntimeError):
    """Nothing was run, because it could not have been run safely: why (`cause`) and what to do (`fix`)."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(f"sandbox unavailable: {cause}\nfix: {fix}")
        self.cause = cause
        self.fix = fix


class Sandbox(Protocol):
    """Runs untrusted commands. `name` goes to the ledger and the report."""

    name: str

    def check(self) -> None:
        """Run a probe. Raises SandboxUnavailable when the guarantees cannot be given here."""

    def shown(self) -> Sequence[Path]:
        """Folders of this machine that every run can read, whatever is mounted: system, interpreter, drivers."""

    def gpus(self) -> list[int]:
        """The numbers of the cards that a run may use."""

    def with_gpus(self, numbers: Sequence[int]) -> Sandbox:
        """The same, for runs that may use only these cards of this machine; CUDA counts them from 0."""

    def run(self, job: Job, stop: threading.Event | None = None) -> Finished:
        """See the job to its end or to a limit; return when all of its processes are gone.

        stop: set it from another thread to end the run.
        """

    def prepare(self, preload: Preload, environment: Mapping[str, str]) -> None:
        """Begin to import what `run` will be called with, and return at once."""

    def close(self) -> None:
        """End what was prepared; runs go on."""
