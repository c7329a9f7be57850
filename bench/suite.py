"""Overrides go in, every figure of one machine comes out."""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import device as devices
from bench import evaluation, packing, startup
from bench.figures import Figure, paired
from bench.loops import BareLoop, device_of, timed, train_in_turns
from bench.memory import peak_growth
from bench.plain import PlainLoop
from bench.workload import Workload
from eclip.compilation import compile_blocks
from eclip.training import half_precision


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

    def measure(self, lap: int, laps: int, repeats: int) -> list[Figure]:
        """`laps` of `lap` steps for the loops; `repeats` of the rest."""
        steps = self.steps(lap, laps)
        if self.device.type == "cuda":  # on a CPU the allocator has long taken what a step needs
            steps += [self.memory(), self.compiled(lap, laps), self.device_ranks(repeats)]
        return [*steps, *self.start(repeats), self.packing(repeats), self.ranks(repeats)]

    def steps(self, lap: int, laps: int) -> list[Figure]:
        """Steps a second of the three loops, and what share of the device's peak that is."""
        with PlainLoop(self.workload) as slow:
            rivals = BareLoop(self.workload), slow
            ours, (bare, plain) = train_in_turns(self.workload, rivals, lap, laps)
        rate, ceiling, floor = (f"{lap / statistics.median(s):.2f} steps/s" for s in (ours, bare, plain))
        goal = "6" if self.device.type == "cuda" else "2"
        return [
            Figure("train.py, bare loop", rate, ceiling, paired(ours, bare), "0.95", "train_to_bare"),
            Figure("train.py, plain loop", rate, floor, paired(ours, plain), goal, "train_to_plain"),
            self._flops(lap / statistics.median(ours)),
        ]

    def compiled(self, lap: int, laps: int, backend: str = "inductor") -> Figure:
        """The bare step with compiled blocks against the one without, and after how many steps that pays back."""
        plain, quick = BareLoop(self.workload), BareLoop(self.workload)
        compile_blocks(quick.module.model, backend)
        seconds: list[float] = []
        quick_seconds: list[float] = []
        for turn in range(1 + laps):
            steps = range(turn * lap, (turn + 1) * lap)
            for loop, times in ((plain, seconds), (quick, quick_seconds)):
                loop.load(steps)
                times.append(timed(loop.run, self.device))
        first = quick_seconds[0] - statistics.median(quick_seconds[1:])
        saved = (statistics.median(seconds[1:]) - statistics.median(quick_seconds[1:])) / lap
        back = f"pays back after {first / saved:.0f} steps" if saved > 0 else "never pays back"
        return Figure(
            f"torch.compile: {first:.0f} s, {back}",
            f"{lap / statistics.median(quick_seconds[1:]):.2f} steps/s",
            f"{lap / statistics.median(seconds[1:]):.2f} steps/s",
            paired(quick_seconds[1:], seconds[1:]),
        )

    def _flops(self, rate: float) -> Figure:
        loop = BareLoop(self.workload)
        loop.load(range(10))
        flops = devices.flops_of(loop.run) / 10
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
                "1 s",
                "import_to_start",
            ),
            Figure("last step to exit, 200 candidates", f"{after:.2f} s"),
            Figure("peak memory of train.py", f"{memory / 2**20:.0f} MiB"),
        ]

    def memory(self) -> Figure:
        """What a training step holds at most, beyond the weights: of train.py's model, in its precision."""
        loop = BareLoop(self.workload)
        loop.load(range(4))
        with peak_growth(self.device.type) as growth:
            loop.run()
        return Figure("peak memory of a training step", f"{growth.bytes / 2**20:.0f} MiB")

    def device_ranks(self, repeats: int) -> Figure:
        """Ranks of embeddings that lie on the device, and the host's."""
        width = self.workload.settings.model.projection.dim
        ours, host = evaluation.device_seconds(width, repeats, self.device)
        return Figure(
            f"ranks of {evaluation.CANDIDATES} x {width} on the device, on the host",
            f"{1000 * statistics.median(ours):.1f} ms",
            f"{1000 * statistics.median(host):.0f} ms",
            paired(ours, host),
            "5 ms",
        )

    def million(self, counts: tuple[int, ...]) -> list[Figure]:
        """Scores of a million pairs of width 512, extrapolated from `counts`."""
        found = evaluation.scaling(counts)
        measured = f"{found.seconds[-1]:.1f} s, {found.beyond_bytes[-1] / 2**20:.0f} MiB at {counts[-1]}"
        return [
            Figure("a million pairs of width 512: time", f"{found.million_seconds / 60:.0f} min", measured),
            Figure(
                "a million pairs: memory beyond them",
                f"{found.million_bytes / 2**30:.2f} GiB",
                goal="2 GiB",
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
            "50 ms",
            "scores_to_argsort",
        )
