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
from typing import Any, Literal, NoReturn, TypeVar

Split = Literal["train", "val", "test"]
OnError = Literal["raise", "skip"]
Kind = TypeVar("Kind")
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
            records.append(_Line(file, number).record(line, Path(root) / "images"))
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


@dataclass(frozen=True)
class _Line:
    """Where a line stands, for its errors, and the checks it must pass."""

    file: Path
    number: int

    def fail(self, reason: str, detail: str) -> NoReturn:
        raise DataError(self.file, self.number, reason, detail[:200])

    def value(self, entry: dict[str, Any], key: str, kind: type[Kind]) -> Kind:
        if key not in entry:
            self.fail("missing key", key)
        found = entry[key]
        if not isinstance(found, kind):
            self.fail("bad value", f"{key}: expected {kind.__name__}, found {found!r}")
        return found

    def record(self, line: bytes, images: Path) -> Record:
        entry = self.entry(line)
        path = images / self.filename(entry)
        width, height = self.side(entry, "width"), self.side(entry, "height")
        grounding: dict[str, Any] = self.value(entry, "grounding", dict)
        caption = self.value({"caption": grounding.get("caption") or ""}, "caption", str).strip()
        if not caption:
            raise _Unannotated("no caption")
        listed: list[Any] = self.value({"regions": grounding.get("regions") or []}, "regions", list)
        if not listed:
            raise _Unannotated("no regions")
        regions = tuple(region for item in listed for region in self.regions(item, width, height))
        if not path.is_file():
            self.fail("missing image", str(path))
        return Record(path, width, height, caption, regions, self.file, self.number)

    def entry(self, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # bad UTF-8 and endless digits are ValueErrors, too
            self.fail("broken JSON", str(error))
        if not isinstance(entry, dict):
            self.fail("broken JSON", f"expected an object, found {type(entry).__name__}")
        return entry

    def filename(self, entry: dict[str, Any]) -> str:
        filename = self.value(entry, "filename", str)
        path = PurePosixPath(filename)
        if not filename.strip() or "\0" in filename or path.is_absolute() or ".." in path.parts:
            self.fail("bad value", f"filename: {filename!r} is no file of the image folder")
        return filename

    def side(self, entry: dict[str, Any], key: str) -> float:
        if key not in entry:
            self.fail("missing key", key)
        if not _is_number(entry[key]) or entry[key] <= 0:
            self.fail("bad value", f"{key}: expected pixels above 0, found {entry[key]!r}")
        return float(entry[key])

    def regions(self, item: Any, width: float, height: float) -> list[Region]:
        """A region for each of the item's phrases, all with all of its boxes."""
        if not isinstance(item, dict):
            self.fail("bad value", f"regions: expected objects, found {item!r}")
        bbox: list[Any] = self.value(item, "bbox", list)
        phrase: Any = self.value(item, "phrase", object)
        phrases = phrase if isinstance(phrase, list) else [phrase]
        if not phrases or not all(isinstance(text, str) and text.strip() for text in phrases):
            self.fail("bad value", f"phrase: expected words, found {phrase!r}")
        nested = bool(bbox) and all(isinstance(box, list) for box in bbox)
        boxes = tuple(self.box(box, width, height) for box in (bbox if nested else [bbox]))
        return [Region(text.strip(), boxes) for text in phrases]

    def box(self, box: list[Any], width: float, height: float) -> Box:
        if len(box) != 4 or not all(map(_is_number, box)):
            self.fail("bad box", f"expected four finite numbers x1 y1 x2 y2, found {box!r}")
        x1, y1, x2, y2 = box
        if min(x1, y1) < -OVERSHOOT or x2 > width + OVERSHOOT or y2 > height + OVERSHOOT:
            self.fail("box outside the print", f"{box} in a print of {width:g} x {height:g}")
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if right <= left or bottom <= top:
            self.fail("box without area", f"{box}")
        return float(left), float(top), float(right), float(bottom)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; JSON here may hold NaN, 1e999 and integers of hundreds of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
