"""One contrastive matrix over several chunks: chunks of a batch in, gradients of the whole batch out.

GradCache (arXiv 2101.06983). Summing the gradients of small batches would shrink the pool of negatives; here
the first pass embeds all chunks without keeping activations, the loss over all embeddings gives their
gradients, and the second pass repeats each chunk to carry them back. Memory is one chunk's, time about 4/3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Chunk = Mapping[str, Any]
Loss = Callable[..., dict[str, Tensor]]


def cached_step(model: nn.Module, chunks: Sequence[Chunk], loss_fn: Loss) -> dict[str, Tensor]:
    """Add the gradients of `loss_fn(**model(whole batch))["loss"]` to the parameters; return its parts.

    chunks: keyword arguments of the model's forward, the same keys in each. Outputs with rows (names ending
    in `_BD`) are joined over chunks; the others (scale, bias) must not depend on the input. Dropout repeats
    in the second pass what it drew in the first. An autocast context, if any, is the caller's.
    """
    states: list[RandomState] = []
    passes: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for chunk in chunks:
            states.append(RandomState.of(chunk))
            passes.append(model(**chunk))
    # a weight cast without gradients must not serve the second pass: not all versions of PyTorch see to it
    torch.clear_autocast_cache()
    leaves = {name: join([out[name] for out in passes], name) for name in passes[0]}
    with torch.enable_grad():
        losses = loss_fn(**leaves)
        losses["loss"].backward()
    start = 0
    for index, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        rows = len(passes[index]["image_BD"])
        repeat(model, chunk, state, leaves, slice(start, start + rows), with_shared=index == 0)
        start += rows
    return {name: value.detach() for name, value in losses.items()}


def repeat(
    model: nn.Module,
    chunk: Chunk,
    state: RandomState,
    leaves: Mapping[str, Tensor],
    rows: slice,
    with_shared: bool,
) -> None:
    """The second pass of one chunk: its rows' cached gradients, and once those of shared outputs, go back."""
    with state.again(), torch.enable_grad():
        out = model(**chunk)
    outputs, gradients = [], []
    for name, value in out.items():
        gradient = leaves[name].grad
        if gradient is None or not value.requires_grad or not (is_rows(name) or with_shared):
            continue
        outputs.append(value)
        gradients.append(gradient[rows] if is_rows(name) else gradient)
    torch.autograd.backward(outputs, gradients)


def join(parts: list[Tensor], name: str) -> Tensor:
    """All chunks' rows, or the first chunk's shared value, as a leaf that takes a gradient."""
    return (torch.cat(parts) if is_rows(name) else parts[0]).detach().requires_grad_()


def is_rows(name: str) -> bool:
    return name.endswith("_BD")


class RandomState:
    """The generators' state before a chunk, on the CPU and on the chunk's own device."""

    def __init__(self, devices: list[torch.device]) -> None:
        self.devices = devices
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in devices]

    @classmethod
    def of(cls, chunk: Chunk) -> RandomState:
        tensors = [value for value in chunk.values() if isinstance(value, Tensor)]
        return cls(sorted({t.device for t in tensors if t.device.type == "cuda"}, key=str))

    @contextmanager
    def again(self) -> Iterator[None]:
        """A context that starts from this state and leaves the generators as they were outside."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
