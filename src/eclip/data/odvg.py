"""ODVG annotations in, checked records out: one print each, with its caption and its phrases' boxes.

The layout is Ukiyo-eVG's (Zenodo 13120879); every line is one JSON object:

    {"filename": "a.jpg", "width": 300, "height": 400, "grounding": {"caption": "a boat under the moon",
     "regions": [{"bbox": [10, 20, 110, 90], "phrase": "a boat"}]}}

with `bbox` in pixels (x1 y1 x2 y2), one box or a list of boxes, and `phrase` a string or a list of strings,
each of which names all of the region's boxes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

Split = Literal["train", "val", "test"]
OnError = Literal["raise", "skip"]
Box = tuple[float, float, float, float]

ANNOTATIONS = {
    "train": "annotations/Ukiyo-eVG/refined/ukiyoe_vg_train_pgt_odvg.jsonl",
    "val": "annotations/Ukiyo-eVG/refined/ukiyoe_vg_val_pgt_odvg.jsonl",
    "test": "annotations/Ukiyo-eVG/ukiyoe_vg_test_annotated.jsonl",
}

# pseudo boxes are rounded network outputs: this many pixels over the edge are pulled back in
OVERSHOOT = 0.5


class DataError(ValueError):
    """A line (or a file, `line` 0) that cannot be used. `reason` is a class of errors, to be counted."""

    def __init__(self, file: Path, line: int, reason: str, detail: str = "") -> None:
        self.file, self.line, self.reason, self.detail = file, line, reason, detail
        where = f"{file}:{line}" if line else str(file)
        super().__init__(f"{where}: {reason}" + (f": {detail}" if detail else ""))


@dataclass(frozen=True)
class Region:
    """A phrase and where it is seen: boxes in pixels, x1 y1 x2 y2."""

    phrase: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Record:
    """One print. `source` and `line` say where its annotation stands."""

    path: Path
    width: float
    height: float
    caption: str
    regions: tuple[Region, ...]
    source: Path
    line: int


@dataclass(frozen=True)
class Skipped:
    """A line that was left out. `reason` is what `Annotations.counts` counts."""

    source: Path
    line: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Annotations:
    """The usable prints of annotation files, what was left out, and what to do about more of it."""

    records: tuple[Record, ...]
    skipped: tuple[Skipped, ...] = ()
    on_error: OnError = "raise"

    @property
    def counts(self) -> Counter[str]:
        return Counter(skip.reason for skip in self.skipped)

    def __add__(self, other: Annotations) -> Annotations:
        return Annotations(self.records + other.records, self.skipped + other.skipped, self.on_error)


def summary(used: int, skipped: Sequence[Skipped]) -> str:
    """One line for people: how many prints are used, how many lines were skipped, and why."""
    why = Counter(skip.reason for skip in skipped).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in why)
    return f"{used:,} prints used, {len(skipped):,} lines skipped" + (f" ({reasons})" if reasons else "")


def read_split(root: Path, split: Split, on_error: OnError = "raise") -> Annotations:
    """The split's records in file order.

    Lines without a caption or without regions are always skipped and counted. Any other bad line raises
    DataError, or is skipped and counted under on_error="skip". Images are decoded when they are packed.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"data.on_error={on_error!r}: use 'raise' or 'skip'")
    if split not in ANNOTATIONS:
        raise ValueError(f"split {split!r}: use one of {', '.join(ANNOTATIONS)}")
    file = Path(root) / ANNOTATIONS[split]
    if not file.is_file():
        raise DataError(file, 0, "annotation file missing", "run `make data`, or use data=synthetic")
    records: list[Record] = []
    skipped: list[Skipped] = []
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            records.append(_parse(line, Path(root) / "images", file, number))
        except _Unannotated as nothing:
            skipped.append(Skipped(file, number, str(nothing)))
        except DataError as error:
            if on_error == "raise":
                raise
            skipped.append(Skipped(file, number, error.reason, error.detail))
    if not records:
        raise DataError(file, 0, "no usable line", summary(0, skipped) if skipped else "the file is empty")
    return Annotations(tuple(records), tuple(skipped), on_error)


def _lines(file: Path) -> list[bytes]:
    # split at newlines alone: a caption may hold U+2028 and other line breaks of Unicode
    return file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")


class _Unannotated(Exception):
    """A sound line that says nothing to learn from."""


def _parse(line: bytes, images: Path, file: Path, number: int) -> Record:
    def fail(reason: str, detail: str = "") -> NoReturn:
        raise DataError(file, number, reason, detail)

    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        fail("broken JSON", str(error)[:200])
    if not isinstance(entry, dict):
        fail("broken JSON", f"expected an object, found {type(entry).__name__}")
    for key in ("filename", "width", "height", "grounding"):
        if key not in entry:
            fail("missing key", key)
    filename, grounding = entry["filename"], entry["grounding"]
    if not isinstance(filename, str) or not filename.strip():
        fail("bad value", f"filename: {filename!r}")
    if PurePosixPath(filename).is_absolute() or ".." in PurePosixPath(filename).parts or "\0" in filename:
        fail("bad value", f"filename {filename!r} leaves the image folder")
    if not isinstance(grounding, dict):
        fail("bad value", f"grounding: expected an object, found {type(grounding).__name__}")
    width, height = (_side(entry[key]) for key in ("width", "height"))
    if width is None or height is None:
        fail("bad value", f"width {entry['width']!r}, height {entry['height']!r}: expected pixels above 0")
    caption = grounding.get("caption") or ""
    if not isinstance(caption, str):
        fail("bad value", f"caption: {caption!r}")
    if not caption.strip():
        raise _Unannotated("no caption")
    listed = grounding.get("regions") or []
    if not isinstance(listed, list):
        fail("bad value", f"regions: expected a list, found {type(listed).__name__}")
    if not listed:
        raise _Unannotated("no regions")
    regions = tuple(region for item in listed for region in _regions(item, width, height, fail))
    path = images / filename
    if not path.is_file():
        fail("missing image", str(path))
    return Record(path, width, height, caption.strip(), regions, file, number)


def _side(value: Any) -> float | None:
    return float(value) if _is_number(value) and value > 0 else None


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _regions(item: Any, width: float, height: float, fail: Any) -> list[Region]:
    if not isinstance(item, dict):
        fail("bad value", f"region: expected an object, found {type(item).__name__}")
    for key in ("bbox", "phrase"):
        if key not in item:
            fail("missing key", f"regions[].{key}")
    phrases = item["phrase"] if isinstance(item["phrase"], list) else [item["phrase"]]
    if not phrases or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        fail("bad value", f"phrase: {item['phrase']!r}")
    listed = item["bbox"]
    if not isinstance(listed, list) or not listed:
        fail("bad box", f"expected x1 y1 x2 y2, found {listed!r}")
    listed = listed if isinstance(listed[0], list) else [listed]
    boxes = tuple(_box(box, width, height, fail) for box in listed)
    return [Region(phrase.strip(), boxes) for phrase in phrases]


def _box(box: Any, width: float, height: float, fail: Any) -> Box:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        fail("bad box", f"expected four finite numbers x1 y1 x2 y2, found {box!r}"[:200])
    x1, y1, x2, y2 = box
    if min(x1, y1) < -OVERSHOOT or x2 > width + OVERSHOOT or y2 > height + OVERSHOOT:
        fail("box outside the print", f"{box} in a print of {width:g} x {height:g}")
    left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    if right <= left or bottom <= top:
        fail("box without area", f"{box}")
    return float(left), float(top), float(right), float(bottom)
