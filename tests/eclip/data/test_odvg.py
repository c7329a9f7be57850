"""The reader of annotations: what it takes, what it refuses, and how it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eclip.data.odvg import DataError, Region, read_split, summary
from tests.eclip.data.ukiyo import draw, line, write_lines


def one(tmp_path: Path, entry: Any, on_error: Any = "raise") -> Any:
    """Read a file whose second line is `entry`."""
    for number in (0, 1):
        draw(tmp_path / "images" / f"{number:04d}.png", number)
    write_lines(tmp_path, "train", [line(0), entry])
    return read_split(tmp_path, "train", on_error)


def with_region(**region: Any) -> dict[str, Any]:
    grounding = {"caption": "a boat", "regions": [{"bbox": [1, 2, 30, 40], "phrase": "boat"} | region]}
    return line(1, grounding=grounding)


def test_reads_the_layout_in_file_order(root: Path) -> None:
    records = read_split(root, "train").records
    assert [record.path.name for record in records] == [f"{n:04d}.png" for n in range(50)]
    record = records[2]
    assert (record.width, record.height, record.line) == (60, 80, 3)
    assert record.caption == "a pine number 2 by the shore"
    assert record.regions[1] == Region("the lantern", ((4.0, 5.0, 24.0, 45.0),))
    assert read_split(root, "test").records[0].path == root / "images" / "0060.png"


@pytest.mark.parametrize(
    ("bbox", "boxes"),
    [
        ([1, 2, 30, 40], ((1.0, 2.0, 30.0, 40.0),)),
        ([[1, 2, 30, 40], [5, 5, 9.5, 80]], ((1.0, 2.0, 30.0, 40.0), (5.0, 5.0, 9.5, 80.0))),
    ],
)
@pytest.mark.parametrize(
    ("phrase", "phrases"), [("boat", ["boat"]), (["boat", " skiff "], ["boat", "skiff"])]
)
def test_one_box_or_many_and_one_phrase_or_many(
    tmp_path: Path, bbox: Any, boxes: Any, phrase: Any, phrases: list[str]
) -> None:
    record = one(tmp_path, with_region(bbox=bbox, phrase=phrase)).records[1]
    assert record.regions == tuple(Region(name, boxes) for name in phrases)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in line(1).items() if name != key}


BAD = {
    "broken json": ("{", "broken JSON"),
    "an array": ("[1, 2]", "broken JSON"),
    "deep nesting": ("[" * 100_000, "broken JSON"),
    "endless digits": ('{"width": ' + "9" * 5000 + "}", "broken JSON"),
    "no filename": (without("filename"), "missing key"),
    "no width": (without("width"), "missing key"),
    "no height": (without("height"), "missing key"),
    "no grounding": (without("grounding"), "missing key"),
    "no bbox": (line(1, grounding={"caption": "c", "regions": [{"phrase": "p"}]}), "missing key"),
    "no phrase": (line(1, grounding={"caption": "c", "regions": [{"bbox": [1, 2, 3, 4]}]}), "missing key"),
    "no phrase words": (with_region(phrase=" "), "bad value"),
    "no phrases": (with_region(phrase=[]), "bad value"),
    "phrase of numbers": (with_region(phrase=[1]), "bad value"),
    "region is text": (line(1, grounding={"caption": "c", "regions": ["p"]}), "bad value"),
    "grounding is text": (line(1, grounding="c"), "bad value"),
    "caption is a number": (line(1, grounding={"caption": 7, "regions": []}), "bad value"),
    "width of zero": (line(1, width=0), "bad value"),
    "width is NaN": (line(1, width=float("nan")), "bad value"),
    "width is true": (line(1, width=True), "bad value"),
    "huge height": (line(1, height=10**400), "bad value"),
    "name leaves the folder": (line(1, filename="../0001.png"), "bad value"),
    "absolute name": (line(1, filename="/etc/passwd"), "bad value"),
    "no such image": (line(1, filename="absent.png"), "missing image"),
    "three numbers": (with_region(bbox=[1, 2, 3]), "bad box"),
    "no numbers": (with_region(bbox=[]), "bad box"),
    "NaN": (with_region(bbox=[1, 2, float("nan"), 4]), "bad box"),
    "infinite": (json.dumps(with_region()).replace("30", "1e999"), "bad box"),
    "text": (with_region(bbox=[1, 2, "30", 4]), "bad box"),
    "second box bad": (with_region(bbox=[[1, 2, 30, 40], [1, 2, 3]]), "bad box"),
    "box and number mixed": (with_region(bbox=[[1, 2, 30, 40], 3]), "bad box"),
    "left of the print": (with_region(bbox=[-3, 2, 30, 40]), "box outside the print"),
    "below the print": (with_region(bbox=[1, 2, 30, 81]), "box outside the print"),
    "beside the print": (with_region(bbox=[61, 2, 90, 40]), "box outside the print"),
    "no width of box": (with_region(bbox=[5, 2, 5, 40]), "box without area"),
    "upside down": (with_region(bbox=[1, 40, 30, 2]), "box without area"),
    "only overshoot": (with_region(bbox=[60, 2, 60.4, 40]), "box without area"),
}


@pytest.mark.parametrize(("entry", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_an_error_with_file_line_and_reason(tmp_path: Path, entry: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        one(tmp_path, entry)
    assert caught.value.reason == reason
    assert caught.value.line == 2
    assert "ukiyoe_vg_train_pgt_odvg.jsonl:2: " + reason in str(caught.value)
    assert len(str(caught.value)) < 1000
    annotations = one(tmp_path, entry, on_error="skip")
    assert len(annotations.records) == 1
    assert annotations.counts == {reason: 1}
    assert annotations.skipped[0].line == 2


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("grounding", "reason"),
    [
        ({"regions": [{"bbox": [1, 2, 3, 4], "phrase": "p"}]}, "no caption"),
        ({"caption": None, "regions": [{"bbox": [1, 2, 3, 4], "phrase": "p"}]}, "no caption"),
        ({"caption": "  ", "regions": [{"bbox": [1, 2, 3, 4], "phrase": "p"}]}, "no caption"),
        ({"caption": "a boat"}, "no regions"),
        ({"caption": "a boat", "regions": []}, "no regions"),
    ],
)
def test_lines_that_say_nothing_are_always_skipped_and_counted(
    tmp_path: Path, grounding: Any, reason: str, on_error: Any
) -> None:
    annotations = one(tmp_path, line(1, grounding=grounding), on_error)
    assert annotations.counts == {reason: 1}
    assert (
        summary(len(annotations.records), annotations.skipped)
        == f"1 prints used, 1 lines skipped (1 {reason})"
    )


def test_half_a_pixel_of_overshoot_is_pulled_back(tmp_path: Path) -> None:
    record = one(tmp_path, with_region(bbox=[-0.4, 2, 60.3, 80.5])).records[1]
    assert record.regions[0].boxes == ((0.0, 2.0, 60.0, 80.0),)


def test_crlf_byte_order_mark_blank_lines_unicode_and_duplicates(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "0001.png", 1)
    draw(tmp_path / "images" / "浮世絵.png", 1)
    lines = [line(1), "", line(1, filename="浮世絵.png"), line(1)]
    lines[2]["grounding"]["caption"] = "Under\u2028the wave\x85of Kanagawa 神奈川"
    write_lines(tmp_path, "val", lines, newline="\r\n", bom=True)
    annotations = read_split(tmp_path, "val")
    assert [(record.path.name, record.line) for record in annotations.records] == [
        ("0001.png", 1),
        ("浮世絵.png", 3),
        ("0001.png", 4),
    ]
    assert annotations.records[1].caption.endswith("神奈川")
    assert not annotations.skipped


@pytest.mark.parametrize("lines", [[], [""], ["{", "{"]])
def test_a_file_with_nothing_to_use_is_an_error_even_under_skip(tmp_path: Path, lines: list[str]) -> None:
    write_lines(tmp_path, "test", lines)
    with pytest.raises(DataError, match="no usable line") as caught:
        read_split(tmp_path, "test", "skip")
    assert caught.value.line == 0


def test_bytes_that_are_no_utf8_are_broken_json(tmp_path: Path) -> None:
    write_lines(tmp_path, "train", []).write_bytes(b'{"filename": "\xff"}\n')
    with pytest.raises(DataError, match=":1: broken JSON"):
        read_split(tmp_path, "train")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make data"):
        read_split(tmp_path, "train")


def test_unknown_choices_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"on_error='ignore'"):
        read_split(root, "train", "ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split 'dev'"):
        read_split(root, "dev")  # type: ignore[arg-type]


def test_a_pool_adds_up_records_and_skips(tmp_path: Path, root: Path) -> None:
    some = one(tmp_path, line(1, grounding={"caption": "a boat"}))
    both = some + read_split(root, "val")
    assert len(both.records) == 11
    assert both.counts == {"no regions": 1}
