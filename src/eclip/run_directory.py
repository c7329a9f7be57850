"""The run contract: what a run has done goes in, `result.json`, `embeddings.safetensors`, `config.yaml` come out."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig, OmegaConf
from safetensors.numpy import save_file

import eclip
from eclip.config import ConfigError

MOST_POINTS = 200


@dataclass
class Result:
    """`result.json`. Seconds are wall-clock; `metrics` holds means over folds and `fold<k>/<name>`."""

    status: str = "running"
    reason: str = ""
    steps: int = 0
    train_seconds: float = 0.0
    setup_seconds: float = 0.0
    peak_memory_bytes: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    commit: str | None = None
    package: str = ""


class RunDirectory:
    """Writes one run's files, each whole or not at all."""

    def __init__(self, path: Path, config: DictConfig) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run.dir={path}: {error.strerror}") from None
        OmegaConf.save(config, path / "config.yaml", resolve=True)

    def write(self, result: Result) -> None:
        """`result.json`: at most 200 points of the curve, six digits each, no NaN."""
        result.package = str(Path(eclip.__file__).parent)
        result.commit = commit_of(Path(eclip.__file__).parent)
        result.peak_memory_bytes = peak_memory_bytes()
        content = asdict(result)
        content["curve"] = [_rounded(point) for point in thinned(result.curve, MOST_POINTS)]
        text = json.dumps(content, indent=1, allow_nan=False)
        unfinished = self.path / "result.json.partial"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.path / "result.json")

    def write_embeddings(self, embeddings: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """`embeddings.safetensors`: fold<k>.image and fold<k>.text, (N, D) float32, in the order given."""
        unfinished = self.path / "embeddings.partial"
        save_file({name: np.ascontiguousarray(array) for name, array in embeddings.items()}, unfinished)
        unfinished.replace(self.path / "embeddings.safetensors")


def thinned(points: Sequence[dict[str, float]], most: int) -> list[dict[str, float]]:
    """At most `most` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    chosen = np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))
    return [points[i] for i in chosen]


def _rounded(point: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in point.items() if np.isfinite(value)}


def commit_of(folder: Path) -> str | None:
    """The git commit that `folder` is checked out at; None where there is no repository."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def peak_memory_bytes() -> int:
    """Of the GPU where one is in use, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds_since_process_start() -> float:
    """Wall-clock seconds since the interpreter was started, imports included."""
    fields: list[Any] = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
