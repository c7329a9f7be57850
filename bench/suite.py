"""Overrides go in, every figure of one machine comes out."""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import device as devices
from bench import evaluation, gpu, packing, startup
from bench.figures import Figure, Goal, paired
from bench.loops import BareLoop, device_of, train_in_turns
from bench.plain import PlainLoop
from bench.workload import Workload
from eclip.training import half_precision

Part = Callable[[], list[Figure]]
FLOP_STEPS = 10  # they differ in their texts' lengths and in whether they have experts


@dataclass(frozen=True)
class Suite:
    """Everything that is measured on one workload."""

    workload: Workload
    device: torch.device

    @classmethod
    def of(cls, overrides: Sequence[str], folder: Path, prints: int | None = None) -> Suite:
        """`prints`: how many training prints the loops see (None: those that were drawn)."""
        for chatty in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        workload = Workload.prepare(overrides, folder)
        if workload.settings.trainer.threads is not None:
            torch.set_num_threads(workload.settings.trainer.threads)
        if prints is not None:
            workload = workload.grown(prints)
        return cls(workload, device_of(workload.settings))

    @property
    def machine(self) -> str:
        return devices.machine(self.device)

    @property
    def work(self) -> str:
        settings = self.workload.settings
        return f"{settings.model.name}, batch {settings.trainer.batch_size}"

    def parts(self, lap: int, laps: int, repeats: int) -> dict[str, Part]:
        """What can be measured, by name: `laps` of `lap` steps for the loops, `repeats` of the rest."""
        parts: dict[str, Part] = {"three loops": lambda: self.steps(lap, laps)}
        if self.device.type == "cuda":
            parts |= self._on_gpu(lap, laps, repeats)
        return parts | {
            "start": lambda: self.start(repeats),
            "pack": lambda: [self.packing(repeats)],
            "evaluation": lambda: [self.ranks(repeats)],
        }

    def _on_gpu(self, lap: int, laps: int, repeats: int) -> dict[str, Part]:
        work, name = self.workload, self.machine
        return {
            "a whole fold": lambda: [gpu.whole_run(work, name)],
            "host and GPU": lambda: [gpu.launching(work, lap), gpu.upload(work), gpu.memory(work)],
            "ranks": lambda: [gpu.device_ranks(work, repeats)],
            "a million pairs": lambda: gpu.million(self.device),
            "torch.compile": lambda: [gpu.compiled(work, lap, laps, "torch.compile")],
            "compiled runs": lambda: gpu.compiled_runs(work, work.settings.trainer.max_steps),
            "CUDA graphs": lambda: [gpu.compiled(work, lap, laps, "with CUDA graphs", gpu.with_graphs)],
        }

    def steps(self, lap: int, laps: int) -> list[Figure]:
        """Steps a second of the three loops, and what share of the device's peak that is."""
        with PlainLoop(self.workload) as slow:
            rivals = BareLoop(self.workload), slow
            ours, (bare, plain) = train_in_turns(self.workload, rivals, lap, laps)
        rate, ceiling, floor = (f"{lap / statistics.median(s):.2f} steps/s" for s in (ours, bare, plain))
        goal = Goal(6 if self.device.type == "cuda" else 2, least=True)
        return [
            Figure(
                "train.py, bare loop",
                rate,
                ceiling,
                paired(ours, bare),
                Goal(0.95, least=True),
                "train_to_bare",
            ),
            Figure("train.py, plain loop", rate, floor, paired(ours, plain), goal, "train_to_plain"),
            self._flops(lap / statistics.median(ours)),
        ]

    def _flops(self, rate: float) -> Figure:
        loop = BareLoop(self.workload)
        loop.load(range(FLOP_STEPS))
        flops = devices.flops_of(loop.run) / FLOP_STEPS
        peak, source = devices.peak_flops(self.device, half_precision(self.workload.settings.trainer))
        return Figure(
            f"model FLOP/s ({flops / 1e9:.1f} GFLOP a step; {source})",
            f"{rate * flops / 1e9:.0f} GFLOP/s",
            f"{peak / 1e9:.0f} GFLOP/s",
            [rate * flops / peak],
        )

    def start(self, repeats: int) -> list[Figure]:
        """Of train.py in a process of its own, against a Python that only imports torch."""
        spawns, imports = [], []
        for _ in range(repeats):
            imports.append(startup.bare_import())
            with tempfile.TemporaryDirectory() as folder:
                spawns.append(startup.spawn(self.workload, Path(folder), "trainer.max_steps=2"))
        firsts = [spawn.first_step for spawn in spawns]
        first, floor = statistics.median(firsts), statistics.median(imports)
        after = statistics.median(spawn.after for spawn in spawns)
        memory = max(spawn.peak_bytes for spawn in spawns)
        return [
            Figure(
                "command to first step, import of torch",
                f"{first:.2f} s",
                f"{floor:.2f} s",
                paired(firsts, imports),
                key="import_to_start",
            ),
            Figure("last step to exit, 200 candidates", f"{after:.2f} s"),
            Figure("peak memory of train.py", f"{memory / 2**20:.0f} MiB"),
        ]

    def million(self, counts: tuple[int, ...]) -> list[Figure]:
        """Scores of a million pairs of width 512, extrapolated from `counts`."""
        found = evaluation.scaling(counts)
        measured = f"{found.seconds[-1]:.1f} s, {found.beyond_bytes[-1] / 2**20:.0f} MiB at {counts[-1]}"
        return [
            Figure("a million pairs of width 512: time", f"{found.million_seconds / 60:.0f} min", measured),
            Figure(
                "a million pairs: memory beyond them",
                f"{found.million_bytes / 2**30:.2f} GiB",
                goal=Goal(2, "GiB"),
                measured=found.million_bytes / 2**30,
            ),
        ]

    def packing(self, repeats: int) -> Figure:
        pairs = [
            (packing.pack_rate(self.workload), packing.decode_rate(self.workload)) for _ in range(repeats)
        ]
        pack, decode = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        size = self.workload.settings.model.image_size
        return Figure(
            f"pack at {size} px, one thread that decodes",
            f"{pack:.0f} prints/s",
            f"{decode:.0f} prints/s",
            [one / other for one, other in pairs],
            key="pack_to_decode",
        )

    def ranks(self, repeats: int) -> Figure:
        width = self.workload.settings.model.projection.dim
        many = 3 * repeats  # each takes a fraction of a second
        ours_, argsorts = evaluation.evaluation_seconds(width, many)
        ours, argsort = statistics.median(ours_), statistics.median(argsorts)
        return Figure(
            f"scores of {evaluation.CANDIDATES} x {width}, argsort",
            f"{1000 * ours:.0f} ms",
            f"{1000 * argsort:.0f} ms",
            paired(ours_, argsorts),
            Goal(50, "ms"),
            "scores_to_argsort",
            1000 * ours,
        )
