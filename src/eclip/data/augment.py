"""Raw batches in, what a model takes out: images cropped, jittered and normalised, and their heatmaps.

Everything is done for the whole batch at once. With crop_scale=1 and color_jitter=0 nothing is resampled
and no random number is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eclip.data.batch import WHOLE, Batch, Share
from eclip.data.heatmap import boxes_to_heatmap
from eclip.data.transfer import constants

# a crop's aspect ratio, relative to the print's (Inception's range, as in torchvision)
ASPECT = (3 / 4, 4 / 3)
# ITU-R 601-2 luma, as in Pillow
LUMA = (0.299, 0.587, 0.114)


def prepare(
    batch: Batch,
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    crop_scale: float,
    color_jitter: float,
    generator: torch.Generator,
    heatmaps: bool = True,
    share: Share = WHOLE,
) -> Batch:
    """image_BCHW float32 and heatmap_BHW from image_BHWC uint8 and the boxes; the other keys pass through.

    `crop_scale` is the least area of a crop, as a share of the print (1: no crop); `color_jitter` the most
    that brightness, contrast and saturation change (0: not at all). Boxes follow the crop: those outside
    become invalid. The generator may live on the CPU or on the batch's device; it draws for all rows that
    processes hold together, of which the batch is this process's `share`. Without `heatmaps` (a step
    that has no use for them) there is no heatmap_BHW.
    """
    image_BCHW = unit_range(batch["image_BHWC"])
    if (packed := image_BCHW.shape[-1]) != image_size:
        raise ValueError(f"prints of {packed} px for a model of {image_size} px: pack them at its size")
    boxes_BR4, valid_BR = batch["boxes_BR4"], batch["valid_BR"]
    rows = len(image_BCHW) * share.ranks
    if crop_scale < 1:
        window_B4 = draw_windows(rows, crop_scale, generator)[share.of(rows)].to(image_BCHW.device)
        image_BCHW = crop(image_BCHW, window_B4)
        boxes_BR4, valid_BR = crop_boxes(boxes_BR4, valid_BR, window_B4)
    if color_jitter > 0:
        factor_B3 = draw_factors(rows, color_jitter, generator)[share.of(rows)].to(image_BCHW.device)
        image_BCHW = jitter(image_BCHW, factor_B3)
    prepared = {key: value for key, value in batch.items() if key != "image_BHWC"}
    prepared |= {
        "image_BCHW": normalise_(image_BCHW, mean, std),
        "boxes_BR4": boxes_BR4,
        "valid_BR": valid_BR,
    }
    if heatmaps:
        prepared["heatmap_BHW"] = boxes_to_heatmap(boxes_BR4, valid_BR, image_size)
    return prepared


def unit_range(image_BHWC: Tensor) -> Tensor:
    """uint8 as stored -> float32 image_BCHW in [0, 1]."""
    rows, height, width, channels = image_BHWC.shape
    image_BCHW = image_BHWC.new_empty(rows, channels, height, width, dtype=torch.float32)
    # turned around, widened and written in one pass: three passes took twice the time
    return image_BCHW.copy_(image_BHWC.permute(0, 3, 1, 2)).div_(255)


def normalise_(image_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Channels shifted and scaled, in place, to what the encoder was trained on."""
    mean_C11, std_C11 = (constants(values, image_BCHW.device) for values in (mean, std))
    return image_BCHW.sub_(mean_C11).div_(std_C11)


def draw_windows(count: int, crop_scale: float, generator: torch.Generator) -> Tensor:
    """window_B4: x1 y1 x2 y2 of random crops inside the unit square, of exactly the area drawn."""
    area_B, aspect_B, x_B, y_B = _uniform(4, count, generator)
    area_B = crop_scale + (1 - crop_scale) * area_B
    low, high = map(math.log, ASPECT)
    # between area and 1 the height that keeps the area is at most 1 too
    width_B = (area_B * torch.exp(low + (high - low) * aspect_B)).sqrt().clamp(max=1).maximum(area_B)
    height_B = area_B / width_B
    left_B, top_B = x_B * (1 - width_B), y_B * (1 - height_B)
    return torch.stack([left_B, top_B, left_B + width_B, top_B + height_B], dim=1)


def draw_factors(count: int, color_jitter: float, generator: torch.Generator) -> Tensor:
    """factor_B3 of brightness, contrast and saturation, around 1."""
    return 1 + color_jitter * (2 * _uniform(3, count, generator) - 1).T


def _uniform(kinds: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(kinds, count, generator=generator, device=generator.device)


def crop(image_BCHW: Tensor, window_B4: Tensor) -> Tensor:
    """Each image's window, enlarged to the whole image, bilinear."""
    left_B, top_B, right_B, bottom_B = window_B4.unbind(1)
    theta_B23 = window_B4.new_zeros(len(window_B4), 2, 3)
    # grid_sample counts from -1 to 1
    theta_B23[:, 0, 0], theta_B23[:, 0, 2] = right_B - left_B, left_B + right_B - 1
    theta_B23[:, 1, 1], theta_B23[:, 1, 2] = bottom_B - top_B, top_B + bottom_B - 1
    grid_BHW2 = F.affine_grid(theta_B23, list(image_BCHW.shape), align_corners=False)
    return F.grid_sample(image_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)


def crop_boxes(boxes_BR4: Tensor, valid_BR: Tensor, window_B4: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes as shares of their window, cut at its edges; one with no area left becomes invalid."""
    origin_B14 = window_B4[:, None, :2].repeat(1, 1, 2)
    side_B14 = window_B4[:, None, 2:].repeat(1, 1, 2) - origin_B14
    boxes_BR4 = ((boxes_BR4 - origin_B14) / side_B14).clamp(0, 1)
    seen_BR = (boxes_BR4[..., 2:] > boxes_BR4[..., :2]).all(dim=-1)
    return boxes_BR4, valid_BR & seen_BR


def jitter(image_BCHW: Tensor, factor_B3: Tensor) -> Tensor:
    """Brightness, contrast (about the mean luma), then saturation, each clamped to [0, 1]."""
    brightness_B111, contrast_B111, saturation_B111 = factor_B3.T[:, :, None, None, None]
    image_BCHW = (image_BCHW * brightness_B111).clamp(0, 1)
    mean_B111 = _luma(image_BCHW).mean(dim=(2, 3), keepdim=True)
    image_BCHW = torch.lerp(mean_B111, image_BCHW, contrast_B111).clamp(0, 1)
    return torch.lerp(_luma(image_BCHW), image_BCHW, saturation_B111).clamp(0, 1)


def _luma(image_BCHW: Tensor) -> Tensor:
    return (image_BCHW * constants(LUMA, image_BCHW.device)).sum(dim=1, keepdim=True)
