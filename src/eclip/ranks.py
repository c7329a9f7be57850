"""One process's tensors, gradients and clock go in; what all processes of a run share comes out.

Every rank computes the whole loss from everybody's embeddings, and carries the gradients of its own rows back.
The sum of the ranks' gradients is then the gradient of the whole batch, exactly: nothing is averaged, no
collective runs in the backward pass. A step without experts leaves the heatmap processor without gradients on
all ranks alike (one coin), so no unused parameter is searched for, and none gets a gradient of zeros, which
would let AdamW shrink it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eclip.data.batch import Share

# gradients travel in pieces of so many bytes: the copies of one hide behind the transport of another
PIECE = 32 * 2**20
FAILURE = "eclip/failure"
# how gloo says that a process is gone or hangs; NCCL has its own errors
SILENCE = ("gloo", "pair closure", "Connection closed by peer", "Connection reset by peer")


@dataclass(frozen=True)
class Ranks:
    """This process's place among all; the default is a process alone, for which everything is the identity.

    `host` is a group over gloo: what hosts agree on makes no GPU wait.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    host: Any = None
    store: Any = None

    @property
    def share(self) -> Share:
        return Share(self.rank, self.world_size)

    def agreed(self, value: float) -> float:
        """Rank 0's value. A collective: every rank calls it, or all wait."""
        if self.world_size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(number, 0, group=self.host)
        return number.item()

    def spanning(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A model's outputs as if all ranks' rows had gone through it at once, rank 0's rows first.

        Outputs of rows end in `_BD` and are all of one shape; the others (scale, bias) are equal on all ranks.
        """
        if self.world_size == 1:
            return outputs
        rows = sorted(name for name in outputs if name.endswith("_BD"))
        gathered_NKD = _Gathered.apply(torch.stack([outputs[name] for name in rows], 1), self)
        spanned = {name: _Divided.apply(value, self.world_size) for name, value in outputs.items()}
        return spanned | {name: gathered_NKD[:, k] for k, name in enumerate(rows)}

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Each gradient becomes the sum over ranks, in place. All ranks must have gradients for the same ones."""
        if self.world_size == 1:
            return
        pieces = [
            (
                piece,
                flat := torch.cat([gradient.flatten() for gradient in piece]),
                dist.all_reduce(flat, async_op=True),
            )
            for piece in _pieces([p.grad for p in parameters if p.grad is not None])
        ]
        for piece, flat, work in pieces:
            work.wait()
            parts = flat.split([gradient.numel() for gradient in piece])
            torch._foreach_copy_(piece, [part.view_as(g) for part, g in zip(parts, piece, strict=True)])

    def check_equal(self, tensors: Iterable[Tensor]) -> None:
        """Raises RuntimeError where the ranks' weights are not the same to the last bit."""
        if self.world_size == 1:
            return
        own = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors])
        first = own.clone()
        dist.broadcast(first, 0, group=self.host)
        if different := int((own != first).sum()):
            raise RuntimeError(
                f"rank {self.rank} starts from other weights than rank 0 ({different} of {len(own)} tensors differ): "
                "every node needs the same code, packages and pretrained weights"
            )

    def report(self, status: str, reason: str) -> None:
        """Tells the others why this rank ends; the first report of all counts."""
        if self.store is not None:
            text = json.dumps({"rank": self.rank, "status": status, "reason": reason})
            try:
                self.store.compare_set(FAILURE, "", text)
            except RuntimeError:  # rank 0, who keeps the store, has gone first
                return

    def cut_off(self, error: BaseException | None) -> bool:
        """Whether `error` says that another process could not be heard."""
        heard = not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in SILENCE)
        return self.world_size > 1 and not heard

    def failure(self) -> dict[str, Any] | None:
        """The first report of another rank: rank, status, reason. None where there is none."""
        try:
            if self.store is None or not self.store.check([FAILURE]):
                return None
            found: dict[str, Any] = json.loads(self.store.get(FAILURE))
        except RuntimeError:
            found = {"rank": 0, "status": "crashed", "reason": "it left without a word"}
        return found if found["rank"] != self.rank else None


ALONE = Ranks()


class AgreedTime:
    """Rank 0's clock, in seconds, standing still between `tick`s, so that all ranks read the same."""

    def __init__(self, ranks: Ranks, now: Callable[[], float] = time.perf_counter) -> None:
        self.ranks, self._now = ranks, now
        self._value = now()

    def __call__(self) -> float:
        return self._value if self.ranks.world_size > 1 else self._now()

    def tick(self) -> None:
        """A collective: all ranks call it at the same points."""
        if self.ranks.world_size > 1:
            self._value = self.ranks.agreed(self._now())


def _pieces(gradients: list[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one dtype and device, together at most PIECE bytes."""
    pieces: list[list[Tensor]] = []
    room = 0
    for gradient in gradients:
        kind = (gradient.dtype, gradient.device)
        if gradient.nbytes > room or (pieces[-1][0].dtype, pieces[-1][0].device) != kind:
            pieces.append([])
            room = PIECE
        pieces[-1].append(gradient)
        room -= gradient.nbytes
    return pieces


class _Gathered(torch.autograd.Function):
    """[B, K, D] of each rank -> [B * ranks, K, D] on all; the gradient of a rank's own rows comes back."""

    @staticmethod
    def forward(context: Any, rows_BKD: Tensor, ranks: Ranks) -> Tensor:
        context.own = ranks.share.of(len(rows_BKD) * ranks.world_size)
        all_NKD = rows_BKD.new_empty(len(rows_BKD) * ranks.world_size, *rows_BKD.shape[1:])
        dist.all_gather(list(all_NKD.chunk(ranks.world_size)), rows_BKD.contiguous())
        return all_NKD

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][context.own], None


class _Divided(torch.autograd.Function):
    """The same value; each rank brings back its part of the gradient that all have in full."""

    @staticmethod
    def forward(context: Any, value: Tensor, ranks: int) -> Tensor:
        context.ranks = ranks
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / context.ranks, None
