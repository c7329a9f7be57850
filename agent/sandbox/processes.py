"""A sandbox's /proc enters; what its processes use (memory, CPU time, unlinked files) leaves."""

from __future__ import annotations

import os
import select
import signal
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY = (b"RssAnon:", b"RssShmem:", b"VmSwap:", b"VmPTE:")
_SHARED_MEMORY = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


@dataclass(frozen=True)
class Usage:
    """memory_bytes counts shared pages once per process; cpu_seconds includes children already waited for."""

    memory_bytes: int
    cpu_seconds: float


class Processes(Protocol):
    """The processes of one run, seen from outside."""

    def usage(self) -> Usage:
        """What all of them use now."""

    def shared_memory_bytes(self) -> int:
        """As usage().memory_bytes, but each shared page counted once; slower."""

    def unlinked_bytes(self, device: int) -> int:
        """Bytes on file system `device` held by open files that have no name any more."""

    def tmpfs_inodes(self) -> int:
        """Files in the run's own memory file systems."""

    def kill(self) -> None:
        """SIGKILL to all of them; safe to repeat."""

    def gone(self) -> bool:
        """True when none is left."""


class NamespaceProcesses:
    """All processes of the PID namespace whose first process is `first`, a PID of the caller's namespace.

    Holds the sandbox's own /proc open, so it lists no other process, and nothing inside can hide from it;
    and a pidfd, so a kill cannot hit a recycled PID. Use while untrusted code has not started yet.
    """

    def __init__(self, first: int, parent: int) -> None:
        self._pidfd = os.pidfd_open(first)
        self._descriptors = [self._pidfd]
        try:
            if _parent(first) != parent:
                raise ProcessLookupError(f"process {first} is not a child of {parent} any more")
            self._proc = self._open(f"/proc/{first}/root/proc")
            self._tmpfs = [self._open(f"/proc/{first}/root{path}") for path in ("/tmp", "/dev/shm")]
        except OSError:
            self.close()
            raise

    def _open(self, path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        return descriptor

    def fileno(self) -> int:
        """Readable when the first process, and with it the whole namespace, is gone."""
        return self._pidfd

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def usage(self) -> Usage:
        memory, ticks = 0, 0
        for pid in self._pids():
            memory += _sum_kib(self._read(f"{pid}/status"), _MEMORY)
            # the command name, in parentheses, may hold anything; utime is the 12th field after it
            fields = self._read(f"{pid}/stat").rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
        return Usage(memory, ticks / _TICKS)

    def shared_memory_bytes(self) -> int:
        total = 0
        for pid in self._pids():
            status = self._read(f"{pid}/status")
            rollup = self._read(f"{pid}/smaps_rollup")
            total += _sum_kib(rollup, _SHARED_MEMORY) if rollup else _sum_kib(status, _MEMORY[:3])
            total += _sum_kib(status, _MEMORY[3:])
        return total

    def unlinked_bytes(self, device: int) -> int:
        held: dict[int, int] = {}
        for pid in self._pids():
            for line in self._read(f"{pid}/maps").splitlines():
                if line.endswith(b" (deleted)"):
                    addresses, _, _, where, inode, _ = line.split(maxsplit=5)
                    if where == b"%02x:%02x" % (os.major(device), os.minor(device)):
                        first, last = (int(address, 16) for address in addresses.split(b"-"))
                        held[int(inode)] = held.get(int(inode), 0) + last - first
            for name in self._list(f"{pid}/fd"):
                with suppress(OSError):
                    found = os.stat(f"{pid}/fd/{name}", dir_fd=self._proc)
                    if found.st_dev == device and found.st_nlink == 0 and stat.S_ISREG(found.st_mode):
                        held[found.st_ino] = found.st_blocks * 512
        return sum(held.values())

    def tmpfs_inodes(self) -> int:
        figures = [os.fstatvfs(descriptor) for descriptor in self._tmpfs]
        return sum(figure.f_files - figure.f_ffree for figure in figures)

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it may have gone by itself
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def gone(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def _pids(self) -> list[str]:
        return [name for name in self._list(".") if name.isdigit()]

    def _list(self, path: str) -> list[str]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return []
        try:
            return os.listdir(descriptor)  # noqa: PTH208 (a descriptor, not a path)
        except OSError:
            return []
        finally:
            os.close(descriptor)

    def _read(self, path: str) -> bytes:
        """The file's content; empty when its process has ended meanwhile."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return b""
        chunks = []
        with suppress(OSError):
            while chunk := os.read(descriptor, 1 << 16):
                chunks.append(chunk)
        os.close(descriptor)
        return b"".join(chunks)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def _sum_kib(text: bytes, names: tuple[bytes, ...]) -> int:
    lines = (line.split() for line in text.splitlines() if line.startswith(names))
    return 1024 * sum(int(line[1]) for line in lines)
