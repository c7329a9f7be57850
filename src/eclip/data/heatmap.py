"""Boxes in, expert heatmaps out: where on the print the annotated things are."""

from __future__ import annotations

import torch
from torch import Tensor

# a hair-thin box still covers some pixels: least sigma, as a share of the image's side
MIN_SIGMA = 0.02
# squared, in sigmas: beyond it a gaussian is 1e-19, and so small that CPUs take ten times as long for each exp
FARTHEST = 87.0


def boxes_to_heatmap(boxes_BR4: Tensor, valid_BR: Tensor, size: int) -> Tensor:
    """heatmap_BHW float32 in [0, 1], `size` pixels square: the maximum over each print's gaussians.

    A box (x1 y1 x2 y2, shares of the side) is a gaussian at its centre whose sigma is half its width and
    half its height, read at pixel centres. A print with no valid box has an empty heatmap.
    """
    low_BR2, high_BR2 = boxes_BR4.float().split(2, dim=2)
    sigma_BR2 = ((high_BR2 - low_BR2) / 2).clamp_min(MIN_SIGMA)
    centre_BR2 = (low_BR2 + high_BR2) / 2
    pixels_W = (torch.arange(size, device=boxes_BR4.device, dtype=torch.float32) + 0.5) / size
    square_BR2W = ((pixels_W - centre_BR2[..., None]) / sigma_BR2[..., None]).square_()
    gaussian_BR2W = square_BR2W.clamp_max_(FARTHEST).mul_(-0.5).exp_() * valid_BR[..., None, None]
    column_BRW, row_BRH = gaussian_BR2W.unbind(2)
    heatmap_BHW = gaussian_BR2W.new_zeros(len(boxes_BR4), size, size)
    product_BHW = torch.empty_like(heatmap_BHW)
    # a running maximum in place: never all B x R x H x W at once
    for row_BH1, column_B1W in zip(
        row_BRH.unsqueeze(3).unbind(1), column_BRW.unsqueeze(2).unbind(1), strict=True
    ):
        torch.mul(row_BH1, column_B1W, out=product_BHW)
        torch.maximum(heatmap_BHW, product_BHW, out=heatmap_BHW)
    return heatmap_BHW
