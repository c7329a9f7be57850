"""Sealed folds: what the judge gets back, and that nothing in the folder tells which caption is whose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eclip.data.pack import Pack
from eclip.data.sealed import FILES, open_sealed, read_key, seal, unseal
from eclip.data.splits import FoldData, Orders, folds

TRAIN, VAL = folds(60)[0]


@pytest.fixture
def sealed(pack: Pack, tmp_path: Path) -> Path:
    seal(pack, TRAIN, VAL, tmp_path / "fold0", tmp_path / "key", np.random.default_rng(), fold=0)
    return tmp_path / "fold0"


def test_unsealed_rows_are_pairs_again(pack: Pack, sealed: Path, tmp_path: Path) -> None:
    fold, key = open_sealed(sealed), read_key(tmp_path / "key")
    # stand-ins for embeddings: what they were computed from
    image_ND, text_ND = unseal(fold.val_images_NHWC.reshape(20, -1), fold.val_captions_NL, key)
    assert np.array_equal(image_ND, pack.images_NHWC[VAL].reshape(20, -1))
    assert np.array_equal(text_ND, pack.captions_NL[VAL][:, :16])
    assert (fold.fold, fold.candidates, fold.orders) == (0, 20, None)


def test_open_and_sealed_folds_are_the_same_but_for_their_orders(
    pack: Pack, sealed: Path, tmp_path: Path
) -> None:
    theirs, ours = open_sealed(sealed), FoldData.from_pack(pack, 0, order_seed=3)
    assert ours.orders is not None
    for side in ("val_images_NHWC", "val_captions_NL"):
        one, other = getattr(ours, side), getattr(theirs, side)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    opened = unseal(ours.val_images_NHWC.reshape(20, -1), ours.val_captions_NL, ours.orders)
    unsealed = unseal(
        theirs.val_images_NHWC.reshape(20, -1), theirs.val_captions_NL, read_key(tmp_path / "key")
    )
    assert all(np.array_equal(one, other) for one, other in zip(opened, unsealed, strict=True))


def test_training_prints_keep_their_pairs_phrases_and_boxes(pack: Pack, sealed: Path) -> None:
    train = open_sealed(sealed).train
    assert len(train) == 40
    for row, source in enumerate(TRAIN):
        assert np.array_equal(train.images_NHWC[row], pack.images_NHWC[source])
        assert np.array_equal(train.captions_NL[row], pack.captions_NL[source])
        count = pack.box_count_N[source]
        assert train.box_count_N[row] == count
        assert np.array_equal(train.boxes_NR4[row, :count], pack.boxes_NR4[source, :count])
        ours, theirs = train.phrase_offsets_N1, pack.phrase_offsets_N1
        assert np.array_equal(
            train.phrases_ML[ours[row] : ours[row + 1]],
            pack.phrases_ML[theirs[source] : theirs[source + 1]],
        )
    assert train.vocabulary_size == pack.vocabulary_size


def test_the_folder_holds_exactly_the_files_that_it_must(sealed: Path) -> None:
    found = {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()}
    assert found == set(FILES)
    assert len(found) == 11
    assert json.loads((sealed / "meta.json").read_text()) == {"fold": 0}
    assert set(json.loads((sealed / "train" / "meta.json").read_text())) == {"vocabulary_size"}


def test_no_byte_tells_a_name_a_phrase_or_a_box_of_a_candidate(pack: Pack, sealed: Path) -> None:
    everything = b"".join(path.read_bytes() for path in sealed.rglob("*") if path.is_file())
    assert not [name for name in pack.filenames if name.encode() in everything]
    assert str(pack.directory).encode() not in everything
    train = open_sealed(sealed).train
    # training prints have as many phrases and boxes as are there: none is left for the candidates
    phrases = np.diff(pack.phrase_offsets_N1)[TRAIN].sum()
    assert train.phrase_offsets_N1[-1] == len(train.phrases_ML) == phrases
    images = {image.tobytes() for image in train.images_NHWC}
    assert not images & {image.tobytes() for image in pack.images_NHWC[VAL]}
    captions = {tuple(caption) for caption in train.captions_NL.tolist()}
    assert not captions & {tuple(caption) for caption in pack.captions_NL[VAL].tolist()}


def test_times_and_sizes_tell_nothing(sealed: Path) -> None:
    states = [path.stat() for path in (sealed, *sealed.rglob("*"))]
    assert {state.st_mtime_ns for state in states} == {0}
    fold = open_sealed(sealed)
    for name, array in (("images", fold.val_images_NHWC), ("captions", fold.val_captions_NL)):
        header = (sealed / f"val_{name}.npy").stat().st_size - array.nbytes
        assert header == 128  # a plain .npy: nothing follows the array


def test_no_order_of_rows_matches_better_than_chance(pack: Pack, tmp_path: Path) -> None:
    """Try what an attacker would: same row, reversed, sorted by bytes or sums, the fold's own order."""
    image_of = {image.tobytes(): row for row, image in enumerate(pack.images_NHWC)}
    caption_of = {tuple(caption[:16]): row for row, caption in enumerate(pack.captions_NL.tolist())}
    rounds, hits = 40, dict.fromkeys(["row", "reversed", "bytes", "sum", "pool order"], 0)
    for trial in range(rounds):
        out = tmp_path / str(trial)
        seal(pack, TRAIN, VAL, out, tmp_path / "key", np.random.default_rng(trial))
        fold = open_sealed(out)
        images = np.array([image_of[image.tobytes()] for image in fold.val_images_NHWC])
        texts = np.array([caption_of[tuple(caption)] for caption in fold.val_captions_NL.tolist()])
        assert sorted(images) == sorted(texts) == sorted(VAL)
        sides = (fold.val_images_NHWC, fold.val_captions_NL)
        by_bytes = [np.argsort([row.tobytes() for row in side]) for side in sides]
        sums = [np.argsort(side.reshape(20, -1).sum(1, dtype=int), kind="stable") for side in sides]
        hits["row"] += int((images == texts).sum())
        hits["reversed"] += int((images == texts[::-1]).sum())
        hits["bytes"] += int((images[by_bytes[0]] == texts[by_bytes[1]]).sum())
        hits["sum"] += int((images[sums[0]] == texts[sums[1]]).sum())
        hits["pool order"] += int((images == VAL).sum() + (texts == VAL).sum()) // 2
    # one hit a round is chance; 40 rounds have a standard deviation of about 6
    # (sorting keeps the same pairs in every round: its hits are a multiple of 40, and for this data 1 or 2)
    assert max(hits["row"], hits["reversed"], hits["pool order"]) < rounds + 30
    assert max(hits["bytes"], hits["sum"]) <= 4 * rounds


def test_each_side_has_its_own_order_and_every_seal_another(pack: Pack, tmp_path: Path) -> None:
    keys = []
    for n in range(2):
        keys.append(seal(pack, TRAIN, VAL, tmp_path / f"{n}", tmp_path / "key", np.random.default_rng()))
    orders = {tuple(order) for key in keys for order in (key.image_N.tolist(), key.text_N.tolist())}
    assert len(orders) == 4
    assert tuple(range(20)) not in orders


def test_the_key_lies_outside_and_is_the_owners_alone(pack: Pack, sealed: Path, tmp_path: Path) -> None:
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="inside the sealed folder"):
        seal(pack, TRAIN, VAL, tmp_path / "a", tmp_path / "a" / "key", np.random.default_rng())
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="inside the sealed folder"):
        seal(pack, TRAIN, VAL, tmp_path / "a", tmp_path / "link" / "a" / "key", np.random.default_rng())


def test_a_sealed_folder_is_never_given_another_key(pack: Pack, sealed: Path, tmp_path: Path) -> None:
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(FileExistsError):
        seal(pack, TRAIN, VAL, sealed, tmp_path / "key", np.random.default_rng())
    assert (tmp_path / "key").read_bytes() == before


def test_shared_prints_are_refused(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="share prints"):
        seal(pack, TRAIN, TRAIN[:3], tmp_path / "a", tmp_path / "key", np.random.default_rng())


def test_the_test_split_is_sealed_from_its_own_pack(pack: Pack, pack_of_test: Pack, tmp_path: Path) -> None:
    everything, test = np.arange(60), np.arange(12)
    out = tmp_path / "test"
    key = seal(pack, everything, test, out, tmp_path / "key", np.random.default_rng(), val_pack=pack_of_test)
    fold = open_sealed(out)
    image_ND, _ = unseal(fold.val_images_NHWC.reshape(12, -1), fold.val_captions_NL, key)
    assert np.array_equal(image_ND, pack_of_test.images_NHWC.reshape(12, -1))
    assert (len(fold.train), fold.fold) == (60, None)


@pytest.mark.parametrize("rows", [19, 21])
def test_embeddings_of_another_number_are_refused(rows: int) -> None:
    key = Orders.draw(20, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"text embeddings of shape .*: expected 20 rows"):
        unseal(np.zeros((20, 4)), np.zeros((rows, 4)), key)
    with pytest.raises(ValueError, match="image embeddings"):
        unseal(np.zeros(20), np.zeros((20, 4)), key)


def test_sealing_and_judging_need_no_torch() -> None:
    program = "import sys, eclip.data.sealed, eclip.data.pack; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
