"""Packs: what is in them, when they are built again, and that nothing breaks them half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from eclip.data.images import decode
from eclip.data.odvg import Annotations, DataError, read_split, summary
from eclip.data.pack import Pack, build_pack
from tests.eclip.data.ukiyo import SETTINGS, dataset, draw, line, write_lines

BUILD = """
import sys
from pathlib import Path
from eclip.data.odvg import read_split
from eclip.data.pack import build_pack
from tests.eclip.data.ukiyo import SETTINGS
assert "torch" not in sys.modules
pack = build_pack(read_split(Path(sys.argv[1]), "train"), out_dir=Path(sys.argv[2]), **SETTINGS)
print((pack.directory / "images.npy").stat().st_ino, len(pack))
"""


def start(root: Path, out: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": ":".join([*sys.path, os.fspath(Path.cwd())])}
    command = [sys.executable, "-c", BUILD, str(root), str(out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_rows_are_the_records_in_order(pool: Annotations, pack: Pack) -> None:
    assert len(pack) == len(pool.records) == 60
    assert pack.filenames == tuple(record.path.name for record in pool.records)
    assert pack.image_size == 16
    tokenizer = Tokenizer.from_file(str(pack.tokenizer_path))
    for row, record in enumerate(pool.records):
        with Image.open(record.path) as image:
            squashed = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
        assert np.array_equal(pack.images_NHWC[row], squashed)
        ids = tokenizer.encode(record.caption).ids
        assert pack.captions_NL[row].tolist() == ids + [0] * (24 - len(ids))
        start, end = pack.phrase_offsets_N1[row : row + 2]
        phrases = [tokenizer.decode(phrase[phrase != 0].tolist()) for phrase in pack.phrases_ML[start:end]]
        assert phrases == [region.phrase for region in record.regions]
        count = pack.box_count_N[row]
        boxes = [box for region in record.regions for box in region.boxes]
        np.testing.assert_allclose(pack.boxes_NR4[row, :count], np.array(boxes) / (60, 80, 60, 80), rtol=1e-6)
        assert not pack.boxes_NR4[row, count:].any()
    assert pack.phrase_offsets_N1[-1] == len(pack.phrases_ML)
    assert pack.vocabulary_size == tokenizer.get_vocab_size() > pack.captions_NL.max()


def test_a_box_of_several_phrases_is_one_box(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "0001.png", 1)
    regions = [{"bbox": [[0, 0, 30, 40], [30, 40, 60, 80]], "phrase": ["boat", "skiff"]}]
    write_lines(tmp_path, "train", [line(1, grounding={"caption": "boats", "regions": regions})])
    pack = build_pack(read_split(tmp_path, "train"), out_dir=tmp_path / "packs", **SETTINGS)
    assert pack.boxes_NR4.tolist() == [[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]]
    assert np.diff(pack.phrase_offsets_N1).tolist() == [2]


def test_writing_to_a_pack_never_reaches_its_files(pool: Annotations, pack: Pack) -> None:
    opened = Pack.open(pack.directory)
    opened.images_NHWC[0] = 255 - opened.images_NHWC[0]
    assert np.array_equal(Pack.open(pack.directory).images_NHWC, pack.images_NHWC)


def test_the_same_sources_and_settings_are_packed_once(root: Path, tmp_path: Path) -> None:
    def build(annotations: Annotations, **changes: Any) -> Path:
        return build_pack(annotations, out_dir=tmp_path, **(SETTINGS | changes)).directory

    annotations = read_split(root, "val")
    first = build(annotations)
    inode = (first / "images.npy").stat().st_ino
    assert build(read_split(root, "val"), workers=1) == first
    assert (first / "images.npy").stat().st_ino == inode
    changed = [
        build(annotations, image_size=8),
        build(annotations, caption_tokens=12),
        build(annotations, phrase_tokens=4),
        build(annotations, tokenizer=str(first / "tokenizer.json")),
        build(Annotations(annotations.records[1:])),
        build(Annotations(annotations.records[::-1])),
    ]
    assert len({first, *changed}) == 7


def test_a_changed_image_caption_or_box_is_packed_again(tmp_path: Path) -> None:
    file = dataset(tmp_path, "train", range(3))

    def build() -> Pack:
        return build_pack(read_split(tmp_path, "train"), out_dir=tmp_path / "packs", **SETTINGS)

    first = build()
    draw(tmp_path / "images" / "0001.png", 77)
    second = build()
    assert second.directory != first.directory
    assert not np.array_equal(second.images_NHWC[1], first.images_NHWC[1])
    file.write_text(file.read_text().replace("number 2", "number two"))
    third = build()
    file.write_text(file.read_text().replace("[4, 5, 24, 45]", "[4, 5, 24, 46]", 1))
    assert len({pack.directory for pack in (first, second, third, build())}) == 4


def test_a_test_split_takes_the_pools_vocabulary(pack: Pack, pack_of_test: Pack) -> None:
    assert pack_of_test.tokenizer_path.read_bytes() == pack.tokenizer_path.read_bytes()
    assert pack_of_test.vocabulary_size == pack.vocabulary_size


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_an_image_that_does_not_decode_is_an_error_or_its_print_is_skipped(
    tmp_path: Path, suffix: str, damage: str
) -> None:
    lines = []
    for number in range(4):
        draw(tmp_path / "images" / f"{number}{suffix}", number)
        lines.append(line(number, filename=f"{number}{suffix}"))
    bad = tmp_path / "images" / f"1{suffix}"
    bad.write_bytes({"truncated": bad.read_bytes()[:-120], "empty": b"", "text": b"no image"}[damage])
    write_lines(tmp_path, "train", lines)
    with pytest.raises(DataError, match=r"jsonl:2: unreadable image: .*1\.") as caught:
        build_pack(read_split(tmp_path, "train"), out_dir=tmp_path / "packs", **SETTINGS)
    assert caught.value.reason == "unreadable image"
    assert not [path for path in (tmp_path / "packs").iterdir() if path.is_dir()]

    pack = build_pack(read_split(tmp_path, "train", "skip"), out_dir=tmp_path / "packs", **SETTINGS)
    assert pack.filenames == tuple(f"{number}{suffix}" for number in (0, 2, 3))
    assert np.array_equal(pack.images_NHWC[1], decode(tmp_path / "images" / f"2{suffix}", 16))
    assert len(pack.captions_NL) == len(pack.boxes_NR4) == len(pack.phrase_offsets_N1) - 1 == 3
    assert summary(len(pack), pack.skipped) == "3 prints used, 1 lines skipped (1 unreadable image)"
    assert pack.images_NHWC.reshape(3, -1).std(axis=1).min() > 1  # none of them black


def test_lines_skipped_while_reading_are_counted_in_the_pack(tmp_path: Path) -> None:
    file = dataset(tmp_path, "train", range(3))
    file.write_text(file.read_text() + "{\n")
    draw(tmp_path / "images" / "0001.png", 1)
    truncate(tmp_path / "images" / "0001.png")
    pack = build_pack(read_split(tmp_path, "train", "skip"), out_dir=tmp_path / "packs", **SETTINGS)
    assert [(skip.line, skip.reason) for skip in pack.skipped] == [
        (4, "broken JSON"),
        (2, "unreadable image"),
    ]


def test_nothing_left_is_an_error_even_under_skip(tmp_path: Path) -> None:
    dataset(tmp_path, "train", range(1))
    truncate(tmp_path / "images" / "0000.png")
    with pytest.raises(DataError, match="no image could be decoded"):
        build_pack(read_split(tmp_path, "train", "skip"), out_dir=tmp_path / "packs", **SETTINGS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("print.tif" if mode == "CMYK" else "print.png")
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    image = (
        Image.fromarray(picture.astype(np.uint16))
        if mode == "I;16"
        else Image.fromarray(picture).convert(mode)
    )
    image.save(path)
    assert decode(path, 8).shape == (8, 8, 3)


def test_a_jpeg_is_decoded_at_a_size_near_the_wanted_one(tmp_path: Path) -> None:
    smooth = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(smooth).resize((800, 640), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        exact = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(decode(tmp_path / "a.jpg", 32).astype(int) - exact).max() <= 4


def test_two_processes_build_one_pack(tmp_path: Path) -> None:
    dataset(tmp_path, "train", range(40))
    processes = [start(tmp_path, tmp_path / "packs") for _ in range(2)]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(printed) == 1  # the same file: neither replaced the other's
    assert printed.pop().split()[1] == "40"
    assert sorted(path.suffix for path in (tmp_path / "packs").iterdir()) == ["", ".lock"]


def test_a_killed_build_leaves_nothing_that_is_taken_for_a_pack(tmp_path: Path) -> None:
    # one large image under many lines: slow enough to be killed half-way
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(noise).save(tmp_path / "images" / "big.png", compress_level=1)
    lines = [line(number, filename="big.png", width=1200, height=1200) for number in range(40)]
    write_lines(tmp_path, "train", lines)
    process = start(tmp_path, tmp_path / "packs")
    deadline = time.monotonic() + 30
    while not list((tmp_path / "packs").glob("*.unfinished/images.npy")):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = [path.suffix for path in (tmp_path / "packs").iterdir() if path.is_dir()]
    assert left == [".unfinished"]
    pack = build_pack(read_split(tmp_path, "train"), out_dir=tmp_path / "packs", **SETTINGS)
    assert np.array_equal(pack.images_NHWC[39], decode(tmp_path / "images" / "big.png", 16))
    assert [path for path in (tmp_path / "packs").iterdir() if path.is_dir()] == [pack.directory]


def test_a_damaged_pack_says_so(root: Path, tmp_path: Path) -> None:
    pack = build_pack(read_split(root, "val"), out_dir=tmp_path, **SETTINGS)
    (pack.directory / "boxes.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"delete it: boxes\.npy is missing"):
        build_pack(read_split(root, "val"), out_dir=tmp_path, **SETTINGS)
