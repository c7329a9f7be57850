"""Code runs inside a context; the most memory that it held beyond what was there before comes out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

# the kernel's own peak (VmHWM) cannot be reset everywhere, so the present size is looked at this often
SECONDS = 0.002


@dataclass
class Growth:
    bytes: int = 0


@contextmanager
def peak_growth(device: str = "cpu") -> Iterator[Growth]:
    """Of this process, its mapped files included; on a GPU of what torch allocated there."""
    growth = Growth()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield growth
        growth.bytes = torch.cuda.max_memory_allocated() - before
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(growth, resident_bytes(), done), daemon=True)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()


def _watch(growth: Growth, before: int, done: threading.Event) -> None:
    while True:
        growth.bytes = max(growth.bytes, resident_bytes() - before)
        if done.wait(SECONDS):
            return


def resident_bytes() -> int:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
