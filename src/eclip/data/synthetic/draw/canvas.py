"""Shapes go in; a colour impression, a key block and a map of which object is visible where come out.

As in a workshop, colours and outlines are two impressions: the key block (outlines, one dark ink) is printed over the
colours a little out of register. A shape laid over others covers their colours, their outlines and their place in the
map, so that the map knows, pixel for pixel, what a person can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eclip.data.synthetic.draw.geometry import Curve, Points, brush

RGB = tuple[int, int, int]
OVERSAMPLING = 3
PAD = 2  # pixels around the print, so that an impression may be shifted


class Canvas:
    """A print of `width` x `height` pixels in the making; all coordinates are in these pixels, y downwards."""

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
        fine, coarse = self._both(points)
        self._colour.polygon(fine, fill=colour)
        self._key.polygon(fine, fill=0)
        self._seen.polygon(coarse, fill=self.number)
        if line:
            self._key.line(
                np.concatenate([fine, fine[:1]]), fill=ink, width=max(1, round(line * OVERSAMPLING))
            )

    def shade(self, points: Points, colour: RGB) -> None:
        """A patch of colour on what is there already; outlines and objects stay as they are."""
        self._colour.polygon(self._both(points)[0], fill=colour)

    def line(self, points: Points, width: float = 0.7, ink: int = 255) -> None:
        """An even line of the key block."""
        self._key.line(self._both(points)[0], fill=ink, width=max(1, round(width * OVERSAMPLING)))

    def stroke(
        self, path: Points, width: float, colour: RGB, taper: tuple[float, float] = (0.3, 0.1)
    ) -> None:
        """A swelling brush stroke in colour, without outline; part of the object."""
        self.fill(brush(path, width, taper), colour, line=0)

    def hair(self, path: Points, width: float, taper: tuple[float, float] = (0.4, 0.1)) -> None:
        """A swelling stroke of the key block."""
        self._key.polygon(self._both(brush(path, width, taper))[0], fill=255)

    def discs(
        self, discs: Sequence[tuple[float, float, float]], colour: RGB, line: float = 0.8, ink: int = 255
    ) -> None:
        """Discs (x, y, radius) that melt into one shape with one outline around all of them."""
        fine = [self._disc(x, y, r) for x, y, r in discs]
        if line:
            swell = line * OVERSAMPLING
            for x0, y0, x1, y1 in fine:
                self._key.ellipse((x0 - swell, y0 - swell, x1 + swell, y1 + swell), fill=ink)
                self._colour.ellipse((x0 - swell, y0 - swell, x1 + swell, y1 + swell), fill=colour)
        for box in fine:
            self._colour.ellipse(box, fill=colour)
            self._key.ellipse(box, fill=0)
        for x, y, r in discs:
            self._seen.ellipse((x - r - 0.5, y - r - 0.5, x + r - 0.5, y + r - 0.5), fill=self.number)

    def dots(self, discs: Sequence[tuple[float, float, float]], colour: RGB) -> None:
        """Discs of colour on what is there already."""
        for x, y, r in discs:
            self._colour.ellipse(self._disc(x, y, r), fill=colour)

    def wash(
        self, points: Points, stops: Sequence[tuple[float, RGB]], line: float = 0.8, ink: int = 255
    ) -> None:
        """A shape filled with a vertical gradation (bokashi); `stops` are (share of the shape's height, colour)."""
        fine, coarse = self._both(points)
        left, top = np.maximum(np.floor(fine.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(fine.max(0)) + 1, self.colour.size).astype(int)
        if right <= left or bottom <= top:
            return
        shape = Image.new("L", (int(right - left), int(bottom - top)))
        ImageDraw.Draw(shape).polygon(fine - np.array((left, top), np.float32), fill=255)
        ramp = _ramp(stops, float(fine[:, 1].min()), float(fine[:, 1].max()), int(top), int(bottom))
        self.colour.paste(ramp.resize(shape.size, Image.Resampling.NEAREST), (int(left), int(top)), shape)
        self._key.polygon(fine, fill=0)
        self._seen.polygon(coarse, fill=self.number)
        if line:
            self._key.line(
                np.concatenate([fine, fine[:1]]), fill=ink, width=max(1, round(line * OVERSAMPLING))
            )

    def veil(self, points: Points, colour: RGB, strength: int, hides: bool = False) -> None:
        """A thin layer of colour over colours and outlines (mist, glow); `hides` takes what is below out of sight."""
        fine, coarse = self._both(points)
        left, top = np.maximum(np.floor(fine.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(fine.max(0)) + 1, self.colour.size).astype(int)
        if right <= left or bottom <= top:
            return
        shape = Image.new("L", (int(right - left), int(bottom - top)))
        ImageDraw.Draw(shape).polygon(fine - np.array((left, top), np.float32), fill=strength)
        self.colour.paste(colour, (int(left), int(top)), shape)
        self.key.paste(0, (int(left), int(top)), shape)
        if hides:
            self._seen.polygon(coarse, fill=0)

    def impression(self, shift: tuple[int, int], ink: RGB) -> Image.Image:
        """Both blocks printed on each other, the colours `shift` fine pixels out of register."""
        pad, width, height = PAD * OVERSAMPLING, self.width * OVERSAMPLING, self.height * OVERSAMPLING
        dx, dy = shift
        colours = self.colour.reduce(OVERSAMPLING, (pad + dx, pad + dy, pad + dx + width, pad + dy + height))
        lines = self.key.reduce(OVERSAMPLING, (pad, pad, pad + width, pad + height))
        colours.paste(ink, mask=lines)
        return colours

    def _both(self, points: Points) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        p = np.asarray(points, float)  # Pillow reads the buffer as x, y, x, y, ...: it must lie in C order
        return np.array((p + PAD) * OVERSAMPLING, np.float32, order="C"), np.array(
            p - 0.5, np.float32, order="C"
        )

    def _disc(self, x: float, y: float, r: float) -> tuple[float, float, float, float]:
        x, y, r = (x + PAD) * OVERSAMPLING, (y + PAD) * OVERSAMPLING, r * OVERSAMPLING
        return x - r, y - r, x + r, y + r


def _ramp(stops: Sequence[tuple[float, RGB]], low: float, high: float, top: int, bottom: int) -> Image.Image:
    rows = (np.arange(top, bottom) - low) / max(high - low, 1.0)
    where = [stop[0] for stop in stops]
    bands = [np.interp(rows, where, [stop[1][band] for stop in stops]) for band in range(3)]
    return Image.fromarray(np.stack(bands, 1).astype(np.uint8)[:, None])


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Curve:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
