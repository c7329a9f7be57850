"""Boxes in, expert heatmaps out: where on the print the annotated things are."""

from __future__ import annotations

import torch
from torch import Tensor

# a hair-thin box still covers some pixels: least sigma, as a share of the image's side
MIN_SIGMA = 0.02


def boxes_to_heatmap(boxes_BR4: Tensor, valid_BR: Tensor, size: int) -> Tensor:
    """heatmap_BHW float32 in [0, 1], `size` pixels square: the maximum over each print's gaussians.

    A box (x1 y1 x2 y2, shares of the side) is a gaussian at its centre whose sigma is half its width and
    half its height, read at pixel centres. A print with no valid box has an empty heatmap.
    """
    boxes_BR4 = boxes_BR4.float()
    pixels_W = (torch.arange(size, device=boxes_BR4.device, dtype=torch.float32) + 0.5) / size
    column_BRW = _gaussian(boxes_BR4[..., 0], boxes_BR4[..., 2], pixels_W)
    row_BRH = _gaussian(boxes_BR4[..., 1], boxes_BR4[..., 3], pixels_W) * valid_BR[..., None]
    heatmap_BHW = column_BRW.new_zeros(len(boxes_BR4), size, size)
    gaussian_BHW = torch.empty_like(heatmap_BHW)
    for box in range(boxes_BR4.shape[1]):  # a running maximum in place: never all B x R x H x W at once
        torch.mul(row_BRH[:, box, :, None], column_BRW[:, box, None, :], out=gaussian_BHW)
        torch.maximum(heatmap_BHW, gaussian_BHW, out=heatmap_BHW)
    return heatmap_BHW


def _gaussian(low_BR: Tensor, high_BR: Tensor, pixels_W: Tensor) -> Tensor:
    sigma_BR = ((high_BR - low_BR) / 2).clamp_min(MIN_SIGMA)
    distance_BRW = (pixels_W - ((low_BR + high_BR) / 2)[..., None]) / sigma_BR[..., None]
    return torch.exp(-0.5 * distance_BRW.square())
