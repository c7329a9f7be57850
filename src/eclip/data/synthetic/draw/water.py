"""A stretch of sea goes in; its gradation, ripples, swells and the great claw-tipped wave are drawn."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.canvas import RGB, rectangle
from eclip.data.synthetic.draw.geometry import Curve, brush, place, spline
from eclip.data.synthetic.draw.studio import Studio, mix

# the great wave, breaking to the right: back and crest from the left foot to the tip, then the hollow face
BACK = spline(
    [
        (-1.35, 0.25),
        (-1.0, -0.06),
        (-0.72, -0.36),
        (-0.46, -0.68),
        (-0.14, -0.92),
        (0.2, -1.0),
        (0.48, -0.93),
        (0.66, -0.74),
        (0.68, -0.58),
    ],
    6,
)
FACE = spline(
    [
        (0.68, -0.58),
        (0.52, -0.68),
        (0.32, -0.68),
        (0.14, -0.54),
        (0.06, -0.34),
        (0.14, -0.14),
        (0.42, 0.02),
        (0.9, 0.12),
        (1.3, 0.25),
    ],
    6,
)


def sea(studio: Studio, y: float, calm: bool) -> None:
    """Water from y to the lower edge: a pale far edge, deep blue (or the sky's colour) near."""
    near, far = _waters(studio)
    box = rectangle(studio.left, y, studio.right, studio.bottom + 2)
    band = studio.dice.chance(0.6)
    stops = [(0, near if band else far), (0.14, far), (0.55, mix(far, near, 0.5)), (1, near)]
    studio.canvas.wash(box, stops, line=0)
    studio.canvas.line([(studio.left, y), (studio.right, y)], 0.6, 150)
    (ripples if calm else chop)(studio, y)


def _waters(studio: Studio) -> tuple[RGB, RGB]:
    near = studio[studio.dice.one(("prussian", "blue", "indigo"))]
    far = studio["pale"]
    if studio.scene.time == "dusk":
        far = mix(studio["orange"], studio["pale"], 0.45)
    if studio.scene.time == "dawn":
        far = mix(studio["pink"], studio["pale"], 0.5)
    return near, far


def ripples(studio: Studio, y: float) -> None:
    """Short level strokes, closer together in the distance."""
    dice, pale = studio.dice, mix(studio["white"], studio["azure"], 0.25)
    for _ in range(dice.integer(26, 44)):
        depth = dice.real() * dice.real()
        at = y + 4 + depth * (studio.bottom - y)
        half = studio.unit * (0.02 + 0.07 * depth) * dice.real(0.6, 1.3)
        x = dice.real(studio.left, studio.right)
        path = spline([(x - half, at), (x - half / 3, at - 0.8), (x + half / 3, at + 0.8), (x + half, at)], 3)
        if dice.chance(0.45):
            studio.canvas.shade(brush(path, 0.9 + depth), pale)
        else:
            studio.canvas.line(path, 0.5, 120)


def chop(studio: Studio, y: float) -> None:
    """Rows of short-crested waves, larger towards the viewer."""
    dice, near = studio.dice, studio["prussian"]
    rows = 4
    for row in range(rows):
        depth = (row + 0.4) / rows
        at, step = y + depth * (studio.bottom - y), studio.unit * (0.07 + 0.13 * depth)
        x = studio.left - step * dice.real(0.2, 1)
        crest: list[tuple[float, float]] = []
        while x < studio.right + step:
            high = step * dice.real(0.22, 0.42)
            crest += [(x, at), (x + step * 0.5, at - high), (x + step * 0.72, at - high * 0.6)]
            x += step * dice.real(0.9, 1.2)
        curve = spline(crest, 4)
        low = at + step
        body = np.concatenate([curve, [(studio.right + 8, low), (studio.left - 8, low)]])
        studio.canvas.wash(body, [(0, mix(near, studio["azure"], 0.55)), (1, near)], line=0.6)
        studio.canvas.shade(brush(curve, 1.2 + depth * 1.4, (1, 1)), studio.bright("white"))


def swell(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A great wave that breaks over what is beside it; `size` is its height."""
    dice, canvas = studio.dice, studio.canvas
    deep = studio["prussian"]
    outline = np.concatenate([BACK, FACE, [(1.3, 0.6), (-1.35, 0.6)]])
    canvas.wash(
        place(outline, x, y, size, flip), [(0, studio["blue"]), (0.6, deep), (1, studio["indigo"])], line=0.9
    )
    for share in (0.16, 0.34, 0.52, 0.7, 0.86):
        _stripe(studio, x, y, size, flip, share)
    for share in (0.25, 0.43, 0.61):
        _stripe(studio, x, y, size, flip, share, thin=True)
    _foam(studio, x, y, size, flip)
    spray = [
        (
            x + (1 - 2 * flip) * size * dice.real(0.2, 1.15),
            y - size * dice.real(0.55, 1.18),
            size * dice.real(0.006, 0.016),
        )
        for _ in range(dice.integer(18, 30))
    ]
    canvas.dots(spray, studio.bright("white"))


def _stripe(
    studio: Studio, x: float, y: float, size: float, flip: bool, share: float, thin: bool = False
) -> None:
    """A band of pale water that follows the body of the wave between back and face."""
    back, face = BACK[2:46], FACE[::-1][2:46]
    path = back * (1 - share) + face * share
    path = path[: int(len(path) * (0.93 - 0.2 * abs(share - 0.4)))]
    pale = studio["azure"] if thin else studio["pale"]
    width = 0.018 if thin else 0.05
    studio.canvas.shade(place(brush(path, width, (0.5, 0.1)), x, y, size, flip), pale)


def _foam(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """White claws along the crest and under its lip."""
    dice, white = studio.dice, studio.bright("white")
    crest = np.concatenate([BACK[22:], FACE[:16]])
    claws = [_claw(studio, crest, at) for at in range(3, len(crest) - 2, 2)]
    for claw in claws:
        studio.canvas.fill(place(claw, x, y, size, flip), white, line=0.7)
    discs = []
    for px, py in crest:
        r = dice.real(0.03, 0.062)
        discs.append((px + dice.jitter(0.02), py + dice.jitter(0.02), r))
    side = -1 if flip else 1
    studio.canvas.discs(
        [(x + side * px * size, y + py * size, r * size) for px, py, r in discs], white, line=0.7
    )
    inner = [
        (x + side * (px - 0.01) * size, y + (py + 0.012) * size, r * size * 0.42) for px, py, r in discs[::2]
    ]
    studio.canvas.dots(inner, mix(white, studio["pale"], 0.7))


def _claw(studio: Studio, crest: Curve, at: int) -> Curve:
    """A hooked finger of foam that points out of the crest and curls forward."""
    dice = studio.dice
    (x, y), (ax, ay) = crest[at], crest[at + 1] - crest[at - 1]
    norm = (ax * ax + ay * ay) ** 0.5 + 1e-9
    ax, ay = ax / norm, ay / norm
    nx, ny = ay, -ax  # outwards, when walking along the crest from the foot to the tip
    long = dice.real(0.08, 0.17)
    path = [(0.0, 0.0), (0.5, 0.25), (0.85, 0.7), (0.8, 1.15)]
    curve = [(x + long * (n * nx + a * ax), y + long * (n * ny + a * ay)) for n, a in path]
    return brush(curve, dice.real(0.045, 0.07), (1.2, 0.15), steps=3)
