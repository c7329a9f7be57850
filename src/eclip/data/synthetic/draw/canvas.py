"""Shapes go in; a colour impression, a key block and a map of which object is visible where come out.

As in a workshop, colours and outlines are two impressions: the key block (outlines, one dark ink) is printed
over the colours a little out of register. A shape laid over others covers their colours, their outlines and
their place in the map, so the map knows, pixel for pixel, what a person can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from eclip.data.synthetic.draw.geometry import Curve, Points, brush

RGB = tuple[int, int, int]
Stops = Sequence[tuple[float, RGB]]  # (share of a shape's height, colour)
# a float32 array in C order, which Pillow reads as x, y, x, y, ...; its annotations know of sequences only
Buffer = Any
Disc = tuple[float, float, float]  # x, y, radius
OVERSAMPLING = 3
PAD = 2  # pixels around the print, so that an impression may be shifted


class Canvas:
    """A print of `width` x `height` pixels in the making; coordinates are these pixels, y downwards."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        size = ((width + 2 * PAD) * OVERSAMPLING, (height + 2 * PAD) * OVERSAMPLING)
        self.colour, self.key = Image.new("RGB", size), Image.new("L", size)
        self.seen = Image.new("L", (width, height))  # the object's number, 0 = background
        self.drawn: dict[int, int] = {}  # pixels of each object before anything covered it
        self.number = 0
        self._colour, self._key = ImageDraw.Draw(self.colour), ImageDraw.Draw(self.key)
        self._seen = ImageDraw.Draw(self.seen)

    @contextmanager
    def object(self, number: int) -> Iterator[None]:
        """All that is drawn inside belongs to object `number` (1..255)."""
        self.number = number
        yield
        self.drawn[number] = self.visible(number)
        self.number = 0

    def visible(self, number: int) -> int:
        """How many pixels of the object are to be seen now."""
        return self.seen.histogram()[number]

    def fill(self, points: Points, colour: RGB, line: float = 0.8, ink: int = 255) -> None:
        """A flat shape with an outline of `line` pixels in the key block (0: none)."""
        fine = _fine(points)
        self._colour.polygon(fine, fill=colour)
        self._cover(points, fine, line, ink)

    def wash(self, points: Points, stops: Stops, line: float = 0.8, ink: int = 255) -> None:
        """A shape filled with a vertical gradation (bokashi)."""
        fine = _fine(points)
        low, high = float(fine[:, 1].min()), float(fine[:, 1].max())
        cut = self._cut(fine, 255)
        if cut:
            shape, left, top = cut
            ramp = _ramp(stops, low, high, top, top + shape.height)
            self.colour.paste(ramp.resize(shape.size, Image.Resampling.NEAREST), (left, top), shape)
        self._cover(points, fine, line, ink)

    def backdrop(self, top: float, bottom: float, stops: Stops) -> None:
        """A gradation over the whole width; hides nothing, for it comes first."""
        first, last = ((round(y) + PAD) * OVERSAMPLING for y in (top, bottom))
        ramp = _ramp(stops, first, last, first, last)
        self.colour.paste(
            ramp.resize((self.colour.width, last - first), Image.Resampling.NEAREST), (0, first)
        )

    def shade(self, points: Points, colour: RGB) -> None:
        """A patch of colour on what is there already; outlines and objects stay as they are."""
        self._colour.polygon(_fine(points), fill=colour)

    def veil(self, points: Points, colour: RGB, strength: int, hides: bool = False) -> None:
        """A thin layer (`strength` of 255) over all; `hides` takes what is below out of sight."""
        cut = self._cut(_fine(points), strength)
        if cut:
            shape, left, top = cut
            self.colour.paste(colour, (left, top), shape)
            self.key.paste(0, (left, top), shape)
        if hides:
            self._seen.polygon(_coarse(points), fill=0)

    def stroke(
        self, path: Points, width: float, colour: RGB, taper: tuple[float, float] = (0.3, 0.1)
    ) -> None:
        """A swelling brush stroke in colour, without outline; part of the object."""
        self.fill(brush(path, width, taper), colour, line=0)

    def line(self, points: Points, width: float = 0.7, ink: int = 255) -> None:
        """An even line of the key block."""
        self._key.line(_fine(points), fill=ink, width=max(1, round(width * OVERSAMPLING)))

    def hair(self, path: Points, width: float, taper: tuple[float, float] = (0.4, 0.1)) -> None:
        """A swelling stroke of the key block."""
        self._key.polygon(_fine(brush(path, width, taper)), fill=255)

    def discs(self, discs: Sequence[Disc], colour: RGB, line: float = 0.8, ink: int = 255) -> None:
        """Discs that melt into one shape with one outline around all of them; part of the object."""
        if line:
            for x, y, r in discs:
                self._key.ellipse(_bounds(x, y, r + line), fill=ink)
                self._colour.ellipse(_bounds(x, y, r + line), fill=colour)
        for x, y, r in discs:
            self._colour.ellipse(_bounds(x, y, r), fill=colour)
            self._key.ellipse(_bounds(x, y, r), fill=0)
            self._seen.ellipse((x - r - 0.5, y - r - 0.5, x + r - 0.5, y + r - 0.5), fill=self.number)

    def dots(self, discs: Sequence[Disc], colour: RGB) -> None:
        """Discs of colour on what is there already."""
        for x, y, r in discs:
            self._colour.ellipse(_bounds(x, y, r), fill=colour)

    def impression(self, shift: tuple[int, int], ink: RGB) -> Image.Image:
        """Both blocks printed on each other, the colours `shift` fine pixels out of register."""
        pad, width, height = PAD * OVERSAMPLING, self.width * OVERSAMPLING, self.height * OVERSAMPLING
        dx, dy = shift
        colours = self.colour.reduce(OVERSAMPLING, (pad + dx, pad + dy, pad + dx + width, pad + dy + height))
        lines = self.key.reduce(OVERSAMPLING, (pad, pad, pad + width, pad + height))
        colours.paste(ink, mask=lines)
        return colours

    def _cover(self, points: Points, fine: Buffer, line: float, ink: int) -> None:
        """Take outlines and objects below the shape out of sight, then outline it."""
        self._key.polygon(fine, fill=0)
        self._seen.polygon(_coarse(points), fill=self.number)
        if line:
            ring = np.concatenate([fine, fine[:1]])
            self._key.line(_buffer(ring), fill=ink, width=max(1, round(line * OVERSAMPLING)))

    def _cut(self, fine: Buffer, strength: int) -> tuple[Image.Image, int, int] | None:
        """The shape as a mask and where it lies on the canvas; None where it lies outside."""
        left, top = (int(v) for v in np.maximum(np.floor(fine.min(0)), 0))
        right, bottom = (int(v) for v in np.minimum(np.ceil(fine.max(0)) + 1, self.colour.size))
        if right <= left or bottom <= top:
            return None
        shape = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(shape).polygon(_buffer(fine - (left, top)), fill=strength)
        return shape, left, top


def _buffer(points: Points) -> Buffer:
    return np.array(points, np.float32, order="C")


def _fine(points: Points) -> Buffer:
    """On the oversampled blocks."""
    return _buffer((np.asarray(points, float) + PAD) * OVERSAMPLING)


def _coarse(points: Points) -> Buffer:
    """On the map of objects, whose pixel (0, 0) has its centre at (0.5, 0.5).

    Pillow fills the pixels that a polygon's edge passes through: about what the outline adds to the shape.
    """
    return _buffer(np.asarray(points, float) - 0.5)


def _bounds(x: float, y: float, r: float) -> tuple[float, float, float, float]:
    x, y, r = (x + PAD) * OVERSAMPLING, (y + PAD) * OVERSAMPLING, r * OVERSAMPLING
    return x - r, y - r, x + r, y + r


def _ramp(stops: Stops, low: float, high: float, top: int, bottom: int) -> Image.Image:
    rows = (np.arange(top, bottom) - low) / max(high - low, 1.0)
    where = [stop[0] for stop in stops]
    bands = [np.interp(rows, where, [stop[1][band] for stop in stops]) for band in range(3)]
    return Image.fromarray(np.stack(bands, 1).astype(np.uint8)[:, None])


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Curve:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
