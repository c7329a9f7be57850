"""Code runs inside a context; the most memory that it held beyond what was there before comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
    before = _status("VmRSS")
    CLEAR.write_text("5")  # the kernel forgets the peak so far
    yield growth
    growth.bytes = _status("VmHWM") - before


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
