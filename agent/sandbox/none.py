"""A command enters and runs as the caller, unprotected, under polled limits; how it ended leaves."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from agent.sandbox.base import RUN_DIR, Finished, Job, Limits, Preload
from agent.sandbox.devices import card_numbers, gpu_devices
from agent.sandbox.log import Log
from agent.sandbox.processes import Usage
from agent.sandbox.supervise import Supervisor
from agent.sandbox.watch import Watch

_MARK = "SANDBOX_NONE_RUN"
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "USER",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)


class Unsandboxed:
    """sandbox=none: for machines without bubblewrap, chosen by hand, named in the ledger and the report.

    Untrusted code can read and write whatever the caller can, use the network, and escape the limits on
    purpose. Wall clock, memory, CPU time, disk and log limits still end a run that breaks them by accident;
    those on processes, /dev/shm and /tmp do not exist, and masked paths stay readable. Paths inside (mount
    targets and /run_dir) are replaced by the host's in the command and in the environment.
    """

    name = "none"

    def __init__(self) -> None:
        self._chosen: Mapping[str, str] = {}

    def shown(self) -> Sequence[Path]:
        """Nothing is hidden here, which the ledger and the report say; there is no more to warn of."""
        return ()

    def gpus(self) -> list[int]:
        """See Sandbox.gpus."""
        return card_numbers(gpu_devices())

    def with_gpus(self, numbers: Sequence[int]) -> Unsandboxed:
        """See Sandbox.with_gpus; a request to CUDA here, as nothing is enforced."""
        other = Unsandboxed()
        # the devices' numbers follow the bus, CUDA's own order the cards' speed
        other._chosen = {
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers)),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        return other

    def check(self) -> None:
        """Nothing to check: nothing is promised."""

    def prepare(self, preload: Preload, environment: Mapping[str, str]) -> None:
        """Nothing: runs start cold here."""

    def close(self) -> None:
        """Nothing was prepared."""

    def run(self, job: Job, stop: threading.Event | None = None) -> Finished:
        """See Sandbox.run."""
        if stop is not None and stop.is_set():
            return Finished(None, "stop", 0.0, 0, "", started=False)
        mark = secrets.token_hex(8)
        mounts = {mount.target: str(mount.source.absolute()) for mount in job.mounts}
        paths = {RUN_DIR: str(job.run_dir.absolute()), **mounts}
        began = time.monotonic()
        folder = os.open(job.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with closing(Log(job.log_path, job.limits.log_bytes)) as log:
            process = subprocess.Popen(
                [*_limited(job.limits), *(on_host(word, paths) for word in job.command)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                cwd=job.run_dir, start_new_session=True,
                env=_environment({**job.environment, **self._chosen}, paths, mark),
            )  # fmt: skip
            tree = MarkedProcesses(process, mark)
            assert process.stdout is not None
            try:
                watch = Watch(tree, job.limits, folder, _host_memory)
                killed_by = Supervisor(tree, watch, process.stdout.fileno(), log, job.limits).supervise(stop)
            finally:
                tree.kill()
                process.wait()
                process.stdout.close()
                os.close(folder)
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            seconds = time.monotonic() - began
            return Finished(
                None if killed_by else code,
                killed_by,
                seconds,
                watch.peak_memory_bytes,
                log.tail(),
                started=True,
            )


class MarkedProcesses:
    """A command's descendants, found again by a mark in their environment when they have left the tree."""

    def __init__(self, leader: subprocess.Popen[bytes], mark: str) -> None:
        self._leader, self._mark = leader, mark
        self._known: set[psutil.Process] = {psutil.Process(leader.pid)}
        self._killed_after_end = False

    def usage(self) -> Usage:
        memory, cpu = 0, 0.0
        for process in self._alive():
            with suppress(psutil.Error):
                info, times = process.memory_info(), process.cpu_times()
                memory += info.rss - getattr(info, "shared", 0) if info.rss else 0
                cpu += times.user + times.system + getattr(times, "children_user", 0.0)
        return Usage(memory, cpu)

    def shared_memory_bytes(self) -> int:
        return self.usage().memory_bytes

    def unlinked_bytes(self, device: int) -> int:
        return 0

    def tmpfs_inodes(self) -> int:
        return 0

    def kill(self) -> None:
        for process in {*self._alive(), *self._marked()}:
            with suppress(psutil.Error):
                process.kill()
        if self._leader.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader.pid, signal.SIGKILL)

    def gone(self) -> bool:
        """True when the command has ended; what it left running is killed first."""
        if self._leader.poll() is None:
            return False
        if not self._killed_after_end:
            self.kill()
            self._killed_after_end = True
        return not self._alive()

    def _alive(self) -> list[psutil.Process]:
        """Those known, and their descendants by one look at the machine's processes, that still run."""
        children: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process)
        found = {process for process in self._known if _runs(process)}
        pending = list(found)
        while pending:
            new = set(children.get(pending.pop().pid, ())) - found
            found |= new
            pending += new
        self._known = {process for process in found if _runs(process)}
        return list(self._known)

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self._mark:
                    yield process


def _host_memory() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def on_host(text: str, paths: Mapping[str, str]) -> str:
    """`text` with each inside path (a key of `paths`, or below one) replaced by the host's."""
    inside = sorted(paths, key=len, reverse=True)
    pattern = r"(?<![\w./-])(" + "|".join(map(re.escape, inside)) + r")(?![\w.-])"
    return re.sub(pattern, lambda match: paths[match.group(1)], text)


def _environment(environment: Mapping[str, str], paths: Mapping[str, str], mark: str) -> dict[str, str]:
    """The caller's mapping and what programs need to start; nothing else, so keys and tokens do not leak."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    given = {name: on_host(value, paths) for name, value in environment.items()}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **given, _MARK: mark}


def _limited(limits: Limits) -> list[str]:
    """Linux: die with the caller's thread, and the limits that the kernel keeps per process."""
    if not (shutil.which("setpriv") and shutil.which("prlimit")):
        return []
    size, files = limits.file_bytes, limits.open_files
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("prlimit", f"--nofile={files}:{files}", f"--fsize={size}:{size}", "--core=0:0", "--"),
    ]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
