"""A place in the distance goes in; Fuji, ridges, banks and woods are drawn, under snow in winter."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.canvas import RGB
from eclip.data.synthetic.draw.geometry import Curve, place, spline
from eclip.data.synthetic.draw.studio import Studio, mix

_FUJI = [(-1.25, 0.06), (-1, -0.02), (-0.66, -0.19), (-0.4, -0.45), (-0.21, -0.78), (-0.11, -1.0)]
_FUJI += [(-0.07, -0.985), (-0.03, -1.02), (0.02, -0.985), (0.06, -1.01), (0.1, -0.99)]
_FUJI += [(0.2, -0.79), (0.38, -0.46), (0.66, -0.19), (1, -0.02), (1.25, 0.06)]
FUJI = spline(_FUJI, 4)

# body at the top and at the foot of the mountain, by colour name
_BODIES: dict[str, tuple[str, str]] = {
    "blue": ("prussian", "azure"),
    "red": ("crimson", "orange"),
    "black": ("ink", "grey"),
    "purple": ("purple", "pink"),
    "green": ("pine", "meadow"),
    "white": ("white", "pale"),
}


def fuji(studio: Studio, x: float, y: float, size: float, colour: str, snow: bool) -> None:
    """The cone, `size` pixels high, its foot at y."""
    top, foot = _BODIES[colour]
    outline = place(FUJI, x, y, size)
    body = [
        (0, studio[top]),
        (0.45, mix(studio[top], studio[foot], 0.35)),
        (1, mix(studio[foot], studio["mist"], 0.45)),
    ]
    studio.canvas.wash(outline, body, line=0.7)
    if snow:
        studio.canvas.fill(place(_snow_cap(studio), x, y, size), studio.bright("white"), line=0)
    crown = outline[18:46]
    studio.canvas.line(crown, 0.8)
    for side in (-1, 1):
        for _ in range(3):
            start = studio.dice.real(0.1, 0.3)
            rill = [
                (side * start * 0.5, -0.95 + start),
                (side * start * 0.9, -0.75 + start),
                (side * start * 1.5, -0.55 + start),
            ]
            studio.canvas.line(place(spline(rill, 4), x, y, size), 0.5, 110)


def _snow_cap(studio: Studio) -> Curve:
    """From the crater down both slopes to `depth`, with tongues of snow in the gullies."""
    depth = studio.dice.real(0.62, 0.72)
    crown = FUJI[(-FUJI[:, 1] > depth)]
    half = float(crown[-1, 0])
    teeth = 9
    edge = [
        (
            half - 2 * half * (k / teeth),
            -depth + (studio.dice.real(0.06, 0.22) if k % 2 else studio.dice.real(-0.14, -0.02)),
        )
        for k in range(1, teeth)
    ]
    return np.concatenate([crown, edge])


def ridge(studio: Studio, y: float, height: float, top: RGB, foot: RGB, line: float = 0.7) -> Curve:
    """A chain of hills from edge to edge; returns its crest."""
    dice, width = studio.dice, studio.right - studio.left
    count = dice.integer(5, 8)
    crest = [
        (
            studio.left - 8 + (width + 16) * k / count,
            y - height * (dice.real(0.55, 1.0) if k % 2 else dice.real(0.05, 0.5)),
        )
        for k in range(count + 1)
    ]
    curve = spline(crest, 6)
    foot_line = [(studio.right + 8, y + 2), (studio.left - 8, y + 2)]
    studio.canvas.wash(np.concatenate([curve, foot_line]), [(0, top), (1, foot)], line=0)
    studio.canvas.line(curve, line)
    return curve


def woods(studio: Studio, crest: Curve, colour: RGB, size: float) -> None:
    """Small firs along a crest."""
    dice = studio.dice
    for at in range(dice.integer(0, 3), len(crest), dice.integer(3, 5)):
        x, y = crest[at]
        h = size * dice.real(0.6, 1.2)
        studio.canvas.fill(
            [(x - h * 0.28, y + h * 0.15), (x, y - h), (x + h * 0.28, y + h * 0.15)], colour, line=0
        )


def bank(studio: Studio, y: float, side: str, colour: RGB, shadow: RGB, spread: float = 0.75) -> None:
    """The near shore: along the whole lower edge, or from one side only."""
    dice, width = studio.dice, studio.right - studio.left
    drop = studio.bottom - y
    edge = [
        (-0.06, dice.jitter(0.06)),
        (0.3, dice.jitter(0.1)),
        (0.65, dice.jitter(0.1)),
        (1.06, dice.jitter(0.06)),
    ]
    if side != "both":
        edge = [(-0.06, -0.06), (spread * 0.5, dice.jitter(0.06)), (spread * 0.85, 0.35), (spread, 1.1)]
    curve = spline([(x * width, y + dy * drop) for x, dy in edge], 6)
    curve[:, 0] = studio.right - curve[:, 0] if side == "right" else studio.left + curve[:, 0]
    far = studio.left - 8 if side != "right" else studio.right + 8
    corner = [(curve[-1, 0], studio.bottom + 8), (far, studio.bottom + 8)]
    studio.canvas.wash(np.concatenate([curve, corner]), [(0, colour), (0.5, colour), (1, shadow)], line=0.8)


def ground(studio: Studio, y: float) -> None:
    """Open ground from y to the lower edge, with a road and mounds; white in winter."""
    dice = studio.dice
    near = (
        studio.bright("white")
        if studio.scene.snowy
        else studio[dice.one(("meadow", "straw", "moss", "green", "ochre"))]
    )
    far = mix(near, studio["pale" if studio.scene.snowy else "paper"], 0.55)
    edge = spline(
        [(studio.left - 8 + (studio.right - studio.left + 16) * k / 3, y + dice.jitter(3)) for k in range(4)],
        5,
    )
    corner = [(studio.right + 8, studio.bottom + 8), (studio.left - 8, studio.bottom + 8)]
    dark = mix(near, studio["prussian" if studio.scene.snowy else "pine"], 0.4)
    studio.canvas.wash(np.concatenate([edge, corner]), [(0, far), (0.6, near), (1, dark)], line=0)
    studio.canvas.line(edge, 0.6)
    if dice.chance(0.6):
        _road(studio, y, mix(far, studio["paper"], 0.5))
    for _ in range(dice.integer(1, 3)):
        _mound(studio, y, near, dark)
    for _ in range(dice.integer(10, 22)):
        tuft(studio, dice.real(studio.left, studio.right), dice.real(y + 8, studio.bottom))


def _road(studio: Studio, y: float, colour: RGB) -> None:
    """A pale road that winds from the lower edge to the distance."""
    dice, deep = studio.dice, studio.bottom - y
    start, bend, end = dice.real(0.2, 0.8), dice.real(0.1, 0.9), dice.real(0.2, 0.8)
    path = spline([(start, 1.1), (bend, 0.62), ((bend + end) / 2, 0.3), (end, 0.02)], 6)
    width = np.linspace(0.2, 0.012, len(path))[:, None] * (studio.unit, 0)
    middle = path * (studio.right - studio.left, deep) + (studio.left, y)
    studio.canvas.fill(np.concatenate([middle - width, (middle + width)[::-1]]), colour, line=0)
    for side in (middle - width, middle + width):
        studio.canvas.line(side, 0.6, 150)


def _mound(studio: Studio, y: float, colour: RGB, dark: RGB) -> None:
    """A low knoll, shaded at its foot."""
    dice, unit = studio.dice, studio.unit
    x, half = studio.x(dice.one((dice.real(-0.1, 0.3), dice.real(0.7, 1.1)))), unit * dice.real(0.2, 0.4)
    foot = y + (studio.bottom - y) * dice.real(0.12, 0.5)
    curve = spline(
        [
            (x - half, foot),
            (x - half * 0.5, foot - half * 0.26),
            (x + half * 0.2, foot - half * 0.34),
            (x + half, foot),
        ],
        6,
    )
    studio.canvas.wash(curve, [(0, mix(colour, dark, 0.45)), (1, colour)], line=0)
    studio.canvas.line(curve, 0.6, 190)


def tuft(studio: Studio, x: float, y: float) -> None:
    """A few blades of grass."""
    s = studio.unit * 0.012
    for lean in (-1.4, -0.4, 0.6, 1.5):
        studio.canvas.line([(x + lean * s * 0.5, y), (x + lean * s, y - s * 1.8)], 0.5, 170)
