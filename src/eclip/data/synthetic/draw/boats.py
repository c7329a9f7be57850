"""A waterline and a length go in; rowing boats with their crews and boats under sail are drawn."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.geometry import brush, ellipse, place, shifted, spline
from eclip.data.synthetic.draw.studio import Studio, mix

# hull in lengths of the boat, bow to the right, waterline at y = 0
_SHEER = spline([(-0.5, -0.13), (-0.3, -0.075), (0, -0.06), (0.28, -0.09), (0.5, -0.19)], 5)
_KEEL = spline([(0.5, -0.19), (0.4, -0.05), (0.24, 0.02), (-0.2, 0.025), (-0.42, -0.02), (-0.5, -0.13)], 5)
_HULL = np.concatenate([_SHEER, _KEEL])


def boat(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str, sail: bool) -> None:
    """A boat `size` pixels long; `colour` is its sail's, or its hull's if it has none."""
    if sail:
        _sail(studio, x, y, size, flip, colour)
    else:
        _crew(studio, x, y, size, flip)
    wood = studio["ochre"] if sail else studio[colour]
    hull = place(_HULL, x, y, size, flip)
    studio.canvas.wash(
        hull, [(0, mix(wood, studio["straw"], 0.3)), (1, mix(wood, studio["bark"], 0.6))], line=0.8
    )
    studio.canvas.line(place(shifted(_SHEER, 0, 0.035), x, y, size, flip)[3:-3], 0.5, 190)
    wake = [(-0.62, 0.045), (-0.2, 0.03), (0.25, 0.03), (0.6, 0.05)]
    studio.canvas.shade(place(brush(wake, 0.025, (0.2, 0.1), steps=4), x, y, size, flip), studio["white"])


def _sail(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str) -> None:
    canvas = studio.canvas
    canvas.fill(
        place(brush([(0.02, -0.03), (0.02, -0.98)], 0.022, (1, 0.7)), x, y, size, flip), studio["brown"], 0.5
    )
    left = spline([(-0.24, -0.9), (-0.28, -0.6), (-0.26, -0.2)], 4)
    right = spline([(0.24, -0.16), (0.34, -0.5), (0.27, -0.92)], 4)
    cloth = studio.bright(colour)
    shape = place(np.concatenate([left, right]), x, y, size, flip)
    canvas.wash(shape, [(0, cloth), (0.6, cloth), (1, mix(cloth, studio["grey"], 0.35))], line=0.8)
    for share in (0.25, 0.5, 0.75):
        seam = left * (1 - share) + right[::-1] * share
        canvas.line(place(seam, x, y, size, flip), 0.5, 170)
    yard = place(brush([(-0.27, -0.91), (0.3, -0.93)], 0.024, (1, 1)), x, y, size, flip)
    canvas.fill(yard, studio["brown"], line=0.4)


def _crew(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """Two or three rowers in straw hats and an oar."""
    dice, canvas, side = studio.dice, studio.canvas, -1 if flip else 1
    oar = [(-0.3, -0.3), (-0.62, 0.05)]
    canvas.fill(place(brush(oar, 0.018, (1, 1)), x, y, size, flip), studio["brown"], line=0.4)
    for at in (-0.28, -0.02, 0.22)[: dice.integer(2, 3)]:
        cx, cy = x + side * at * size, y - 0.07 * size
        coat = studio[dice.one(("blue", "indigo", "straw", "white", "red"))]
        body = [(-0.07, 0.03), (-0.06, -0.1), (-0.02, -0.15), (0.03, -0.15), (0.07, -0.08), (0.08, 0.03)]
        canvas.fill(place(spline(body, 3, closed=True), cx, cy, size, flip), coat, line=0.6)
        canvas.fill(
            ellipse(cx + side * 0.01 * size, cy - 0.175 * size, 0.032 * size, 0.034 * size),
            studio["skin"],
            0.5,
        )
        hat = [(-0.075, -0.18), (0.005, -0.25), (0.09, -0.18)]
        canvas.fill(place(hat, cx, cy, size, flip), studio["straw"], line=0.6)
