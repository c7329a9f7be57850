"""The picture of samples: every print hangs on the sheet, and the heatmap lights up what the boxes hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from eclip.data.odvg import Region, read_split
from eclip.data.synthetic import draw_dataset
from scripts.show_data import MARGIN, WIDTH, caption_plate, compose, rows_of, under_heatmap


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("plate") / "synthetic"
    draw_dataset(root, prints=18, test_prints=1, workers=1, progress=False)
    return list(read_split(root, "train", on_error="raise").records)


def test_rows_hold_every_print_and_fill_the_sheet(records):
    plates = [caption_plate(record) for record in records]
    rows = rows_of(plates, 256)
    assert [plate for row in rows for plate, _, _ in row] == plates
    for row in rows:
        width = row[-1][1] + sum(width + 30 for _, width, _ in row[:-1])
        assert width == pytest.approx(WIDTH - 2 * MARGIN, abs=len(row))


def test_a_sheet_with_boxes_is_longer_than_one_without(records):
    plain, annotated = compose(records[:4], 0, "four"), compose(records[:4], 2, "four")
    assert plain.width == annotated.width == WIDTH
    assert annotated.height > plain.height + 150


def test_the_heatmap_lights_the_middle_of_a_box_and_darkens_the_rest(records):
    white = Image.new("RGB", (200, 100), (255, 255, 255))
    record = replace(records[0], width=200, height=100, regions=(Region("a boat", ((120, 20, 180, 60),)),))
    lit = np.asarray(under_heatmap(record, white)).mean(-1)
    assert np.unravel_index(lit.argmax(), lit.shape) == pytest.approx((40, 150), abs=2)
    assert lit[40, 150] > 250
    assert lit[90, 10] < 140
