"""A pack in, the rows that a step asks for out: gathered on the host, or on a device that holds all the prints."""

from __future__ import annotations

import weakref
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from eclip.data.batch import Batch
from eclip.data.pack import Pack
from eclip.data.splits import Index
from eclip.data.transfer import sent

# of the device's free memory: the rest is the model's
DEVICE_SHARE = 0.5
Key = tuple[int, torch.device]
_copies: dict[Key, dict[str, Tensor]] = {}


class Gather(Protocol):
    """image, caption, boxes, box_count of the prints `row_B`, and phrase of the phrases `phrase_B`, as the pack
    holds them, on the device where they are needed."""

    def __call__(self, row_B: Index, phrase_B: Index) -> Batch: ...


def gather_from(pack: Pack, device: torch.device | str | None) -> Gather:
    """From the device if it holds the pack or can take it in, else from the host's memory; the rows are the same."""
    device = torch.device("cpu" if device is None else device)
    if device.type == "cpu":
        return HostGather(pack, device)
    tensors = copy_on(pack, device)
    return HostGather(pack, device) if tensors is None else DeviceGather(tensors)


class HostGather:
    """From mapped memory, by numpy's one thread: on a busy machine torch's threads wait for each other, 28 ms where
    this takes 0.05."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.arrays, self.device = _arrays(pack), device

    def __call__(self, row_B: Index, phrase_B: Index) -> Batch:
        return {
            name: sent(array[phrase_B if name == "phrase" else row_B], self.device)
            for name, array in self.arrays.items()
        }


class DeviceGather:
    """From the device's own memory: nothing but indices is sent, all in one piece."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors, self.device = tensors, tensors["image"].device

    def __call__(self, row_B: Index, phrase_B: Index) -> Batch:
        row, phrase = sent(np.stack([row_B, phrase_B]), self.device).unbind()
        return {
            name: tensor.index_select(0, phrase if name == "phrase" else row)
            for name, tensor in self.tensors.items()
        }


def copy_on(pack: Pack, device: torch.device) -> dict[str, Tensor] | None:
    """The pack's arrays on the device, sent there once for all folds that are cut from it and kept as long as it is;
    None where they would take too much of the device's memory."""
    key = id(pack), device
    if key not in _copies:
        arrays = _arrays(pack)
        if sum(array.nbytes for array in arrays.values()) > DEVICE_SHARE * free_bytes(device):
            return None
        _copies[key] = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        weakref.finalize(pack, _copies.pop, key, None)
    return _copies[key]


def free_bytes(device: torch.device) -> float:
    """What can still be had: of a GPU what nobody holds, and what torch holds there without using it."""
    if device.type != "cuda":
        return np.inf
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _arrays(pack: Pack) -> dict[str, np.ndarray]:
    return {
        "image": pack.images_NHWC,
        "caption": pack.captions_NL,
        "phrase": pack.phrases_ML,
        "boxes": pack.boxes_NR4,
        "box_count": pack.box_count_N,
    }
