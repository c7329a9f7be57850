"""Validation images and captions in, equal batches of each out, every row with its embedding's number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eclip.data.splits import FoldData

Index = npt.NDArray[np.int64]


class ImageBatch(TypedDict):
    image_BHWC: Tensor
    number_B: Tensor


class CaptionBatch(TypedDict):
    caption_BL: Tensor
    number_B: Tensor


def candidate_batches(
    data: FoldData, size: int, rank: int = 0, world_size: int = 1
) -> tuple[list[ImageBatch], list[CaptionBatch]]:
    """(images, captions), `size` rows a batch, this rank's share of them.

    The last batch is filled up with rows seen before: equal shapes give equal numbers whatever the order.
    A row's number is its position in the order given (sealed), or the pair it belongs to (open evaluation).
    """
    count = data.candidates
    image_number_N, text_number_N = np.arange(count), np.arange(count)
    if data.orders is not None:
        image_number_N, text_number_N = data.orders.image_N, data.orders.text_N
    images: list[ImageBatch] = []
    captions: list[CaptionBatch] = []
    for row_B in _rows(count, size, rank, world_size):
        image_number, text_number = (torch.from_numpy(n[row_B]) for n in (image_number_N, text_number_N))
        pixels = torch.from_numpy(data.val_images_NHWC[row_B])
        tokens = torch.from_numpy(data.val_captions_NL[row_B]).long()
        images.append({"image_BHWC": pixels, "number_B": image_number})
        captions.append({"caption_BL": tokens, "number_B": text_number})
    return images, captions


def _rows(count: int, size: int, rank: int, world_size: int) -> Iterator[Index]:
    """Rows of each batch of one rank; every rank has as many batches."""
    batches = -(-count // (size * world_size)) * world_size
    for number in range(rank, batches, world_size):
        yield np.arange(number * size, (number + 1) * size) % count
