"""A standing point and a height go in; women in kimono, travellers and parasols are drawn."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.canvas import RGB
from eclip.data.synthetic.draw.geometry import Curve, Points, brush, directions, ellipse, place, spline
from eclip.data.synthetic.draw.studio import PIGMENTS, Studio, mix

_ROBE = [
    (-0.05, -0.81),
    (-0.13, -0.76),
    (-0.12, -0.6),
    (-0.135, -0.4),
    (-0.16, -0.2),
    (-0.2, -0.07),
    (-0.29, 0.0),
]
_ROBE += [(-0.1, 0.01), (0.16, 0.0), (0.14, -0.2), (0.135, -0.4), (0.12, -0.6), (0.13, -0.76), (0.05, -0.81)]
_ROBE_CURVE = spline(_ROBE, 4, closed=True)


def _sleeve(shoulder: Points, cuff: Points) -> Curve:
    """A furisode sleeve: the arm's curve, then the square corners of the hanging cuff."""
    return np.concatenate([spline(shoulder, 4), np.asarray(cuff, float)])


_SLEEVE = _sleeve(
    [(-0.06, -0.79), (-0.15, -0.74), (-0.21, -0.6), (-0.25, -0.5)],
    [(-0.31, -0.27), (-0.17, -0.24), (-0.1, -0.5)],
)
_RAISED = _sleeve(
    [(0.06, -0.79), (0.15, -0.74), (0.22, -0.66), (0.3, -0.63)],
    [(0.33, -0.55), (0.3, -0.36), (0.19, -0.34), (0.1, -0.56)],
)
_HANDS = [(-0.245, -0.47, 0.024), (0.325, -0.6, 0.024)]
_HEM = spline(
    [(-0.27, -0.01), (-0.17, -0.1), (0.0, -0.055), (0.145, -0.07), (0.155, 0.0), (-0.1, 0.005)], 3, True
)


def woman(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str, sash: str) -> None:
    """A woman in a kimono of `colour` with an obi of `sash`, `size` pixels high."""
    canvas, robe, obi = studio.canvas, studio[colour], studio[sash]

    def put(shape: Curve) -> Curve:
        return place(shape, x, y, size, flip)

    canvas.wash(put(_ROBE_CURVE), [(0, robe), (0.55, robe), (1, mix(robe, studio["ink"], 0.3))], line=0.9)
    canvas.shade(put(_HEM), mix(obi, studio["white"], 0.2))
    canvas.line(put(_HEM), 0.6)
    _pattern(studio, put, robe)
    for fold in (
        [(0.02, -0.44), (-0.01, -0.2), (-0.06, -0.03)],
        [(0.08, -0.42), (0.09, -0.2), (0.05, -0.02)],
    ):
        canvas.hair(put(spline(fold, 4)), 0.9)
    canvas.fill(
        put(np.array([(-0.125, -0.63), (0.125, -0.63), (0.13, -0.47), (-0.13, -0.47)])), obi, line=0.8
    )
    canvas.line(put(np.array([(-0.125, -0.55), (0.125, -0.55)])), 0.5, 180)
    for hx, hy, hr in _HANDS:
        canvas.fill(put(ellipse(hx, hy, hr, hr, 2)), studio["skin"], line=0.5)
    canvas.fill(put(_SLEEVE), mix(robe, studio["white"], 0.06), line=0.9)
    canvas.fill(put(_RAISED), mix(robe, studio["white"], 0.06), line=0.9)
    canvas.fill(put(np.array([(-0.06, -0.8), (0.0, -0.64), (0.06, -0.8)])), studio["white"], line=0.6)
    _head(studio, put)


def _pattern(studio: Studio, put: object, robe: RGB) -> None:
    """Dots, checks or waves on the skirt."""
    dice, light = studio.dice, mix(robe, PIGMENTS["white"], 0.55)
    assert callable(put)
    style = dice.integer(0, 2)
    for row in range(4):
        for column in range(3):
            px, py = -0.1 + column * 0.085 + (row % 2) * 0.03, -0.4 + row * 0.085
            mark = (
                ellipse(px, py, 0.018, 0.014, 2)
                if style
                else np.array([(px - 0.02, py - 0.02), (px + 0.02, py), (px - 0.02, py + 0.02)])
            )
            studio.canvas.shade(put(mark), light)


def _head(studio: Studio, put: object) -> None:
    assert callable(put)
    canvas, hair = studio.canvas, studio["ink"]
    canvas.fill(put(ellipse(-0.005, -0.955, 0.055, 0.045)), hair, line=0.4)
    canvas.fill(put(ellipse(-0.02, -0.9, 0.085, 0.062)), hair, line=0.5)
    canvas.fill(
        put(np.array([(-0.02, -0.85), (0.035, -0.85), (0.04, -0.78), (-0.025, -0.78)])),
        studio["skin"],
        line=0.4,
    )
    face = spline(
        [(-0.02, -0.92), (0.045, -0.925), (0.062, -0.88), (0.045, -0.825), (0.01, -0.81), (-0.02, -0.85)],
        4,
        True,
    )
    canvas.fill(put(face), studio["skin"], line=0.6)
    canvas.fill(
        put(spline([(-0.03, -0.9), (0.0, -0.94), (0.06, -0.915), (0.01, -0.9), (-0.012, -0.86)], 3, True)),
        hair,
        line=0,
    )
    canvas.line(put(np.array([(0.025, -0.882), (0.048, -0.884)])), 0.5)
    canvas.shade(put(ellipse(0.04, -0.845, 0.009, 0.007, 2)), PIGMENTS["red"])
    pin = brush([(-0.1, -0.97), (0.06, -0.93)], 0.014, (1, 1))
    canvas.fill(put(pin), studio["yellow"], line=0.3)


def traveller(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str) -> None:
    """A man in a short coat and a straw hat, with a staff."""
    canvas, coat = studio.canvas, studio[colour]

    def put(shape: Curve) -> Curve:
        return place(shape, x, y, size, flip)

    canvas.fill(put(brush([(0.24, -0.8), (0.28, 0.0)], 0.022, (1, 1))), studio["brown"], line=0.4)
    for path in ([(-0.05, -0.4), (-0.1, -0.2), (-0.2, 0.0)], [(0.06, -0.4), (0.1, -0.2), (0.1, 0.0)]):
        canvas.fill(put(brush(path, 0.1, (1.1, 0.5), steps=3)), studio["skin"], line=0.7)
    body = [
        (-0.08, -0.76),
        (-0.18, -0.66),
        (-0.2, -0.4),
        (-0.2, -0.3),
        (0.02, -0.28),
        (0.18, -0.32),
        (0.16, -0.6),
        (0.08, -0.76),
    ]
    canvas.fill(put(spline(body, 4, closed=True)), coat, line=0.9)
    canvas.fill(
        put(brush([(0.06, -0.68), (0.18, -0.56), (0.26, -0.58)], 0.11, (1.2, 0.6), steps=3)),
        mix(coat, studio["white"], 0.08),
        0.7,
    )
    canvas.fill(
        put(np.array([(-0.19, -0.5), (0.17, -0.5), (0.175, -0.44), (-0.195, -0.44)])), studio["ink"], line=0.4
    )
    canvas.fill(put(ellipse(0.02, -0.83, 0.065, 0.07)), studio["skin"], line=0.6)
    hat = spline(
        [(-0.22, -0.84), (-0.1, -0.95), (0.02, -1.0), (0.14, -0.95), (0.26, -0.84), (0.02, -0.87)], 3, True
    )
    canvas.fill(put(hat), studio["straw"], line=0.8)
    for rib in (-0.12, 0.02, 0.16):
        canvas.line(put(np.array([(0.02, -0.99), (rib, -0.86)])), 0.5, 170)


def parasol(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str) -> None:
    """An open paper parasol `size` pixels wide, held at (x, y) below its rim."""
    canvas, paper = studio.canvas, studio.bright(colour)
    lean = -0.03 if flip else 0.03
    pole = brush([(0.0, 0.5), (0.0, -0.5)], 0.028, (1, 1))
    canvas.fill(place(pole, x, y, size, flip, lean), studio["brown"], line=0.4)
    arc = directions(3)[16:] * (0.5, 0.36)
    rim = [(0.5 - k / 6, 0.035 if k % 2 else 0.0) for k in range(7)]
    dome = np.concatenate([arc, [(0.5, 0.0)], spline(rim, 3)])
    canvas.fill(place(dome, x, y, size, flip, lean), paper, line=0.9)
    band = np.concatenate([directions(3)[16:] * (0.36, 0.27), (directions(3)[16:] * (0.27, 0.2))[::-1]])
    canvas.shade(place(band, x, y, size, flip, lean), mix(paper, PIGMENTS["white"], 0.75))
    for rib in range(1, 6):
        tip = (0.5 - rib / 6, 0.02)
        bend = (tip[0] * 0.75, -0.22)
        canvas.line(place(spline([(0, -0.36), bend, tip], 3), x, y, size, flip, lean), 0.5, 190)
    canvas.fill(place(ellipse(0, -0.365, 0.03, 0.03, 2), x, y, size, flip, lean), studio["ink"], line=0)
