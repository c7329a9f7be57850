"""Batches: what a step holds, that it depends on (seed, step) alone, and that ranks share it."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from eclip.data.batch import Share
from eclip.data.datamodule import PrintsDataModule, StepBatches, sample
from eclip.data.pack import Pack
from eclip.data.sealed import open_sealed, seal
from eclip.data.splits import FoldData, folds

Batch = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def fold(pack: Pack) -> FoldData:
    return FoldData.from_pack(pack, 0, order_seed=0)


def rows_of(batch: Batch, pack: Pack) -> list[int]:
    known = {image.tobytes(): row for row, image in enumerate(pack.images_NHWC)}
    return [known[image.numpy().tobytes()] for image in batch["image_BHWC"]]


def equal(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_row_of_a_batch_is_one_training_print(pack: Pack, fold: FoldData) -> None:
    batch = StepBatches(fold, 12, seed=1).at(3)
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "image_BHWC": ((12, 16, 16, 3), torch.uint8),
        "caption_BL": ((12, 16), torch.int64),
        "phrase_BL": ((12, 8), torch.int64),
        "boxes_BR4": ((12, 3, 4), torch.float32),
        "valid_BR": ((12, 3), torch.bool),
    }
    for place, row in enumerate(rows_of(batch, pack)):
        assert row in fold.train_rows_N
        assert batch["caption_BL"][place].tolist() == pack.captions_NL[row, :16].tolist()
        phrases = pack.phrases_ML[pack.phrase_offsets_N1[row] : pack.phrase_offsets_N1[row + 1]].tolist()
        assert batch["phrase_BL"][place].tolist() in phrases
        assert batch["boxes_BR4"][place].tolist() == pack.boxes_NR4[row].tolist()
        assert batch["valid_BR"][place].tolist() == [k < pack.box_count_N[row] for k in range(3)]


def test_every_epoch_is_a_new_shuffle_without_replacement(pack: Pack, fold: FoldData) -> None:
    batches = StepBatches(fold, 8, seed=1)  # 40 training prints: 5 steps an epoch
    steps = [rows_of(batches.at(step), pack) for step in range(15)]
    epochs = [[row for rows in steps[first : first + 5] for row in rows] for first in (0, 5, 10)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(fold.train_rows_N)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_never_holds_a_print_twice_and_leavings_change(pack: Pack, fold: FoldData) -> None:
    batches = StepBatches(fold, 12, seed=1)  # 3 steps an epoch, 4 prints left out
    steps = [rows_of(batches.at(step), pack) for step in range(30)]
    assert all(len(set(rows)) == 12 for rows in steps)
    assert {row for rows in steps for row in rows} == set(fold.train_rows_N.tolist())


def test_all_phrases_of_a_print_get_their_turn(pack: Pack, fold: FoldData) -> None:
    batches, seen = StepBatches(fold, 40, seed=1), set()
    for step in range(40):
        seen |= {tuple(phrase) for phrase in batches.at(step)["phrase_BL"].tolist()}
    every = {tuple(p) for r in fold.train_rows_N for p in phrases_of(pack, r)}
    assert seen == every
    position_B, uniform_B = sample(0, 0, 5000, 5000)
    assert sorted(position_B) == list(range(5000))
    assert abs(uniform_B.mean() - 0.5) < 0.02


def phrases_of(pack: Pack, row: int) -> list[list[int]]:
    return pack.phrases_ML[pack.phrase_offsets_N1[row] : pack.phrase_offsets_N1[row + 1]].tolist()


def test_a_step_depends_on_seed_and_step_alone(fold: FoldData) -> None:
    straight = list(islice(StepBatches(fold, 8, seed=5), 9))
    resumed = list(islice(StepBatches(fold, 8, seed=5, first_step=4), 5))
    assert all(equal(one, other) for one, other in zip(straight[4:], resumed, strict=True))
    twice = StepBatches(fold, 8, seed=5)
    assert equal(twice.at(7), straight[7])
    assert not equal(StepBatches(fold, 8, seed=6).at(0), straight[0])
    assert not equal(straight[0], straight[1])


def test_ranks_share_the_batch_of_one(fold: FoldData) -> None:
    whole = StepBatches(fold, 12, seed=2)
    ranks = [StepBatches(fold, 12, seed=2, share=Share(rank, 3)) for rank in range(3)]
    for step in range(5):
        parts = [rank.at(step) for rank in ranks]
        together = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        assert equal(together, whole.at(step))
        assert len({part["caption_BL"].shape for part in parts}) == 1


def test_a_sealed_fold_gives_the_batches_of_the_open_one(pack: Pack, fold: FoldData, tmp_path: Path) -> None:
    train_index, val_index = folds(60)[0]
    seal(pack, train_index, val_index, tmp_path / "s", tmp_path / "key", np.random.default_rng(), fold=0)
    ours, theirs = StepBatches(fold, 8, seed=3), StepBatches(open_sealed(tmp_path / "s"), 8, seed=3)
    assert all(equal(ours.at(step), theirs.at(step)) for step in range(12))


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_a_device_holds_the_same_batches(fold: FoldData, device: str) -> None:
    ours, theirs = StepBatches(fold, 8, seed=3), StepBatches(fold, 8, seed=3, device=device)
    batch = theirs.at(6)
    assert {value.device.type for value in batch.values()} == {device}
    assert equal(ours.at(6), {key: value.cpu() for key, value in batch.items()})


@pytest.mark.parametrize(
    ("size", "world_size", "message"), [(41, 1, "1 to 40"), (0, 1, "1 to 40"), (9, 2, "share")]
)
def test_batches_that_cannot_be_are_refused(fold: FoldData, size: int, world_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepBatches(fold, size, seed=0, share=Share(0, world_size))


def test_the_data_module_yields_the_effective_batch(fold: FoldData) -> None:
    module = PrintsDataModule(fold, batch_size=4, accumulate=3, seed=9, first_step=2)
    batch = next(iter(module.train_dataloader()))
    assert equal(batch, StepBatches(fold, 12, seed=9).at(2))


def test_a_batch_of_48_is_one_quick_gather(pack: Pack) -> None:
    """64 px, 6,600 prints, as in the embedded data set; well under 1 ms."""
    rng, count = np.random.default_rng(0), 6600
    images_NHWC = rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)
    captions_NL = np.ones((count, 64), dtype=np.int32)
    big = Pack(
        pack.directory,
        images_NHWC,
        captions_NL,
        np.zeros((count, 8, 4), dtype=np.float32),
        np.full(count, 5, dtype=np.int32),
        np.ones((5 * count, 16), dtype=np.int32),
        np.arange(0, 5 * count + 1, 5),
        (),
        100,
        (),
    )
    batches = StepBatches(FoldData.from_everything(big), 48, seed=0)
    times = []
    for step in range(50):
        start = time.perf_counter()
        batches.at(step)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.001
