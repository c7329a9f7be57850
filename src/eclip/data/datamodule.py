"""A fold's pack in, one dict of tensors a step out: what a step holds depends on (seed, step) alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from typing import Literal

from eclip import torchvision_fix  # noqa: F401  # isort: skip

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule

from eclip.data.batch import PADDING, Batch, bucket
from eclip.data.splits import FoldData, Index

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
    # the key tells streams apart; the index is the counter's highest word, so streams never overlap
    key = np.array([seed, stream == "phrases"], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))


class StepBatches:
    """The endless batches of a run: iterating starts at `first_step`, `at(step)` gives any one of them.

    `size` prints a step over all ranks, of which this rank has its contiguous slice. The arrays are wrapped
    as tensors on `device`: mapped memory on the CPU, a copy on an accelerator where it fits, so that a batch
    is one gather there and no transfer.
    """

    def __init__(
        self,
        fold_data: FoldData,
        size: int,
        seed: int,
        *,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows_N = fold_data.train_rows_N
        if not 0 < size <= len(self.rows_N):
            raise ValueError(f"batch_size x accumulate = {size}: use 1 to {len(self.rows_N)} training prints")
        if size % world_size:
            raise ValueError(f"{size} prints a step cannot be shared by {world_size} devices: use a multiple")
        self.size, self.seed, self.first_step = size, seed, first_step
        self.share = slice(rank * size // world_size, (rank + 1) * size // world_size)
        pack = fold_data.train
        self.offsets_N1 = np.asarray(pack.phrase_offsets_N1)
        # lengths are needed on the host, where shapes are decided
        self.caption_length_N = (pack.captions_NL != PADDING).sum(axis=1)
        self.phrase_length_M = (pack.phrases_ML != PADDING).sum(axis=1)
        arrays = (pack.images_NHWC, pack.captions_NL, pack.phrases_ML, pack.boxes_NR4, pack.box_count_N)
        self.device = _where_it_fits(torch.device(device), sum(array.nbytes for array in arrays))
        tensors = [torch.from_numpy(array).to(self.device) for array in arrays]
        self.image_NHWC, self.caption_NL, self.phrase_ML, self.boxes_NR4, self.box_count_N = tensors
        self.box_R = torch.arange(self.boxes_NR4.shape[1], device=self.device)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.at, count(self.first_step))

    def at(self, step: int) -> Batch:
        """The batch of one step (from 0). Token lengths are those of all ranks together, so ranks agree."""
        position_B, uniform_B = sample(self.seed, step, len(self.rows_N), self.size)
        row_B = self.rows_N[position_B]
        first_B, end_B = self.offsets_N1[row_B], self.offsets_N1[row_B + 1]
        phrase_B = first_B + (uniform_B * (end_B - first_B)).astype(np.int64)
        caption_length = bucket(int(self.caption_length_N[row_B].max()), self.caption_NL.shape[1])
        phrase_length = bucket(int(self.phrase_length_M[phrase_B].max()), self.phrase_ML.shape[1])
        row, phrase = (torch.from_numpy(index[self.share]).to(self.device) for index in (row_B, phrase_B))
        return {
            "image_BHWC": self.image_NHWC.index_select(0, row),
            "caption_BL": self.caption_NL.index_select(0, row)[:, :caption_length].long(),
            "phrase_BL": self.phrase_ML.index_select(0, phrase)[:, :phrase_length].long(),
            "boxes_BR4": self.boxes_NR4.index_select(0, row),
            "valid_BR": self.box_R < self.box_count_N.index_select(0, row)[:, None],
        }


def _where_it_fits(device: torch.device, size: int) -> torch.device:
    """`device`, or the CPU when `size` bytes take too much of an accelerator: the batches are the same."""
    if device.type != "cuda" or size <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")


class PrintsDataModule(LightningDataModule):
    """Training batches of `batch_size * accumulate` prints a step; see StepBatches.

    `first_step` is the step to resume at. `device` is where the prints are kept, if they fit.
    """

    def __init__(
        self,
        fold_data: FoldData,
        batch_size: int,
        accumulate: int,
        seed: int,
        *,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.fold_data = fold_data
        self.batches = StepBatches(
            fold_data,
            batch_size * accumulate,
            seed,
            first_step=first_step,
            rank=rank,
            world_size=world_size,
            device=device,
        )

    def train_dataloader(self) -> StepBatches:
        return self.batches
