"""Batches of candidates: equal shapes, every candidate at least once, numbers that find the pairs again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eclip.config import check
from eclip.data.candidates import _rows, candidate_batches
from eclip.data.source import load_folds
from tests.eclip.conftest import SMALL, composed


@pytest.fixture(scope="module")
def fold(prints: Path):
    where = (f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs", "run.dir=x")
    return next(iter(load_folds(check(composed(*SMALL, *where)))))


@pytest.mark.parametrize("count", [1, 7, 20, 21])
@pytest.mark.parametrize("size", [1, 4, 20, 32])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_is_seen_and_every_batch_is_full(count, size, world):
    ranks = [list(_rows(count, size, rank, world)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(rows) == size for batches in ranks for rows in batches)
    seen = [row for batches in ranks for rows in batches for row in rows]
    assert set(seen) == set(range(count))
    # no more padding than the last round of batches needs
    assert len(seen) - count < size * world


@pytest.mark.parametrize("size", [6, 20])
def test_rows_carry_the_number_of_their_pair(fold, size):
    images, captions = candidate_batches(fold, size)
    image, caption = {}, {}
    for batch in images:
        image.update(zip(batch["number_B"].tolist(), batch["image_BHWC"], strict=True))
    for batch in captions:
        caption.update(zip(batch["number_B"].tolist(), batch["caption_BL"], strict=True))
    assert set(image) == set(caption) == set(range(20))
    for row in range(20):
        number = int(fold.orders.image_N[row])
        assert torch.equal(image[number], torch.from_numpy(fold.val_images_NHWC[row]))
        number = int(fold.orders.text_N[row])
        assert torch.equal(caption[number], torch.from_numpy(fold.val_captions_NL[row]).long())


def test_without_orders_a_number_is_the_place_in_the_order_given(fold):
    from dataclasses import replace

    images, _ = candidate_batches(replace(fold, orders=None), 8)
    numbers = torch.cat([batch["number_B"] for batch in images])
    assert numbers.tolist() == [*range(20), 0, 1, 2, 3]


def test_padding_repeats_rows_with_their_own_number(fold):
    images, captions = candidate_batches(fold, 16)
    last = images[-1]
    first = images[0]
    assert torch.equal(last["number_B"][4:], first["number_B"][:12])
    assert torch.equal(last["image_BHWC"][4:], first["image_BHWC"][:12])
    assert captions[-1]["caption_BL"].dtype == torch.int64
    assert np.array_equal(captions[-1]["number_B"][4:], captions[0]["number_B"][:12])
