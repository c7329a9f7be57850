"""A place and a size go in; cranes on the wing, cranes wading, and skeins of geese are drawn."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.geometry import Curve, brush, ellipse, place, spline
from eclip.data.synthetic.draw.studio import Studio, mix

# a crane flying to the right, in wing spans
_BODY = spline(
    [(-0.2, 0.03), (-0.05, -0.03), (0.12, -0.03), (0.24, 0.0), (0.1, 0.07), (-0.08, 0.08)], 4, closed=True
)
_NECK = brush([(0.2, 0.01), (0.33, -0.02), (0.47, -0.01)], 0.045, (1.4, 0.7), steps=4)
_WINGS = {
    "up": (
        [
            (0.14, -0.02),
            (0.1, -0.2),
            (-0.02, -0.44),
            (-0.12, -0.56),
            (-0.2, -0.42),
            (-0.18, -0.2),
            (-0.08, 0.02),
        ],
        [(0.16, -0.02), (0.22, -0.22), (0.26, -0.44), (0.3, -0.52), (0.36, -0.36), (0.3, -0.16), (0.2, 0.0)],
    ),
    "down": (
        [
            (0.14, 0.0),
            (0.06, -0.16),
            (-0.14, -0.26),
            (-0.4, -0.2),
            (-0.52, -0.08),
            (-0.34, -0.02),
            (-0.1, 0.06),
        ],
        [(0.14, 0.02), (0.16, 0.2), (0.08, 0.36), (-0.04, 0.46), (-0.14, 0.36), (-0.1, 0.18), (-0.04, 0.06)],
    ),
}


def flying_crane(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A crane `size` pixels from wing tip to legs."""
    dice, canvas, tilt = studio.dice, studio.canvas, studio.dice.jitter(0.05)
    white, black = studio.bright("white"), studio["ink"]

    def put(shape: Curve) -> Curve:
        return place(shape, x, y, size, flip, tilt)

    near, far = _WINGS[dice.one(("up", "down"))]
    for wing, shade in ((far, mix(white, studio["grey"], 0.25)), (near, white)):
        outline = spline(wing, 4, closed=True)
        if wing is near:
            for leg in (0.03, 0.055):
                canvas.fill(put(brush([(-0.15, leg), (-0.48, leg + 0.04)], 0.018, (1, 0.8))), black, line=0)
            canvas.fill(put(_BODY), white, line=0.7)
        canvas.fill(put(outline), shade, line=0.7)
        tip = spline(
            [
                wing[2],
                wing[3],
                wing[4],
                *(((wing[2][0] + wing[4][0]) / 2 * 0.9, (wing[2][1] + wing[4][1]) / 2 * 0.9),),
            ],
            3,
            True,
        )
        canvas.shade(put(tip), black)
        for k in (4, 5):
            canvas.line(
                put(np.array([wing[k], ((wing[0][0] + wing[k][0]) / 2, (wing[0][1] + wing[k][1]) / 2)])),
                0.5,
                150,
            )
    canvas.fill(put(_NECK), white, line=0.6)
    canvas.shade(put(brush([(0.3, 0.0), (0.43, -0.004)], 0.03, (0.5, 0.8))), black)
    canvas.fill(put(brush([(0.46, -0.01), (0.58, 0.005)], 0.022, (1, 0.2))), studio["ochre"], line=0.3)
    canvas.shade(put(ellipse(0.455, -0.03, 0.026, 0.014)), studio.bright("red"))


_STANDING = spline(
    [(-0.26, -0.4), (-0.12, -0.58), (0.06, -0.62), (0.17, -0.54), (0.12, -0.42), (-0.06, -0.36)], 4, True
)
_THROAT = spline([(0.12, -0.54), (0.22, -0.66), (0.16, -0.8), (0.2, -0.93), (0.28, -0.95)], 5)


def standing_crane(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A crane `size` pixels high, its feet at y."""
    canvas, white, black = studio.canvas, studio.bright("white"), studio["ink"]

    def put(shape: Curve) -> Curve:
        return place(shape, x, y, size, flip)

    canvas.fill(put(brush([(0.0, -0.4), (0.02, -0.2), (-0.01, 0)], 0.022, (1, 0.9))), black, line=0)
    canvas.fill(put(brush([(0.06, -0.4), (0.12, -0.22), (0.02, -0.16)], 0.022, (1, 0.9))), black, line=0)
    canvas.fill(put(_STANDING), white, line=0.7)
    tail = spline([(-0.1, -0.5), (-0.3, -0.42), (-0.38, -0.26), (-0.24, -0.32), (-0.06, -0.4)], 4, True)
    canvas.fill(put(tail), black, line=0.6)
    canvas.line(put(spline([(-0.02, -0.44), (0.06, -0.5), (0.12, -0.5)], 3)), 0.5, 150)
    canvas.fill(put(brush(_THROAT, 0.06, (1.4, 0.9))), white, line=0.6)
    canvas.shade(put(brush(_THROAT[8:18], 0.04, (0.4, 0.6))), black)
    canvas.fill(put(brush([(0.27, -0.95), (0.43, -0.9)], 0.035, (1, 0.2))), studio["ochre"], line=0.4)
    canvas.shade(put(ellipse(0.255, -0.985, 0.035, 0.022)), studio.bright("red"))


_GOOSE = [
    (-0.5, -0.16),
    (-0.2, -0.2),
    (0.0, 0.0),
    (0.22, -0.22),
    (0.52, -0.2),
    (0.2, -0.08),
    (0.02, 0.1),
    (-0.16, -0.07),
]


def goose(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A distant goose: two bent wings."""
    colour = studio["ink"] if studio.scene.time != "night" else studio.bright("white")
    studio.canvas.fill(
        place(spline(_GOOSE, 3, closed=True), x, y, size, flip, studio.dice.jitter(0.03)), colour, line=0
    )
