"""A fold's pack in, one dict of tensors a step out: what a step holds depends on (seed, step) alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from typing import Any, Literal, cast

from eclip import lean_lightning  # noqa: F401  # isort: skip

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule

from eclip.data.batch import PADDING, WHOLE, Batch, Share, bucket
from eclip.data.gather import gather_from
from eclip.data.splits import FoldData, Index

__all__ = ["FoldData", "PrintsDataModule", "StepBatches", "sample"]


def sample(seed: int, step: int, prints: int, size: int) -> tuple[Index, npt.NDArray[np.float64]]:
    """(position_B in [0, prints), uniform_B in [0, 1)) of a step's `size` prints.

    Every epoch is a fresh shuffle cut into batches without replacement; what does not fill a last batch is
    left out, so no batch holds a print twice. Both come from Philox streams addressed by (seed, epoch) and
    (seed, step): any step can be drawn without those before it.
    """
    epoch, batch = divmod(step, prints // size)
    position_B = _shuffled(seed, epoch, prints)[batch * size : (batch + 1) * size]
    return position_B, _philox(seed, "phrases", step).random(size)


@lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, prints: int) -> Index:
    return _philox(seed, "epochs", epoch).permutation(prints)


def _philox(seed: int, stream: Literal["epochs", "phrases"], index: int) -> np.random.Generator:
    """A generator at the start of stream `index`; the next call for the same seed and stream moves it."""
    generator, start = _stream(seed, stream)
    # the index is the counter's highest word, so streams never overlap
    start["state"]["counter"][3] = index
    generator.bit_generator.state = start
    return generator


@lru_cache(maxsize=4)
def _stream(seed: int, stream: Literal["epochs", "phrases"]) -> tuple[np.random.Generator, dict[str, Any]]:
    # made once: that takes 0.1 ms. The key tells streams apart
    bits = np.random.Philox(key=np.array([seed, stream == "phrases"], dtype=np.uint64))
    return np.random.Generator(bits), cast(dict[str, Any], bits.state)


class StepBatches:
    """The endless batches of a run: iterating starts at `first_step`, `at(step)` gives any one of them.

    `size` prints a step over all ranks, of which this rank has its contiguous slice. A batch is one
    gather: from mapped memory, or on a device that keeps a copy of all the prints, if they fit, so that
    nothing but indices is transferred (`gather`).
    """

    def __init__(
        self,
        fold_data: FoldData,
        size: int,
        seed: int,
        *,
        first_step: int = 0,
        share: Share = WHOLE,
        device: torch.device | str | None = None,
    ) -> None:
        self.rows_N = fold_data.train_rows_N
        if not 0 < size <= len(self.rows_N):
            raise ValueError(f"batch_size x accumulate = {size}: use 1 to {len(self.rows_N)} training prints")
        self.size, self.seed, self.first_step = size, seed, first_step
        self.own = share.of(size)
        pack = fold_data.train
        self.offsets_N1 = np.asarray(pack.phrase_offsets_N1)
        # lengths are needed on the host, where shapes are decided
        self.caption_length_N = (pack.captions_NL != PADDING).sum(axis=1)
        self.phrase_length_M = (pack.phrases_ML != PADDING).sum(axis=1)
        self.longest = pack.captions_NL.shape[1], pack.phrases_ML.shape[1]
        self.box_count_N = np.asarray(pack.box_count_N)
        self.gather = gather_from(pack, device)
        self.box_R = torch.arange(pack.boxes_NR4.shape[1], device=device)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.at, count(self.first_step))

    def at(self, step: int) -> Batch:
        """The batch of one step (from 0). Token lengths are those of all ranks together, so ranks agree."""
        position_B, uniform_B = sample(self.seed, step, len(self.rows_N), self.size)
        row_B = self.rows_N[position_B]
        first_B, end_B = self.offsets_N1[row_B], self.offsets_N1[row_B + 1]
        phrase_B = first_B + (uniform_B * (end_B - first_B)).astype(np.int64)
        caption_length = _bucket(self.caption_length_N[row_B], self.longest[0])
        phrase_length = _bucket(self.phrase_length_M[phrase_B], self.longest[1])
        # the heatmaps' time is the boxes': a pack holds room for its richest print's (13, where a batch needs 9)
        boxes = int(self.box_count_N[row_B].max())
        found = self.gather(row_B[self.own], phrase_B[self.own])
        return {
            "image_BHWC": found["image"],
            "caption_BL": found["caption"][:, :caption_length].long(),
            "phrase_BL": found["phrase"][:, :phrase_length].long(),
            "boxes_BR4": found["boxes"][:, :boxes],
            "valid_BR": self.box_R[:boxes] < found["box_count"][:, None],
        }


def _bucket(length_B: npt.NDArray[np.int64], longest: int) -> int:
    return bucket(int(length_B.max()), longest)


class PrintsDataModule(LightningDataModule):
    """Training batches of `batch_size * accumulate` prints a step; see StepBatches.

    `first_step` is the step to resume at. `device` keeps a copy of the prints, if they fit.
    """

    def __init__(
        self,
        fold_data: FoldData,
        batch_size: int,
        accumulate: int,
        seed: int,
        *,
        first_step: int = 0,
        share: Share = WHOLE,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.fold_data = fold_data
        self.batches = StepBatches(
            fold_data,
            batch_size * accumulate,
            seed,
            first_step=first_step,
            share=share,
            device=device,
        )

    def train_dataloader(self) -> StepBatches:
        return self.batches
