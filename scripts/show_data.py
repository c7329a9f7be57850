"""Annotations go in; a plate of sample prints comes out: captions, boxes with their phrases, expert heatmaps.

    python scripts/show_data.py [--root data/synthetic] [--split train] [--count 12] [--seed 0]
                                [--out data_samples.png]

All samples are hung in rows with their captions; those with most phrases (--annotated) again below,
once with the boxes of each phrase and once under the heatmap that the expert is given.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from eclip.data.heatmap import boxes_to_heatmap
from eclip.data.odvg import DataError, Record, read_split

WIDTH, MARGIN, GAP = 1480, 56, 30  # pixels
ROW, PAIR_ROW = 256, 190  # how high prints hang, and pairs of them, before a row is justified
PAPER, INK, FAINT, RULE = (240, 229, 207), (38, 34, 44), (122, 108, 92), (206, 190, 160)
BOX_COLOURS = [(196, 52, 36), (24, 72, 136), (38, 110, 74), (124, 62, 140), (190, 126, 24), (20, 20, 28)]
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def font(size: int, style: str = "") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONTS / f"STIXGeneral{style}.ttf"), size)


@dataclass(frozen=True)
class Plate:
    """A picture to hang and the lines of text under it, each with its colour."""

    picture: Image.Image
    text: list[tuple[str, tuple[int, int, int]]]


def caption_plate(record: Record) -> Plate:
    return Plate(Image.open(record.path).convert("RGB"), [(record.caption, INK)])


def annotated_plate(record: Record) -> Plate:
    """The print with its boxes beside the print under its heatmap; the phrases in their boxes' colours."""
    print_ = Image.open(record.path).convert("RGB")
    boxed, text = print_.resize((print_.width * 2, print_.height * 2), Image.Resampling.LANCZOS), []
    draw = ImageDraw.Draw(boxed)
    for number, region in enumerate(record.regions):
        colour = BOX_COLOURS[number % len(BOX_COLOURS)]
        text.append((region.phrase, colour))
        for x1, y1, x2, y2 in region.boxes:
            draw.rectangle((x1 * 2 - 2, y1 * 2 - 2, x2 * 2 + 1, y2 * 2 + 1), outline=PAPER, width=7)
            draw.rectangle((x1 * 2, y1 * 2, x2 * 2 - 1, y2 * 2 - 1), outline=colour, width=4)
    heated = under_heatmap(record, print_).resize(boxed.size, Image.Resampling.LANCZOS)
    pair = Image.new("RGB", (boxed.width * 2 + 16, boxed.height), PAPER)
    pair.paste(boxed, (0, 0))
    pair.paste(heated, (boxed.width + 16, 0))
    return Plate(pair, text)


def under_heatmap(record: Record, print_: Image.Image) -> Image.Image:
    """The print in the dark where the heatmap is 0, in full light where it is 1."""
    sides = torch.tensor([record.width, record.height] * 2)
    boxes = torch.tensor([box for region in record.regions for box in region.boxes]) / sides
    heat = boxes_to_heatmap(boxes[None], torch.ones(1, len(boxes), dtype=torch.bool), 128)[0]
    mask = Image.fromarray((heat.numpy() * 255).astype(np.uint8)).resize(
        print_.size, Image.Resampling.BICUBIC
    )
    dark = ImageOps.colorize(ImageOps.grayscale(print_), (20, 22, 40), (132, 128, 136))
    return Image.composite(print_, dark, mask)


def rows_of(plates: list[Plate], height: int) -> list[list[tuple[Plate, int, int]]]:
    """Plates with their (width, height), in rows of about `height`, each as wide as the sheet."""
    room = WIDTH - 2 * MARGIN
    aspects = [plate.picture.width / plate.picture.height for plate in plates]
    count = max(1, round(sum(aspects) * height / room))
    middle = np.cumsum(aspects) - np.array(aspects) / 2
    row_of = np.minimum((middle * count / sum(aspects)).astype(int), count - 1)
    rows = []
    for number in sorted(set(row_of)):
        row = [(plate, a) for plate, a, of in zip(plates, aspects, row_of, strict=True) if of == number]
        fitted = min((room - GAP * (len(row) - 1)) / sum(a for _, a in row), height * 1.5)
        rows.append([(plate, round(fitted * a), round(fitted)) for plate, a in row])
    return rows


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if face.getlength(longer) <= width else [*lines, word]
    return lines


def hang(sheet: Image.Image, row: list[tuple[Plate, int, int]], y: int, face: ImageFont.FreeTypeFont) -> int:
    """Paste a row at y with its text; returns where the next may begin."""
    draw, x, lowest = ImageDraw.Draw(sheet), MARGIN, y
    for plate, width, height in row:
        shadow = Image.new("L", sheet.size)
        ImageDraw.Draw(shadow).rectangle((x + 3, y + 5, x + width + 3, y + height + 5), fill=110)
        box = (x - 12, y - 12, x + width + 18, y + height + 20)
        sheet.paste((96, 76, 56), box[:2], shadow.crop(box).filter(ImageFilter.GaussianBlur(4)))
        sheet.paste(plate.picture.resize((width, height), Image.Resampling.LANCZOS), (x, y))
        below = y + height + 12
        for text, colour in plate.text:
            for line in wrapped(text, face, width):
                draw.text((x, below), line, fill=colour, font=face)
                below += round(face.size) + 4
        x, lowest = x + width + GAP, max(lowest, below)
    return lowest + 26


def heading(sheet: Image.Image, y: int, words: str, aside: str) -> int:
    draw = ImageDraw.Draw(sheet)
    draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=RULE, width=1)
    draw.text((MARGIN, y + 10), words, fill=INK, font=font(25))
    draw.text((WIDTH - MARGIN, y + 16), aside, fill=FAINT, font=font(18, "Italic"), anchor="ra")
    return y + 58


def compose(records: list[Record], annotated: int, title: str) -> Image.Image:
    """The whole sheet."""
    sheet = Image.new("RGB", (WIDTH, 20000), PAPER)
    y = heading(sheet, 34, title, "each with its caption")
    for row in rows_of([caption_plate(record) for record in records], ROW):
        y = hang(sheet, row, y, font(17, "Italic"))
    richest = sorted(records, key=lambda record: -len(record.regions))[:annotated]
    if richest:
        y = heading(
            sheet,
            y + 8,
            "Phrases, boxes and what the expert sees",
            "heatmap: a gaussian for each box, the maximum over boxes",
        )
        for row in rows_of([annotated_plate(record) for record in richest], PAIR_ROW):
            y = hang(sheet, row, y, font(18))
    return sheet.crop((0, 0, WIDTH, y + 8))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--annotated", type=int, default=3, help="how many of them to show again with boxes")
    parser.add_argument("--seed", type=int, default=0, help="which prints are drawn from the split")
    parser.add_argument("--out", type=Path, default=Path("data_samples.png"))
    wanted = parser.parse_args()
    try:
        records = read_split(wanted.root, wanted.split, on_error="raise").records
    except DataError as error:
        parser.exit(1, f"{error} (`make prints` draws the embedded one)\n")
    sample = random.Random(wanted.seed).sample(list(records), min(wanted.count, len(records)))
    title = f"{len(sample)} of {len(records):,} prints ({wanted.root.name}, {wanted.split})"
    compose(sample, wanted.annotated, title).save(wanted.out, quality=77, optimize=True)
    print(f"{wanted.out}: {title}")


if __name__ == "__main__":
    main()
