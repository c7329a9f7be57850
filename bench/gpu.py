"""A workload on a GPU goes in; what only a GPU can show comes out, as figures."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from bench import evaluation
from bench.device import settled, timed
from bench.figures import Figure, Goal, paired
from bench.loops import BareLoop, device_of
from bench.memory import peak_growth
from bench.startup import spawn
from bench.workload import Workload
from eclip.compilation import compile_blocks, transformer_blocks
from eclip.training import build_module, train_fold

Compile = Callable[[nn.Module], None]
# the 800 steps of the published recipe have a goal on these
QUICK = ("H100", "H200", "B200")
# pairs at a time on the way to a million, and how long the million may take to be measured rather than extrapolated
MANY, MILLION, PATIENCE = 131_072, 1_000_000, 180.0


def upload(workload: Workload) -> Figure:
    """The prints' way from the page cache to the device: what every run pays once."""
    device, images = device_of(workload.settings), workload.data.train.images_NHWC
    seconds = min(timed(lambda: torch.from_numpy(images).to(device), device) for _ in range(3))
    size = images.nbytes / 1e9
    return Figure(
        f"upload of {len(images)} prints", f"{seconds:.2f} s", f"{size:.2f} GB, {size / seconds:.1f} GB/s"
    )


def launching(workload: Workload, lap: int) -> Figure:
    """How long the host takes to issue a step, beside how long the step takes: near 1 it is the host that is waited
    for, and fewer, larger kernels (torch.compile, CUDA graphs) would pay."""
    loop = BareLoop(workload)
    loop.load(range(lap))
    loop.run()
    began = settled(loop.device)
    loop.run()
    issued = time.perf_counter() - began
    done = settled(loop.device) - began
    each = 1000 / lap
    return Figure(
        "bare step: issued by the host, done",
        f"{each * issued:.2f} ms",
        f"{each * done:.2f} ms",
        [issued / done],
    )


def whole_run(workload: Workload, name: str) -> Figure:
    """train.py's own training of one fold: all its steps, from the call to the last kernel."""
    settings, device = workload.settings, device_of(workload.settings)
    module = build_module(settings, workload.data, None)
    with tempfile.TemporaryDirectory() as folder:
        console = Console(stderr=True)
        seconds = timed(lambda: train_fold(module, settings, workload.data, Path(folder), console), device)
    goal = Goal(20, "s") if any(quick in name for quick in QUICK) else None
    steps = f"{settings.trainer.max_steps} steps of train.py, one fold"
    return Figure(steps, f"{seconds:.1f} s", goal=goal, measured=seconds)


def compiled(
    workload: Workload, lap: int, laps: int, name: str, compile_: Compile = compile_blocks
) -> Figure:
    """The bare step with compiled blocks against the one without, and after how many steps that pays back."""
    torch._dynamo.reset()
    plain, quick = BareLoop(workload), BareLoop(workload)
    compile_(quick.module.model)
    seconds: list[float] = []
    quick_seconds: list[float] = []
    for turn in range(1 + laps):
        steps = range(turn * lap, (turn + 1) * lap)
        for loop, times in ((plain, seconds), (quick, quick_seconds)):
            loop.load(steps)
            times.append(timed(lambda: _run(loop), loop.device))  # noqa: B023 (called at once)
    first = quick_seconds[0] - statistics.median(quick_seconds[1:])
    saved = (statistics.median(seconds[1:]) - statistics.median(quick_seconds[1:])) / lap
    back = f"pays back after {first / saved:.0f} steps" if saved > 0 else "never pays back"
    return Figure(
        f"{name}: {first:.0f} s, {back}",
        f"{lap / statistics.median(quick_seconds[1:]):.2f} steps/s",
        f"{lap / statistics.median(seconds[1:]):.2f} steps/s",
        paired(quick_seconds[1:], seconds[1:]),
    )


def _run(loop: BareLoop) -> None:
    for inputs in loop.inputs:
        torch.compiler.cudagraph_mark_step_begin()  # what the step before left in its graphs is done with
        loop.step(inputs)


def with_graphs(model: nn.Module) -> None:
    """Each block compiled and replayed as a CUDA graph."""
    for block in transformer_blocks(model):
        block.compile(dynamic=False, mode="reduce-overhead")


def compiled_runs(workload: Workload, steps: int) -> list[Figure]:
    """A whole run from the command to its last step: compiled with an empty cache, with what that left there, and
    not compiled at all. Above 1 it has paid back. train.py's clock stands still while torch compiles: it is start.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, runs = Path(name), {}
        for way in ("uncompiled", "compiled", "compiled, from a cache"):
            asked = (f"trainer.compile={way != 'uncompiled'}", f"trainer.compile_cache={folder}/cache")
            runs[way] = spawn(workload, folder / way.replace(", ", "-"), f"trainer.max_steps={steps}", *asked)
    plain = runs.pop("uncompiled")
    seconds = {way: run.first_step + run.training for way, run in runs.items()}
    return [
        Figure(
            f"{steps} steps {way} ({run.first_step - plain.first_step:.1f} s of it compiling), not compiled",
            f"{seconds[way]:.1f} s",
            f"{plain.first_step + plain.training:.1f} s",
            [(plain.first_step + plain.training) / seconds[way]],
        )
        for way, run in runs.items()
    ]


def device_ranks(workload: Workload, repeats: int) -> Figure:
    """Ranks of embeddings that lie on the device, and the host's."""
    width = workload.settings.model.projection.dim
    ours, host = evaluation.device_seconds(width, repeats, device_of(workload.settings))
    return Figure(
        f"ranks of {evaluation.CANDIDATES} x {width} on the device, on the host",
        f"{1000 * statistics.median(ours):.1f} ms",
        f"{1000 * statistics.median(host):.0f} ms",
        paired(ours, host),
        Goal(5, "ms"),
        measured=1000 * statistics.median(ours),
    )


def million(device: torch.device, some: int = MANY, width: int = 512) -> list[Figure]:
    """A million pairs ranked on the device: measured, or by the square of `some` pairs where it would take long."""
    count, seconds, beyond = some, *evaluation.device_pairs(some, width, device)
    if (expected := seconds * (MILLION / some) ** 2) < PATIENCE and some >= MANY:
        count, seconds, beyond = MILLION, *evaluation.device_pairs(MILLION, width, device)
        expected = seconds
    how = f"measured at {count}: {seconds:.1f} s"
    size = (beyond + evaluation.BYTES_A_PAIR * (MILLION - count)) / 2**30
    return [
        Figure("a million pairs of width 512 on the device: time", f"{expected:.0f} s", how),
        Figure("a million pairs: memory beyond them", f"{size:.2f} GiB", goal=Goal(2, "GiB"), measured=size),
    ]


def memory(workload: Workload) -> Figure:
    """What a training step holds at most, beyond the weights: of train.py's model, in its precision."""
    loop = BareLoop(workload)
    loop.load(range(4))
    with peak_growth(loop.device.type) as growth:
        loop.run()
    return Figure("peak memory of a training step", f"{growth.bytes / 2**20:.0f} MiB")
