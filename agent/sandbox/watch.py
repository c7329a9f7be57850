"""Limits and a run's processes enter; which limit is broken, if any, leaves, each time it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from agent.sandbox.base import KilledBy, Limits
from agent.sandbox.disk import Unmeasurable, measure
from agent.sandbox.processes import Processes

MEMORY_EVERY = 0.1
DISK_EVERY = 0.3
_QUICK_EVERY, _QUICK_UNTIL = 0.02, 0.4
# the whole machine's reserves below which a run is killed, whoever used them up: what kernel buffers,
# descriptors in flight and the like take is in no process's account
_MEMORY_RESERVE = 0.04
_DISK_RESERVE_BYTES = 256 * 2**20


class Watch:
    """Polls one run. Times are seconds since the run's start, given by the caller.

    run_dir: an open descriptor. host_memory: the machine's total and available bytes.
    """

    def __init__(
        self,
        processes: Processes,
        limits: Limits,
        run_dir: int,
        host_memory: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._processes = processes
        self._limits = limits
        self._run_dir = run_dir
        self._host_memory = host_memory or linux_memory
        self._device = os.fstat(run_dir).st_dev
        total, available = self._host_memory()
        self._memory_reserve = min(int(_MEMORY_RESERVE * total), available // 2)
        self._disk_reserve = min(_DISK_RESERVE_BYTES, self._free_disk() // 2)
        self._memory_due = self._disk_due = 0.0
        self._kills_before = _out_of_memory_kills()
        # a sum below which no closer look at shared pages is needed
        self._suspicious = limits.memory_bytes
        self._look_again = 0.0
        self.peak_memory_bytes = 0

    def next_due(self) -> float:
        """When `broken` next has something to look at."""
        return min(self._memory_due, self._disk_due, self._limits.wall_seconds)

    def broken(self, now: float) -> KilledBy | None:
        """The limit that is broken at `now`; looks only at what is due."""
        if now >= self._limits.wall_seconds:
            return "wall"
        verdict: KilledBy | None = None
        if now >= self._memory_due:
            self._memory_due = now + (_QUICK_EVERY if now < _QUICK_UNTIL else MEMORY_EVERY)
            verdict = self._memory_or_cpu(now)
        if verdict is None and now >= self._disk_due:
            self._disk_due = now + DISK_EVERY
            verdict = "disk" if self._disk_broken() else None
        return verdict

    def final(self) -> KilledBy | None:
        """What a run that ended between two looks still broke."""
        return "disk" if self._disk_broken() else None

    def kernel_ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed anything on this machine for want of memory since the run began."""
        return _out_of_memory_kills() > self._kills_before

    def _memory_or_cpu(self, now: float) -> KilledBy | None:
        usage = self._processes.usage()
        if self._memory_broken(usage.memory_bytes, now):
            return "memory"
        cpu_limit = self._limits.cpu_seconds
        return "cpu" if cpu_limit is not None and usage.cpu_seconds > cpu_limit else None

    def _memory_broken(self, memory: int, now: float) -> bool:
        """Workers that share pages are counted twice in the sum, so a high sum is confirmed before it kills.

        The confirmation walks page tables; a sum found innocent is believed until it has grown by half of
        what was left, or for a second.
        """
        if self._host_memory()[1] < self._memory_reserve:
            return True
        limit = self._limits.memory_bytes
        if memory <= limit:
            self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
            self._suspicious = limit
            return False
        if memory <= self._suspicious and now < self._look_again:
            return False
        shared_once = self._processes.shared_memory_bytes()
        self.peak_memory_bytes = max(self.peak_memory_bytes, shared_once)
        self._suspicious = memory + max(0, limit - shared_once) // 2
        self._look_again = now + 1.0
        return shared_once > limit

    def _disk_broken(self) -> bool:
        try:
            total, _ = measure(self._run_dir, self._limits.inodes)
        except Unmeasurable:
            return True
        if self._processes.tmpfs_inodes() > self._limits.inodes:
            return True
        total += self._processes.unlinked_bytes(self._device)
        return total > self._limits.disk_bytes or self._free_disk() < self._disk_reserve

    def _free_disk(self) -> int:
        figures = os.fstatvfs(self._run_dir)
        return figures.f_bavail * figures.f_frsize


def linux_memory() -> tuple[int, int]:
    """The machine's memory and what of it is available, bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    found = {parts[0]: 1024 * int(parts[1]) for parts in lines if len(parts) > 1}
    return found["MemTotal:"], found["MemAvailable:"]


def _out_of_memory_kills() -> int:
    path = Path("/proc/vmstat")
    lines = path.read_text().splitlines() if path.exists() else ()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
