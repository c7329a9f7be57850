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
from torch import Tensor

from eclip.data.arrays import Array
from eclip.data.batch import PADDING, WHOLE, Batch, Share, bucket
from eclip.data.splits import FoldData, Index
from eclip.data.transfer import sent

__all__ = ["FoldData", "PrintsDataModule", "StepBatches", "sample"]

# of the device's free memory: the rest is the model's
DEVICE_SHARE = 0.5


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
    gather: from mapped memory (`device` None), or on a device that keeps a copy of all the prints, if they
    fit, so that nothing but indices is transferred.
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
        arrays: dict[str, Array] = {
            "image": pack.images_NHWC,
            "caption": pack.captions_NL,
            "phrase": pack.phrases_ML,
            "boxes": pack.boxes_NR4,
            "box_count": pack.box_count_N,
        }
        self.device = _where_it_fits(device, sum(array.nbytes for array in arrays.values()))
        self.sources = {name: _on(array, self.device) for name, array in arrays.items()}
        self.box_R = torch.arange(pack.boxes_NR4.shape[1], device=self.device)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.at, count(self.first_step))

    def at(self, step: int) -> Batch:
        """The batch of one step (from 0). Token lengths are those of all ranks together, so ranks agree."""
        position_B, uniform_B = sample(self.seed, step, len(self.rows_N), self.size)
        row_B = self.rows_N[position_B]
        first_B, end_B = self.offsets_N1[row_B], self.offsets_N1[row_B + 1]
        phrase_B = first_B + (uniform_B * (end_B - first_B)).astype(np.int64)
        caption_length = _bucket(self.caption_length_N[row_B], self.sources["caption"].shape[1])
        phrase_length = _bucket(self.phrase_length_M[phrase_B], self.sources["phrase"].shape[1])
        row_B, phrase_B = row_B[self.own], phrase_B[self.own]
        return {
            "image_BHWC": _take(self.sources["image"], row_B),
            "caption_BL": _take(self.sources["caption"], row_B)[:, :caption_length].long(),
            "phrase_BL": _take(self.sources["phrase"], phrase_B)[:, :phrase_length].long(),
            "boxes_BR4": _take(self.sources["boxes"], row_B),
            "valid_BR": self.box_R < _take(self.sources["box_count"], row_B)[:, None],
        }


def _bucket(length_B: npt.NDArray[np.int64], longest: int) -> int:
    return bucket(int(length_B.max()), longest)


def _where_it_fits(device: torch.device | str | None, size: int) -> torch.device | None:
    """`device`, or None when `size` bytes take too much of an accelerator: the batches are the same."""
    if device is None:
        return None
    device = torch.device(device)
    fits = device.type != "cuda" or size <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    return device if fits else None


def _on(array: Array, device: torch.device | None) -> Array | Tensor:
    return array if device is None else torch.from_numpy(array).to(device)


def _take(source: Array | Tensor, index_B: Index) -> Tensor:
    if isinstance(source, Tensor):
        return source.index_select(0, sent(index_B, source.device))
    # numpy's one thread: on a busy machine torch's threads wait for each other, 28 ms where this takes 0.05
    return torch.from_numpy(source[index_B])


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
