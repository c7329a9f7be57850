"""A command goes in; seconds until the first step, of the training, and from the last step to the exit come out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.workload import ROOT, Workload


@dataclass(frozen=True)
class Spawn:
    """One `python train.py` in a process of its own; all seconds are wall-clock."""

    first_step: float
    training: float
    total: float
    peak_bytes: int

    @property
    def after(self) -> float:
        """From the last step to the exit: embedding, scores, files, interpreter shutdown."""
        return self.total - self.first_step - self.training


def spawn(workload: Workload, folder: Path, *overrides: str) -> Spawn:
    """Runs train.py on the workload. Raises CalledProcessError, with its output, where it fails."""
    command = [sys.executable, str(ROOT / "train.py"), *workload.overrides, f"run.dir={folder}", *overrides]
    seconds = _seconds(command)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return Spawn(result["setup_seconds"], result["train_seconds"], seconds, result["peak_memory_bytes"])


def bare_import() -> float:
    """Seconds of a Python that imports torch and nothing else: the floor that start-up is measured in."""
    return _seconds([sys.executable, "-c", "import torch"])


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return time.perf_counter() - began
