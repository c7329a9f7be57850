"""A GPU that any machine has: tensors that say `cuda:0` and compute on the CPU; what a GPU refuses is refused, and
every place where the host would have to wait for it is noted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

GPU = torch.device("cuda", 0)
NAME = "NVIDIA H100, pretended"
# what a real one would make the host wait for, or copy from memory that only a waiting copy may read
LOOKS = {
    "item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__repr__", "__contains__", "equal",
    "allclose", "nonzero", "masked_select", "unique", "argwhere", "bincount", "is_nonzero",
}  # fmt: skip
# host and device may meet in these
MOVES = {"to", "copy_", "type_as", "__setitem__", "__getitem__", "index", "set_", "__set__", "_foreach_copy_",
         "_has_compatible_shallow_copy_type"}  # fmt: skip
NOTHING = ("_lazy_init", "set_device", "synchronize", "empty_cache", "manual_seed", "reset_peak_memory_stats")
own_generator, own_autocast, own_device_type = torch.Generator, torch.autocast, torch.device
own_grouping = torch._C._group_tensors_by_device_and_dtype


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; its numbers lie in the host's memory."""

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class PretendedGpu(TorchFunctionMode):
    """Inside, what is asked for on `cuda` is made there."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.in_flight: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {}, self)

    def note(self, what: str) -> None:
        """The host waits here, and for whom."""
        place, inside, frame = None, "", sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if place is None and "/src/eclip/" in code.co_filename:
                place = f"{Path(code.co_filename).name}:{code.co_name}"
            if code.co_name == "training_step":
                inside = " in a step"
            frame = frame.f_back
        self.waits.append(f"{what} at {place}{inside}")


RUNNING: list[PretendedGpu] = []


def carried_out(func: Any, args: Any, kwargs: dict[str, Any], gpu: PretendedGpu | None = None) -> Any:
    gpu = gpu or RUNNING[-1]
    name = getattr(func, "__name__", str(func))
    leaves = pytree.tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    theirs = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    hosts = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.ndim]
    if name == "pin_memory":
        return _pinned(args[0])
    if theirs and hosts and name not in MOVES:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
    if theirs and name in LOOKS:
        gpu.note(name)
    if name == "__getitem__" and theirs:
        _check_index(gpu, args[1])
    asked = _asked(name, args, kwargs)
    if asked is None:
        there = bool(theirs) and not (
            name in ("copy_", "_foreach_copy_") and not isinstance(_first(args), OnGpu)
        )
    else:
        there = asked.type == "cuda"
        if there and (generator := kwargs.get("generator")) is not None and generator.device.type != "cuda":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        args, kwargs = pytree.tree_map_only(own_device_type, lambda _: torch.device("cpu"), (args, kwargs))
        args, kwargs = pytree.tree_map_only(
            str, lambda s: "cpu" if s.startswith("cuda") else s, (args, kwargs)
        )
    moved = _moved(gpu, name, args, kwargs, bool(theirs), there)
    with torch._C.DisableTorchFunctionSubclass():
        found = func(*args, **kwargs)
        if moved and found is args[0]:
            found = found.clone()
        if moved == "later":
            arriving = (
                torch.full_like(found, torch.nan) if found.is_floating_point() else torch.zeros_like(found)
            )
            gpu.in_flight.append((arriving, found.clone()))
            return arriving
        return pytree.tree_map_only(Tensor, lambda t: _placed(t, there, tensors), found)


def _first(args: Any) -> Any:
    return pytree.tree_leaves(args)[0]


def _placed(tensor: Tensor, there: bool, given: list[Tensor]) -> Tensor:
    if any(tensor is one for one in given) or isinstance(tensor, OnGpu) == there:
        return tensor
    return tensor.as_subclass(OnGpu if there else Tensor)


def _pinned(tensor: Tensor) -> Tensor:
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


def _check_index(gpu: PretendedGpu, index: Any) -> None:
    for part in index if isinstance(index, tuple) else (index,):
        tensor = isinstance(part, Tensor)
        if isinstance(part, list) or (tensor and (part.dtype == torch.bool or not isinstance(part, OnGpu))):
            gpu.note("an index that the host must know or send")


def _asked(name: str, args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    """The device that a call names; None: it stays where its tensors are."""
    if name in ("cpu", "cuda"):
        return torch.device(name)
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    if name != "to":
        return None
    for part in args[1:]:
        if isinstance(part, own_device_type | str):
            return torch.device(part)
        if isinstance(part, Tensor):
            return part.device
    return None


def _moved(gpu: PretendedGpu, name: str, args: Any, kwargs: dict[str, Any], theirs: bool, there: bool) -> str:
    """ "" where nothing passes between host and device, else "now" or "later"."""
    if name in ("tensor", "as_tensor", "asarray") and there and not theirs:
        gpu.note(f"{name} of the host's numbers")
        return ""
    if name in ("copy_", "_foreach_copy_"):
        kinds = {
            isinstance(leaf, OnGpu)
            for leaf in pytree.tree_leaves(args)
            if isinstance(leaf, Tensor) and leaf.ndim
        }
        if len(kinds) == 2:
            gpu.note(name)
        return ""
    if name not in ("to", "cpu", "cuda") or isinstance(args[0], OnGpu) == there:
        return ""
    patient = kwargs.get("non_blocking") or any(part is True for part in args[1:])
    if patient and not there:
        return "later"
    if not (patient and getattr(args[0], "pinned", False)):
        gpu.note("from the GPU" if not there else "to the GPU, from pageable memory")
    return "now"


class Event:
    """torch.cuda.Event: what was on its way when it was recorded has arrived when it was waited for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.sent: list[tuple[Tensor, Tensor]] = []

    def record(self, *_: Any) -> None:
        self.sent, RUNNING[-1].in_flight = RUNNING[-1].in_flight, []

    def synchronize(self) -> None:
        for arriving, value in self.sent:
            arriving.copy_(value)


class Generator(own_generator):
    """One that says where it is."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    device = property(lambda self: self.place)


def grouped(lists: Any, *rest: Any) -> Any:
    """torch's grouping by device, which C++ asks the tensors for."""
    there = any(isinstance(tensor, OnGpu) for tensor in lists[0])
    return {
        (GPU if there else device, dtype): group
        for (device, dtype), group in own_grouping(lists, *rest).items()
    }


def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    return own_autocast("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Inside, this machine has one GPU."""
    gpu = PretendedGpu()
    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_capability": (9, 0),
        "get_device_name": NAME, "mem_get_info": (80 * 2**30, 80 * 2**30), "memory_allocated": 0,
        "memory_reserved": 0, "max_memory_allocated": 2**30, "is_initialized": True,
        **dict.fromkeys(NOTHING),
    }  # fmt: skip
    before = torch.__future__.get_swap_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in answers.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value, **__: value, raising=False)
        patch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state())
        patch.setattr(torch.cuda, "set_rng_state", lambda state, *_: torch.set_rng_state(state))
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "autocast", autocast)
        # a module that moves keeps its parameters, as on a real GPU
        torch.__future__.set_swap_module_params_on_conversion(True)
        RUNNING.append(gpu)
        try:
            with gpu:
                yield gpu
        finally:
            RUNNING.pop()
            torch.__future__.set_swap_module_params_on_conversion(before)
