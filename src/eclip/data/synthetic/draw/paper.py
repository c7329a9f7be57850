"""An impression goes in; the same on washi comes out: fibres, wood grain, margin, title and seal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.draw.canvas import rectangle
from eclip.data.synthetic.draw.geometry import spline
from eclip.data.synthetic.draw.studio import PIGMENTS, Studio

_ATLAS = 1024


def _noise(key: int, width: int, height: int) -> Image.Image:
    """White noise stretched to the atlas; bits of a counter-based generator, so the same everywhere."""
    bits = np.random.Generator(np.random.Philox(key=key)).bytes(width * height)
    return Image.frombytes("L", (width, height), bits).resize((_ATLAS, _ATLAS), Image.Resampling.BICUBIC)


@lru_cache(maxsize=1)
def washi() -> Image.Image:
    """A sheet of paper as a factor for each channel: cloudy, with fibres and a fine tooth."""
    cloudy, tooth = _noise(1, 24, 24), _noise(2, _ATLAS, _ATLAS).filter(ImageFilter.GaussianBlur(0.7))
    fibres = _noise(3, 400, 70).filter(ImageFilter.GaussianBlur(0.8))
    tone = Image.blend(Image.blend(cloudy, tooth, 0.5), fibres, 0.3)
    return Image.merge(
        "RGB", [tone.point(lambda v, k=k: 255 - int((255 - v) * k)) for k in (0.10, 0.115, 0.15)]
    )


@lru_cache(maxsize=1)
def thin_ink() -> Image.Image:
    """Where the paper shows through: the block's wood grain and the baren's speckle, as a mask."""
    grain = _noise(4, 26, 420).filter(ImageFilter.GaussianBlur(0.6))
    speckle = _noise(5, 700, 700)
    return ImageChops.add(
        grain.point(lambda v: max(0, v - 120) // 5), speckle.point(lambda v: max(0, v - 196) // 2)
    )


def margin(studio: Studio) -> None:
    """The unprinted border and the frame line; hides what lies under it."""
    canvas, size = studio.canvas, studio.scene.margin
    x0, y0, x1, y1 = studio.left, studio.top, studio.right, studio.bottom
    far_x, far_y = canvas.width + 4, canvas.height + 4
    if size:
        sides = [
            rectangle(-4, -4, far_x, y0),
            rectangle(-4, y1, far_x, far_y),
            rectangle(-4, -4, x0, far_y),
            rectangle(x1, -4, far_x, far_y),
        ]
        for side in sides:
            canvas.fill(side, PIGMENTS["paper"], line=0)
        canvas.line([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], 1.0)


def title(studio: Studio, dice: Dice) -> None:
    """A cartouche with brushed characters and a red seal, in an upper corner."""
    unit, canvas = studio.unit, studio.canvas
    wide, high = unit * 0.065, unit * dice.real(0.2, 0.27)
    inset = unit * 0.03
    x = studio.right - inset - wide if dice.chance(0.5) else studio.left + inset
    y = studio.top + inset
    ground = dice.one(("paper", "red", "yellow", "paper"))
    canvas.fill(rectangle(x, y, x + wide, y + high), PIGMENTS[ground], line=0.8)
    for row in range(4):
        _character(studio, dice, x + wide / 2, y + high * (row + 0.55) / 4.1, wide * 0.32)
    seal = rectangle(
        x + wide * 0.15, y + high + unit * 0.02, x + wide * 0.85, y + high + unit * 0.02 + wide * 0.7
    )
    canvas.fill(seal, PIGMENTS["red"], line=0)
    for k in (0.32, 0.55, 0.78):
        sy = y + high + unit * 0.02 + wide * 0.7 * k
        canvas.shade(rectangle(x + wide * 0.26, sy - 0.35, x + wide * 0.74, sy + 0.35), PIGMENTS["paper"])


def _character(studio: Studio, dice: Dice, x: float, y: float, half: float) -> None:
    """Four or five strokes that look like writing and say nothing."""
    for _ in range(dice.integer(4, 5)):
        if dice.chance(0.5):
            at, tilt = dice.jitter(half), dice.jitter(half * 0.3)
            path = [(x - half, y + at + tilt), (x, y + at - 0.3), (x + half, y + at - tilt)]
        else:
            at, tilt = dice.jitter(half), dice.jitter(half * 0.5)
            path = [(x + at, y - half), (x + at + tilt / 3, y), (x + at + tilt, y + half)]
        studio.canvas.hair(spline(path, 3), 0.9, (0.7, 0.4))


def onto_paper(print_: Image.Image, dice: Dice) -> Image.Image:
    """The impression on a sheet of its own: a cut of the atlas, mirrored or not."""
    width, height = print_.size

    def cut(atlas: Image.Image) -> Image.Image:
        x, y = dice.integer(0, _ATLAS - width), dice.integer(0, _ATLAS - height)
        return atlas.crop((x, y, x + width, y + height))

    print_.paste(PIGMENTS["paper"], mask=cut(thin_ink()))
    return ImageChops.multiply(print_, cut(washi()))
