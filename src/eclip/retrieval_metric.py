"""Embeddings of numbered images and texts go in, batch by batch on any rank; retrieval scores come out."""

from __future__ import annotations

from eclip import lean_lightning  # noqa: F401  # isort: skip

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from torch import Tensor

from eclip.device_ranks import ranks_on
from eclip.metrics import retrieval_scores

Pairs = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


class RetrievalMetric(torchmetrics.Metric):
    """Mean rank, median rank and recall over all ranks of a distributed run.

    Images and texts come apart, each with its number; equal numbers belong together.
    Numbers that several ranks saw (padding of the last batch) count once.
    """

    full_state_update = False
    image: list[Tensor]
    image_number: list[Tensor]
    text: list[Tensor]
    text_number: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("image", "image_number", "text", "text_number"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, kind: str, number_B: Tensor, embedding_BD: Tensor) -> None:
        """`kind` is "image" or "text"."""
        getattr(self, kind).append(embedding_BD.float())
        getattr(self, f"{kind}_number").append(number_B)

    def compute(self) -> dict[str, float]:
        return retrieval_scores(*self.ordered(), ranks_on(self.device))

    def ordered(self) -> Pairs:
        """(image_ND, text_ND), each sorted by number. Call inside a compute, after ranks were gathered."""
        return self._sorted("image"), self._sorted("text")

    def _sorted(self, kind: str) -> npt.NDArray[np.float32]:
        number = _joined(getattr(self, f"{kind}_number")).cpu().numpy()
        embedding = _joined(getattr(self, kind)).cpu().numpy()
        unique, first = np.unique(number, return_index=True)
        if not np.array_equal(unique, np.arange(len(unique))):
            raise ValueError(f"{kind} numbers must be 0..{len(unique) - 1} without gaps")
        return np.ascontiguousarray(embedding[first])


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    return parts if isinstance(parts, Tensor) else torch.cat(parts)
