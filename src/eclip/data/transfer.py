"""Numbers of the host go in and lie on a device; numbers of a device go in and are read on the host, later.

Nothing here makes the host wait for what a GPU has still to do, which is what keeps the GPU busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; to a GPU from pinned memory: a copy from any other first waits for the GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def constants(values: Sequence[float], device: torch.device) -> Tensor:
    """float32 [C, 1, 1], sent once for each device."""
    return _constants(tuple(values), device)


@lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made while evaluating, it must serve training, too
        return torch.tensor(values, device=device)[:, None, None]


class Reading:
    """Scalars of a device on their way to the host: made now, read when they are needed."""

    def __init__(self, scalars: dict[str, Tensor]) -> None:
        self.names = tuple(scalars)
        numbers = torch.stack([value.detach().float() for value in scalars.values()])
        self._numbers = numbers.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if numbers.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """The numbers; waits for the step that they are of, not for those after it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self.names, self._numbers.tolist(), strict=True))
