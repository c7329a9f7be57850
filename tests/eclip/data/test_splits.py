"""Folds: the published sizes, a partition, and the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from eclip.data.pack import Pack
from eclip.data.splits import FoldData, folds


def test_the_published_pool_falls_into_the_published_parts() -> None:
    parts = folds(9893)
    assert [len(val_index) for _, val_index in parts] == [3298, 3298, 3297]
    assert [len(train_index) for train_index, _ in parts] == [6595, 6595, 6596]


@pytest.mark.parametrize(("count", "fold_count"), [(9893, 3), (10, 3), (11, 5), (3, 3)])
def test_parts_cover_the_pool_and_no_fold_learns_from_its_candidates(count: int, fold_count: int) -> None:
    parts = folds(count, fold_count)
    assert len(parts) == fold_count
    assert sorted(i for _, val_index in parts for i in val_index.tolist()) == list(range(count))
    for train_index, val_index in parts:
        assert set(train_index.tolist()) == set(range(count)) - set(val_index.tolist())
        assert len(train_index) + len(val_index) == count


def test_the_shuffle_is_numpys_of_seed_42() -> None:
    shuffled = np.random.default_rng(42).permutation(10)
    assert np.concatenate([val_index for _, val_index in folds(10)]).tolist() == shuffled.tolist()
    # written out, so that a change of numpy's generator does not go unseen
    assert shuffled.tolist() == EXPECTED
    assert folds(10, seed=43)[0][1].tolist() != folds(10)[0][1].tolist()


EXPECTED = [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]


@pytest.mark.parametrize("fold_count", [0, 1, 11])
def test_impossible_fold_counts_are_refused(fold_count: int) -> None:
    with pytest.raises(ValueError, match=f"data.fold_count={fold_count}"):
        folds(10, fold_count)


def test_an_open_fold_holds_its_candidates_in_its_orders(pack: Pack) -> None:
    fold = FoldData.from_pack(pack, 1, order_seed=5)
    train_index, val_index = folds(60)[1]
    assert fold.orders is not None
    assert fold.train_rows_N.tolist() == train_index.tolist()
    for row, (image, text) in enumerate(zip(fold.orders.image_N, fold.orders.text_N, strict=True)):
        assert np.array_equal(fold.val_images_NHWC[row], pack.images_NHWC[val_index[image]])
        assert np.array_equal(fold.val_captions_NL[row], pack.captions_NL[val_index[text]][:16])
    assert fold.orders.image_N.tolist() != fold.orders.text_N.tolist()
    assert (fold.candidates, fold.fold) == (20, 1)


def test_captions_are_cut_to_a_bucket_without_losing_a_token(pack: Pack) -> None:
    fold = FoldData.from_pack(pack, 0, order_seed=5)
    assert fold.val_captions_NL.shape == (20, 16)
    assert (fold.val_captions_NL != 0).sum() == (pack.captions_NL[folds(60)[0][1]] != 0).sum()


def test_the_final_fold_learns_from_the_pool_and_measures_the_test_prints(
    pack: Pack, pack_of_test: Pack
) -> None:
    fold = FoldData.from_test(pack, pack_of_test, order_seed=0)
    assert (len(fold.train_rows_N), fold.candidates, fold.fold) == (60, 12, None)
    ours = sorted(image.tobytes() for image in fold.val_images_NHWC)
    assert ours == sorted(image.tobytes() for image in pack_of_test.images_NHWC)


def test_everything_has_nothing_to_measure(pack: Pack) -> None:
    fold = FoldData.from_everything(pack)
    assert (len(fold.train_rows_N), fold.candidates) == (60, 0)


def test_a_fold_that_is_not_there_is_refused(pack: Pack) -> None:
    with pytest.raises(ValueError, match="no fold 3 among 3"):
        FoldData.from_pack(pack, 3, order_seed=0)
