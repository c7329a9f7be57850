"""A device's name goes in, its peak FLOP/s comes out; a model's step goes in, its FLOPs come out."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

# dense peaks of the makers' datasheets, TFLOP/s: (bf16 with float32 accumulation, float32 without TF32)
DATASHEETS = {
    "B200": (2250.0, 75.0),
    "GH200": (989.0, 67.0),
    "H200": (989.0, 67.0),
    "H100 NVL": (835.0, 60.0),
    "H100 PCIe": (756.0, 51.0),
    "H100": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "L40S": (362.0, 91.6),
    "L40": (181.0, 90.5),
    "L4": (121.0, 30.3),
    "A10": (125.0, 31.2),
    "RTX 5090": (209.5, 104.8),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}
# of a matrix product that shows a device's peak: a GPU needs much of it, or its start is what is measured
SIDE, GPU_SIDE = 2048, 8192


def machine(device: torch.device) -> str:
    """What recorded ratios are kept under: the GPU's name, or the CPU's with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def peak_flops(device: torch.device, half: bool) -> tuple[float, str]:
    """(FLOP/s, where it is from): the datasheet of a known GPU, else the best matrix product measured here."""
    if device.type == "cuda" and (known := datasheet(torch.cuda.get_device_name(device))):
        return 1e12 * DATASHEETS[known][0 if half else 1], f"datasheet of {known}"
    side = GPU_SIDE if device.type == "cuda" else SIDE
    dtype = torch.bfloat16 if half else torch.float32
    return measured_peak(device, dtype, side), "measured matrix product"


def datasheet(name: str) -> str | None:
    """The key of DATASHEETS that a device's name holds as words."""
    return next((known for known in DATASHEETS if re.search(rf"\b{known}\b", name)), None)


def measured_peak(device: torch.device, dtype: torch.dtype, side: int, repeats: int = 7) -> float:
    """FLOP/s of square matrix products, the median."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = [timed(lambda: left @ right, device) for _ in range(1 + repeats)]
    return 2 * side**3 / statistics.median(seconds[1:])


def settled(device: torch.device) -> float:
    """The time, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of `run`, all that it gave the device to do included."""
    began = settled(device)
    run()
    return settled(device) - began


def flops_of(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in `run`, backward included."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return int(counter.get_total_flops())
