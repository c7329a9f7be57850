"""Control points go in; dense curves, discs and brush strokes come out as (N, 2) float arrays, y downwards.

Only +, -, *, / and square roots are used (no sine, no cosine): these are rounded alike on every machine, so
the boxes measured on what is drawn are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
Points = Curve | Sequence[tuple[float, float]]


@lru_cache(maxsize=8)
def directions(halvings: int = 4) -> Curve:
    """Unit vectors around the circle, 4 * 2**halvings of them, by repeated bisection of the right angle."""
    arc = [(1.0, 0.0), (0.0, 1.0)]
    for _ in range(halvings):
        middle = [(a[0] + b[0], a[1] + b[1]) for a, b in pairwise(arc)]
        unit = [(x / (x * x + y * y) ** 0.5, y / (x * x + y * y) ** 0.5) for x, y in middle]
        arc = [point for pair in zip(arc, [*unit, arc[-1]], strict=True) for point in pair][:-1]
    quarter = np.array(arc[:-1])
    x, y = quarter[:, 0], quarter[:, 1]
    turns = [(x, y), (-y, x), (-x, -y), (y, -x)]
    return np.concatenate([np.stack(turn, 1) for turn in turns])


def direction(turn: float) -> tuple[float, float]:
    """The unit vector at `turn` full turns from the x axis (to 1/1024 of a turn)."""
    table = directions(8)
    x, y = table[int(turn * len(table)) % len(table)]
    return float(x), float(y)


def ellipse(x: float, y: float, rx: float, ry: float, halvings: int = 3) -> Curve:
    return directions(halvings) * (rx, ry) + (x, y)


@lru_cache(maxsize=32)
def _basis(steps: int) -> tuple[Curve, Curve, Curve, Curve]:
    """The Catmull-Rom weights of four neighbouring points at `steps` places, each (1, steps, 1)."""
    t = (np.arange(steps) / steps)[None, :, None]
    t2, t3 = t * t, t * t * t
    return (-t + 2 * t2 - t3) / 2, (2 - 5 * t2 + 3 * t3) / 2, (t + 4 * t2 - 3 * t3) / 2, (t3 - t2) / 2


def spline(points: Points, steps: int = 6, closed: bool = False) -> Curve:
    """A Catmull-Rom curve through `points`, `steps` points a piece."""
    p = np.asarray(points, float)
    ring = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    w0, w1, w2, w3 = _basis(steps)
    k = ring[:, None]
    curve = (k[:-3] * w0 + k[1:-2] * w1 + k[2:-1] * w2 + k[3:] * w3).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def place(points: Points, x: float, y: float, size: float, flip: bool = False, tilt: float = 0.0) -> Curve:
    """A unit drawing set down at (x, y), `size` large, mirrored if `flip`, turned by `tilt` full turns."""
    p = np.asarray(points, float)
    if tilt:
        c, s = direction(tilt)
        p = np.stack([p[:, 0] * c - p[:, 1] * s, p[:, 0] * s + p[:, 1] * c], 1)
    return p * (-size if flip else size, size) + (x, y)


def shifted(points: Points, dx: float, dy: float) -> Curve:
    offset = np.array((dx, dy))
    return np.asarray(points, float) + offset


@lru_cache(maxsize=512)
def _pressure(count: int, start: float, end: float) -> NDArray[np.float64]:
    """Half the relative width of a stroke at `count` points: 1 in the middle, less at its ends."""
    t = np.arange(count) / max(count - 1, 1)
    ends = start * (1 - t) + end * t
    return (ends + (1 - ends) * (4 * t * (1 - t))) / 2


def brush(path: Points, width: float, taper: tuple[float, float] = (0.3, 0.1), steps: int = 0) -> Curve:
    """The outline of a brush stroke along `path`: `width` in its middle, `taper` of it at start and end."""
    p = spline(path, steps) if steps else np.asarray(path, float)
    along = np.concatenate([p[1:2] - p[:1], p[2:] - p[:-2], p[-1:] - p[-2:-1]])
    x, y = along[:, 0], along[:, 1]
    half = width * _pressure(len(p), *taper) / (np.sqrt(x * x + y * y) + 1e-9)
    across = along[:, ::-1] * half[:, None]
    across[:, 0] = -across[:, 0]
    return np.concatenate([p + across, (p - across)[::-1]])
