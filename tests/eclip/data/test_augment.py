"""Augmentation of whole batches against one print at a time, and exactly nothing when it is off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eclip.data.augment import crop, crop_boxes, draw_factors, draw_windows, jitter, prepare
from eclip.data.heatmap import boxes_to_heatmap

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def batch(size: int = 16, count: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    low_BR2 = torch.rand(count, 3, 2, generator=generator) * 0.6
    side_BR2 = 0.05 + 0.3 * torch.rand(count, 3, 2, generator=generator)
    return {
        "image_BHWC": torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8),
        "caption_BL": torch.ones(count, 8, dtype=torch.int64),
        "boxes_BR4": torch.cat([low_BR2, low_BR2 + side_BR2], dim=2),
        "valid_BR": torch.tensor([[True, True, False]] * count),
    }


def run(raw: dict[str, Tensor], seed: int = 0, **changes: Any) -> dict[str, Tensor]:
    size = raw["image_BHWC"].shape[1]
    settings = {"image_size": size, "mean": MEAN, "std": STD, "crop_scale": 1.0, "color_jitter": 0.0}
    return prepare(raw, **(settings | changes), generator=torch.Generator().manual_seed(seed))


def test_off_is_exactly_the_normalised_print_and_draws_nothing() -> None:
    raw, generator = batch(), torch.Generator().manual_seed(3)
    before = generator.get_state()
    ready = prepare(
        raw, image_size=16, mean=MEAN, std=STD, crop_scale=1.0, color_jitter=0.0, generator=generator
    )
    unit_BHWC = raw["image_BHWC"].float() / 255
    expected_BHWC = (unit_BHWC - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.equal(ready["image_BCHW"], expected_BHWC.permute(0, 3, 1, 2))
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(ready["boxes_BR4"], raw["boxes_BR4"])
    assert torch.equal(ready["valid_BR"], raw["valid_BR"])
    assert torch.equal(ready["heatmap_BHW"], boxes_to_heatmap(raw["boxes_BR4"], raw["valid_BR"], 16))
    assert ready["caption_BL"] is raw["caption_BL"]
    assert "image_BHWC" not in ready
    assert ready["image_BCHW"].is_contiguous()


def test_a_step_without_experts_draws_no_heatmaps_and_is_otherwise_the_same() -> None:
    changes = {"crop_scale": 0.3, "color_jitter": 0.5}
    full, lean = run(batch(), **changes), run(batch(), **changes, heatmaps=False)
    assert set(full) - set(lean) == {"heatmap_BHW"}
    assert all(torch.equal(lean[key], full[key]) for key in lean)


def test_the_raw_batch_is_left_as_it_was() -> None:
    raw = batch()
    run(raw, crop_scale=0.3, color_jitter=0.5)
    assert all(torch.equal(value, other) for value, other in zip(raw.values(), batch().values(), strict=True))


def naive_crop(image_CHW: Tensor, window: list[float]) -> Tensor:
    """Bilinear, pixel by pixel, positions past the edge held at it."""
    size = image_CHW.shape[-1]
    x1, y1, x2, y2 = window
    result = torch.zeros_like(image_CHW)
    for row in range(size):
        for column in range(size):
            x = (x1 + (x2 - x1) * (column + 0.5) / size) * size - 0.5
            y = (y1 + (y2 - y1) * (row + 0.5) / size) * size - 0.5
            x, y = min(max(x, 0), size - 1), min(max(y, 0), size - 1)
            left, top = min(int(x), size - 2), min(int(y), size - 2)
            right, down = x - left, y - top
            result[:, row, column] = (1 - down) * (
                (1 - right) * image_CHW[:, top, left] + right * image_CHW[:, top, left + 1]
            ) + down * ((1 - right) * image_CHW[:, top + 1, left] + right * image_CHW[:, top + 1, left + 1])
    return result


def test_crops_equal_those_of_one_print_at_a_time() -> None:
    image_BCHW = torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    window_B4 = draw_windows(4, 0.2, torch.Generator().manual_seed(2))
    cropped_BCHW = crop(image_BCHW, window_B4)
    for row in range(4):
        expected = naive_crop(image_BCHW[row], window_B4[row].tolist())
        torch.testing.assert_close(cropped_BCHW[row], expected, atol=1e-5, rtol=1e-4)


def test_boxes_follow_what_they_frame() -> None:
    """A bright square stays inside its box, and only there."""
    size, generator = 64, torch.Generator().manual_seed(4)
    image_BCHW = torch.zeros(50, 1, size, size)
    image_BCHW[:, :, 24:40, 16:32] = 1
    boxes_BR4 = torch.tensor([[[16, 24, 32, 40]]]).repeat(50, 1, 1) / size
    window_B4 = draw_windows(50, 0.3, generator)
    cropped_BCHW = crop(image_BCHW, window_B4)
    boxes_BR4, valid_BR = crop_boxes(boxes_BR4, torch.ones(50, 1, dtype=torch.bool), window_B4)
    centre_W = (torch.arange(size) + 0.5) / size
    for row in range(50):
        x1, y1, x2, y2 = boxes_BR4[row, 0].tolist()
        inside_HW = ((centre_W > y1) & (centre_W < y2))[:, None] & ((centre_W > x1) & (centre_W < x2))
        if not valid_BR[row]:
            inside_HW = torch.zeros_like(inside_HW)
        bright_HW = cropped_BCHW[row, 0] > 0.5
        differing = (bright_HW != inside_HW).sum()
        assert differing <= 2 * size * 0.05 * 4  # a pixel's rim at most


def test_a_box_outside_the_crop_is_no_longer_valid_and_one_at_its_edge_is_cut() -> None:
    window_B4 = torch.tensor([[0.5, 0.0, 1.0, 1.0]])
    gone, cut = [0.1, 0.1, 0.4, 0.9], [0.4, 0.2, 0.6, 0.8]
    unused, touching = [0.6, 0.0, 0.7, 0.5], [0.1, 0.1, 0.5, 0.9]
    boxes_BR4 = torch.tensor([[gone, cut, unused, touching]])
    valid_BR = torch.tensor([[True, True, False, True]])
    moved_BR4, still_BR = crop_boxes(boxes_BR4, valid_BR, window_B4)
    assert still_BR.tolist() == [[False, True, False, False]]
    torch.testing.assert_close(moved_BR4[0, 1], torch.tensor([0.0, 0.2, 0.2, 0.8]))


@pytest.mark.parametrize("scale", [0.1, 0.5, 0.95])
def test_windows_lie_in_the_print_and_have_the_area_and_aspect_asked_for(scale: float) -> None:
    window_B4 = draw_windows(2000, scale, torch.Generator().manual_seed(0))
    width_B, height_B = (window_B4[:, 2:] - window_B4[:, :2]).T
    assert window_B4.min() >= 0
    assert window_B4.max() <= 1 + 1e-6
    area_B, log_aspect_B = width_B * height_B, (width_B / height_B).log()
    assert area_B.min() >= scale - 1e-5
    assert area_B.min() < scale + 0.02
    assert area_B.max() > 0.99
    assert log_aspect_B.abs().max() <= math.log(4 / 3) + 1e-5


def naive_jitter(image_HWC: np.ndarray, factors: list[float]) -> np.ndarray:
    luma = np.array([0.299, 0.587, 0.114])
    image_HWC = np.clip(image_HWC * factors[0], 0, 1)
    mean = (image_HWC @ luma).mean()
    image_HWC = np.clip(mean + (image_HWC - mean) * factors[1], 0, 1)
    gray = (image_HWC @ luma)[..., None]
    return np.clip(gray + (image_HWC - gray) * factors[2], 0, 1)


def test_jitter_equals_that_of_one_print_at_a_time() -> None:
    image_BCHW = torch.rand(6, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    factor_B3 = draw_factors(6, 0.8, torch.Generator().manual_seed(2))
    assert factor_B3.min() >= 0.2 - 1e-6
    assert factor_B3.max() <= 1.8 + 1e-6
    jittered_BCHW = jitter(image_BCHW, factor_B3)
    for row in range(6):
        image_HWC = image_BCHW[row].permute(1, 2, 0).double().numpy()
        expected = naive_jitter(image_HWC, factor_B3[row].tolist())
        np.testing.assert_allclose(jittered_BCHW[row].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert len({tuple(factors) for factors in factor_B3.tolist()}) == 6


def test_factors_of_one_change_nothing() -> None:
    image_BCHW = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(jitter(image_BCHW, torch.ones(2, 3)), image_BCHW)


def test_the_heatmap_is_of_the_cropped_boxes_and_the_generator_decides_all() -> None:
    raw = batch()
    one, same, other = (run(raw, seed, crop_scale=0.3, color_jitter=0.4) for seed in (1, 1, 2))
    assert torch.equal(one["image_BCHW"], same["image_BCHW"])
    assert not torch.equal(one["image_BCHW"], other["image_BCHW"])
    expected_BHW = boxes_to_heatmap(one["boxes_BR4"], one["valid_BR"], 16)
    assert torch.equal(one["heatmap_BHW"], expected_BHW)
    assert not torch.equal(one["boxes_BR4"], raw["boxes_BR4"])
    assert torch.isfinite(one["image_BCHW"]).all()


def test_prints_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="16 px for a model of 32 px"):
        run(batch(), image_size=32)
