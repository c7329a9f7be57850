"""train.py's own loop and its rivals on the same steps: a workload goes in, seconds of each lap come out.

All run in one process and take turns every few steps, so that what else happens on the machine hits them alike.
"""

from __future__ import annotations

from eclip import lean_lightning  # noqa: F401  # isort: skip

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as L
import torch
from rich.console import Console
from torch import Tensor

from bench.device import settled, timed
from bench.workload import Workload
from eclip.config import Settings
from eclip.data.datamodule import StepBatches
from eclip.gpu import on_gpu
from eclip.lightning_module import ECLIPModule
from eclip.training import build_module, half_precision, train_fold

Seconds = list[float]


def device_of(settings: Settings) -> torch.device:
    return torch.device("cuda" if on_gpu(settings.trainer) else "cpu")


class Rival(Protocol):
    """A loop that is timed against train.py's: `load` is free, `run` is a lap."""

    device: torch.device

    def load(self, steps: range) -> None: ...

    def run(self) -> None: ...


class BareLoop:
    """The ceiling: forward, loss, backward, clip, fused AdamW; inputs of a lap lie on the device, ready.

    No Lightning, no data, no augmentation, no schedule, no curve. The model, the precision and the inputs
    of every step (expert batches included) are those of train.py.
    """

    def __init__(self, workload: Workload) -> None:
        settings = workload.settings
        self.device = device_of(settings)
        self.module = build_module(settings, workload.data, None).to(self.device).train()
        self.optimizer = self.module.configure_optimizers()
        size = settings.trainer.batch_size * settings.trainer.accumulate
        self.batches = StepBatches(workload.data, size, self.module.seed, device=self.device)
        self.half = half_precision(settings.trainer)
        self.inputs: list[dict[str, Any]] = []

    def load(self, steps: range) -> None:
        """The inputs of these steps, as train.py's module makes them."""
        self.inputs = [self._inputs(step) for step in steps]

    def _inputs(self, step: int) -> dict[str, Any]:
        batch = {key: value.to(self.device) for key, value in self.batches.at(step).items()}
        return self.module.inputs(batch, step, self.module.clock.share(step))

    def run(self) -> None:
        """A training step for each of the loaded inputs."""
        for inputs in self.inputs:
            self.step(inputs)

    def step(self, inputs: dict[str, Any]) -> Tensor:
        self.optimizer.zero_grad()
        with autocast(self.device, self.half):
            loss = self.module.objective(**self.module.model(**inputs))["loss"]
        loss.backward()
        self.module.clip()
        self.optimizer.step()
        return loss


def autocast(device: torch.device, half: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if half else contextlib.nullcontext()


class Turns(L.Callback):
    """Times laps of the Trainer's loop; after each, every rival runs one. The first laps are warm-up."""

    def __init__(self, rivals: Sequence[Rival], lap: int, laps: int) -> None:
        self.rivals, self.lap, self.laps = rivals, lap, laps
        self.device = rivals[0].device
        self.trainer_seconds: Seconds = []
        self.rival_seconds: list[Seconds] = [[] for _ in rivals]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._since = settled(self.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.global_step
        if done % self.lap:
            return
        self.trainer_seconds.append(settled(self.device) - self._since)
        for rival, seconds in zip(self.rivals, self.rival_seconds, strict=True):
            rival.load(range(done - self.lap, done))
            seconds.append(timed(rival.run, self.device))
        if len(self.trainer_seconds) > self.laps:
            trainer.should_stop = True
        self._since = settled(self.device)


def train_in_turns(
    workload: Workload, rivals: Sequence[Rival], lap: int, laps: int
) -> tuple[Seconds, list[Seconds]]:
    """Seconds of `laps` laps of `lap` steps each: (train_fold with Lightning, callbacks and bar; each rival)."""
    module: ECLIPModule = build_module(workload.settings, workload.data, None)
    turns = Turns(rivals, lap, laps)
    with tempfile.TemporaryDirectory() as folder:
        console = Console(stderr=True)
        train_fold(module, workload.settings, workload.data, Path(folder), console, callbacks=[turns])
    return turns.trainer_seconds[1:], [seconds[1:] for seconds in turns.rival_seconds]
