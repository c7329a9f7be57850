"""Import torchvision beside a CPU build of torch, whose package index has no CPU torchvision to match.

Its wheel then fails with "operator torchvision::nms does not exist", and with it timm, lightning,
torchmetrics and DistilBERT. Nothing here calls these operators, so declaring their schemas is enough.
Import this module before any of those: `from eclip import torchvision_fix  # noqa: F401`.
"""

from __future__ import annotations

import importlib
import sys

import torch


def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _mend() -> torch.library.Library | None:
    """The declared operators, to be kept alive for the whole process; None where torchvision works."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = _declare_operators()
        importlib.import_module("torchvision")
        return library
    return None


# registered operators vanish when their library is collected
operators = _mend()
