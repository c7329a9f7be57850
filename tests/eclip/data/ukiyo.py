"""A small Ukiyo-eVG for tests: real image files and annotation lines, in its exact layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eclip.data.odvg import ANNOTATIONS

NOUNS = ("boat", "crane", "pine", "lantern", "wave", "moon", "bridge", "parasol")


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A sound annotation: a print of 60 x 80 with one to three regions."""
    noun = NOUNS[number % len(NOUNS)]
    regions = [
        {
            "bbox": [4 * region, 5, 4 * region + 20, 45],
            "phrase": f"the {NOUNS[(number + region) % len(NOUNS)]}",
        }
        for region in range(1 + number % 3)
    ]
    caption = f"a {noun} number {number} by the shore"
    grounding = {"caption": caption, "regions": regions}
    return {"filename": f"{number:04d}.png", "width": 60, "height": 80, "grounding": grounding} | changes


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((60, 80)).save(path)


def write_lines(root: Path, split: str, lines: list[Any], *, newline: str = "\n", bom: bool = False) -> Path:
    """An annotation file of objects, or of raw strings as they are."""
    file = root / ANNOTATIONS[split]
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = [entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False) for entry in lines]
    file.write_bytes(("\ufeff" if bom else "").encode() + newline.join([*texts, ""]).encode())
    return file


def dataset(root: Path, split: str, numbers: range) -> Path:
    for number in numbers:
        draw(root / "images" / f"{number:04d}.png", number)
    return write_lines(root, split, [line(number) for number in numbers])


SETTINGS: dict[str, Any] = {
    "image_size": 16,
    "caption_tokens": 24,
    "phrase_tokens": 8,
    "tokenizer": "wordpiece",
    "workers": 2,
    "progress": False,
}
