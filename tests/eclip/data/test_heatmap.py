"""Heatmaps against the definition, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from eclip.data.heatmap import boxes_to_heatmap


def naive(boxes: list[list[float]], size: int) -> torch.Tensor:
    """The definition in plain Python: the maximum over gaussians at the boxes' centres."""
    heatmap = torch.zeros(size, size)
    for y in range(size):
        for x in range(size):
            for x1, y1, x2, y2 in boxes:
                sigma_x, sigma_y = max((x2 - x1) / 2, 0.02), max((y2 - y1) / 2, 0.02)
                right, down = (x + 0.5) / size - (x1 + x2) / 2, (y + 0.5) / size - (y1 + y2) / 2
                value = math.exp(-((right / sigma_x) ** 2 + (down / sigma_y) ** 2) / 2)
                heatmap[y, x] = max(float(heatmap[y, x]), value)
    return heatmap


def test_equals_the_definition_for_a_whole_batch() -> None:
    prints = [
        [[0.1, 0.2, 0.5, 0.4], [0.6, 0.6, 0.65, 1.0], [0.0, 0.9, 1.0, 0.901]],
        [[0.3, 0.3, 0.3001, 0.3001]],
        [],
    ]
    boxes_BR4, valid_BR = torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, dtype=torch.bool)
    for row, boxes in enumerate(prints):
        for column, box in enumerate(boxes):
            boxes_BR4[row, column], valid_BR[row, column] = torch.tensor(box), True
    heatmap_BHW = boxes_to_heatmap(boxes_BR4, valid_BR, 24)
    for row, boxes in enumerate(prints):
        torch.testing.assert_close(heatmap_BHW[row], naive(boxes, 24), atol=1e-6, rtol=1e-5)
    assert heatmap_BHW.min() >= 0
    assert heatmap_BHW.max() <= 1


def test_one_sigma_is_half_the_box() -> None:
    # pixel centres of a 10-pixel print at 0.05, 0.15, ...; the box's edges fall on some of them
    heatmap_HW = boxes_to_heatmap(torch.tensor([[[0.25, 0.35, 0.65, 0.55]]]), torch.ones(1, 1), 10)[0]
    assert heatmap_HW[4, 4] == pytest.approx(1.0)
    assert heatmap_HW[4, 6] == pytest.approx(math.exp(-0.5))
    assert heatmap_HW[5, 4] == pytest.approx(math.exp(-0.5))


def test_no_pixel_is_denormal() -> None:
    # exp takes ten times as long where it underflows, and so does all that is then multiplied
    corners = torch.tensor([[[0.0, 0.0, 0.01, 0.01], [0.98, 0.98, 1.0, 1.0]]])
    heatmap_BHW = boxes_to_heatmap(corners, torch.ones(1, 2), 64)
    assert torch.finfo(torch.float32).tiny <= heatmap_BHW.min() < 1e-30


def test_a_print_without_boxes_is_empty() -> None:
    boxes_BR4, valid_BR = torch.rand(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    assert not boxes_to_heatmap(boxes_BR4, valid_BR, 8).any()
    assert not boxes_to_heatmap(boxes_BR4[:, :0], valid_BR[:, :0], 8).any()
