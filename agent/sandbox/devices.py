"""A /dev folder enters; the GPU device nodes that a run needs leave."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
_WINDOWS = "dxg"  # all GPUs of a Windows that Linux runs in
_CHOICES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
Gpus = Literal["all", "none"] | Sequence[int]


def gpu_devices(gpus: Gpus = "all", dev: Path = Path("/dev")) -> dict[str, Path]:
    """Path inside the sandbox -> node on the host, empty on a machine without NVIDIA devices.

    gpus: "all", "none", or the numbers N of the /dev/nvidiaN wanted. A number that is not there raises
    ValueError. With some of several, CUDA counts the visible ones from 0.
    """
    if gpus == "none":
        return {}
    cards = {int(path.name[len("nvidia") :]): path for path in dev.glob("nvidia[0-9]*") if _is_card(path)}
    chosen = sorted(cards) if gpus == "all" else [int(number) for number in gpus]
    if missing := [number for number in chosen if number not in cards]:
        raise ValueError(f"sandbox gpus={list(chosen)}: no device for {missing}, present are {sorted(cards)}")
    if not chosen:
        windows = dev / _WINDOWS
        return {f"/dev/{_WINDOWS}": windows} if gpus == "all" and _is_device(windows) else {}
    nodes = [*_shared_nodes(dev), *(cards[number] for number in chosen)]
    return {f"/dev/{node.relative_to(dev)}": node for node in nodes}


def choice_of_cards(environment: Mapping[str, str]) -> dict[str, str]:
    """What a person told CUDA by variables about which cards to use; it holds where all of them are shown."""
    return {name: environment[name] for name in _CHOICES if name in environment}


def card_numbers(devices: Mapping[str, Path]) -> list[int]:
    """The numbers N of the /dev/nvidiaN among them."""
    return sorted(int(match[1]) for name in devices if (match := re.fullmatch(r"/dev/nvidia(\d+)", name)))


def _shared_nodes(dev: Path) -> Iterator[Path]:
    yield from (dev / name for name in _SHARED if _is_device(dev / name))
    # capabilities of partitioned (MIG) cards
    yield from (node for node in sorted(dev.glob("nvidia-caps/*")) if _is_device(node))


def _is_card(path: Path) -> bool:
    return re.fullmatch(r"nvidia\d+", path.name) is not None and _is_device(path)


def _is_device(path: Path) -> bool:
    return path.exists() and stat.S_ISCHR(path.stat().st_mode)
