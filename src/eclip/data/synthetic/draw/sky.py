"""The hour and the weather go in; gradations of sky, the sun or moon, stars and bands of cloud are drawn."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.canvas import RGB
from eclip.data.synthetic.draw.geometry import Curve, directions, ellipse, place, shifted
from eclip.data.synthetic.draw.studio import PIGMENTS, Studio, mix
from eclip.data.synthetic.scene import Item

_SKIES: dict[str, list[list[tuple[float, RGB]]]] = {
    "dawn": [
        [(0, (88, 128, 172)), (0.3, (190, 206, 206)), (0.65, (247, 222, 190)), (1, (240, 160, 128))],
        [(0, (120, 106, 150)), (0.35, (214, 188, 194)), (0.7, (248, 220, 186)), (1, (238, 168, 150))],
    ],
    "day": [
        [(0, (30, 78, 140)), (0.22, (122, 170, 200)), (0.5, (222, 226, 212)), (1, (246, 236, 214))],
        [(0, (70, 126, 170)), (0.3, (176, 206, 210)), (0.7, (240, 234, 214)), (1, (244, 226, 192))],
        [(0, (38, 70, 120)), (0.14, (150, 186, 204)), (0.4, (236, 231, 212)), (1, (242, 232, 208))],
    ],
    "dusk": [
        [(0, (58, 54, 96)), (0.25, (156, 74, 82)), (0.6, (228, 118, 66)), (1, (246, 192, 108))],
        [(0, (110, 40, 52)), (0.25, (198, 70, 50)), (0.65, (236, 140, 74)), (1, (246, 206, 130))],
    ],
    "night": [
        [(0, (14, 22, 50)), (0.45, (28, 48, 92)), (1, (74, 104, 142))],
        [(0, (20, 24, 44)), (0.6, (38, 52, 88)), (1, (66, 84, 120))],
    ],
}
_OVERCAST: dict[str, RGB] = {
    "rain": (124, 132, 140),
    "snow": (170, 176, 182),
    "mist": (222, 218, 204),
    "storm": (70, 78, 92),
}


def sky(studio: Studio, horizon: float) -> None:
    """The sky down to `horizon` (pixels), darker at the top as a wiped block prints it."""
    stops = studio.dice.one(_SKIES[studio.scene.time])
    cloud = _OVERCAST.get(studio.scene.weather)
    if cloud:
        dim = {"night": 0.45, "dusk": 0.75}.get(studio.scene.time, 1.0)
        grey = (int(cloud[0] * dim), int(cloud[1] * dim), int(cloud[2] * dim))
        stops = [(at, mix(colour, grey, 0.62)) for at, colour in stops]
    studio.canvas.backdrop(studio.top, max(horizon, studio.top + 2), stops)
    if studio.scene.time == "night" and studio.scene.weather == "clear":
        _stars(studio, horizon)


def _stars(studio: Studio, horizon: float) -> None:
    dice = studio.dice
    stars = [
        (dice.real(studio.left, studio.right), dice.real(studio.top, horizon * 0.8), dice.real(0.3, 0.8))
        for _ in range(dice.integer(12, 40))
    ]
    studio.canvas.dots(stars, (226, 222, 196))


def sun(studio: Studio, x: float, y: float, size: float, colour: str) -> None:
    """A flat disc, wiped lighter at its lower edge."""
    studio.canvas.wash(
        ellipse(x, y, size / 2, size / 2, 4),
        [
            (0, PIGMENTS[colour]),
            (0.55, PIGMENTS[colour]),
            (1, mix(PIGMENTS[colour], PIGMENTS["paper"], 0.35)),
        ],
        line=0,
    )


def moon(studio: Studio, x: float, y: float, size: float, colour: str, crescent: bool) -> None:
    """A full disc with a halo, or a crescent."""
    pale = PIGMENTS["white"] if colour == "white" else (247, 222, 142)
    for share in (1.9, 1.5, 1.2) if not crescent else (1.3,):
        studio.canvas.veil(ellipse(x, y, size / 2 * share, size / 2 * share, 3), pale, 22)
    studio.canvas.fill(
        _crescent(x, y, size / 2) if crescent else ellipse(x, y, size / 2, size / 2, 4), pale, line=0
    )


def _crescent(x: float, y: float, r: float) -> Curve:
    outer = directions(4)[-20:]
    outer = np.concatenate([outer, directions(4)[:22]])
    inner = outer[::-1] * (0.55, 0.9) + (-0.12, 0)
    return place(np.concatenate([outer, inner]), x, y, r, tilt=0.08)


def cloud_band(studio: Studio, x: float, y: float, length: float, colour: RGB, strength: int = 235) -> None:
    """Suyari-gasumi: the stepped bands of mist that close off a distance."""
    dice, h = studio.dice, studio.unit * 0.035
    for row in range(dice.integer(2, 3)):
        shift, share = dice.jitter(length * 0.3), dice.real(0.5, 1.0)
        half = length * share / 2
        studio.canvas.veil(
            _lozenge(x + shift, y + row * h * 1.5, half, h * dice.real(0.7, 1.1)), colour, strength, True
        )


def _lozenge(x: float, y: float, half: float, thick: float) -> Curve:
    """A level band with round ends."""
    cap = directions(3) * (thick * 1.3, thick * 0.8)
    right, left = cap[cap[:, 0] >= 0], cap[cap[:, 0] <= 0]
    right, left = right[np.argsort(right[:, 1])], left[np.argsort(-left[:, 1])]
    return np.concatenate([shifted(right, x + half, y), shifted(left, x - half, y)])


def sun_or_moon(studio: Studio, item: Item, kind: str, colour: str, form: str) -> None:
    x, y, size = studio.x(item.x), studio.y(item.y), item.size * studio.unit
    if kind == "sun":
        sun(studio, x, y, size, colour)
    else:
        moon(studio, x, y, size, colour, form == "crescent")
