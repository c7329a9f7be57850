"""Trainer settings go in; whether a run trains on a GPU, and why it cannot, comes out."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from eclip.config import ConfigError, Trainer

DEVICES = Path("/dev")


def on_gpu(settings: Trainer) -> bool:
    """Whether the run trains on a GPU: when told to, or when there is one. ConfigError where it is told and cannot."""
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(f"trainer.accelerator=gpu: {why_no_gpu()}")
    return settings.accelerator == "gpu" or (settings.accelerator == "auto" and torch.cuda.is_available())


def why_no_gpu() -> str:
    """Why torch sees no GPU, and what to do about it."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"torch {torch.__version__} was built without CUDA; on a machine with an NVIDIA GPU install the build of "
            f"the package index (pip install --force-reinstall torch=={torch.__version__.partition('+')[0]})"
        )
    if not cards():
        return "there is no NVIDIA device under /dev; `nvidia-smi` must show a GPU first"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides every GPU"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"CUDA does not start on {', '.join(cards())}: {error}"
    return "CUDA starts, and finds no GPU"


def cards() -> list[str]:
    """The GPUs that this machine, or this sandbox, shows; on Windows' Linux all of them are one."""
    nodes = [path for path in DEVICES.glob("nvidia[0-9]*") if path.name[len("nvidia") :].isdigit()]
    return [str(path) for path in (*sorted(nodes), DEVICES / "dxg") if path.exists()]


def idle_card(settings: Trainer) -> str:
    """Why a GPU that is here is not trained on though nobody said so; empty where there is none, or it is."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    if settings.accelerator != "auto" or hidden or not cards() or torch.cuda.is_available():
        return ""
    return why_no_gpu()


def device_name(settings: Trainer) -> str:
    """What a log calls it."""
    return torch.cuda.get_device_name() if on_gpu(settings) else "the CPU"


def gpu_has_bf16() -> bool:
    """Whether this process's GPU multiplies bf16 (Ampere and later); where it does not, torch emulates it, slowly."""
    return torch.cuda.get_device_capability() >= (8, 0)
