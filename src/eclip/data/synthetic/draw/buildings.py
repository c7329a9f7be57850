"""A foot and a size go in; houses, pagodas, torii, and bridges are drawn."""

from __future__ import annotations

import numpy as np

from eclip.data.synthetic.draw.canvas import rectangle
from eclip.data.synthetic.draw.geometry import Curve, brush, place, shifted, spline
from eclip.data.synthetic.draw.studio import Studio, mix


def house(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str) -> None:
    """A thatched (straw), shingled (grey) or red-roofed house, `size` pixels wide."""
    canvas = studio.canvas

    def put(shape: Curve) -> Curve:
        return place(shape, x, y, size, flip)

    lit = studio.scene.time in ("night", "dusk")
    wall = mix(studio["straw"], studio["white"], 0.5)
    canvas.fill(put(rectangle(-0.36, -0.32, 0.36, 0)), wall, line=0.8)
    for k in range(4):
        window = rectangle(-0.3 + k * 0.16, -0.24, -0.18 + k * 0.16, -0.02)
        canvas.fill(
            put(window),
            (250, 212, 112) if lit else mix(studio["bark"], studio["straw"], 0.3 * (k % 2)),
            line=0.6,
        )
    roof = (
        spline([(-0.52, -0.24), (-0.36, -0.4), (-0.2, -0.58)], 4),
        spline([(0.2, -0.58), (0.36, -0.4), (0.52, -0.24)], 4),
    )
    thatch = studio[{"straw": "ochre", "grey": "grey", "red": "red"}[colour]]
    shape = put(np.concatenate(roof))
    canvas.wash(
        shape, [(0, mix(thatch, studio["straw"], 0.3)), (1, mix(thatch, studio["bark"], 0.5))], line=0.9
    )
    for k in range(9):
        share = (k + 0.5) / 9
        eave, top = -0.5 + share, -0.2 + 0.4 * share
        canvas.line(put(np.array([(eave, -0.255), ((eave + top) / 2 * 0.96, -0.42)])), 0.5, 140)
    if studio.scene.snowy:
        cap = [
            (-0.5, -0.27),
            (-0.36, -0.42),
            (-0.2, -0.61),
            (0.2, -0.61),
            (0.36, -0.42),
            (0.5, -0.27),
            (0.3, -0.36),
            (0, -0.33),
            (-0.3, -0.37),
        ]
        canvas.fill(put(spline(cap, 3, closed=True)), studio.bright("white"), line=0.6)
    canvas.fill(
        put(brush([(-0.23, -0.59), (0.23, -0.59)], 0.05, (1, 1))), mix(thatch, studio["bark"], 0.7), line=0.7
    )


def pagoda(studio: Studio, x: float, y: float, size: float, colour: str) -> None:
    """Three to five storeys under curved roofs, `size` pixels high."""
    canvas, storeys = studio.canvas, studio.dice.integer(3, 5)
    body, tile = studio[colour], studio["indigo" if colour != "blue" else "ink"]
    step = 0.8 / storeys
    for k in range(storeys):
        low, half = -k * step, 0.17 - 0.1 * k / storeys
        canvas.fill(place(rectangle(-half, low - step, half, low), x, y, size), body, line=0.7)
        for post in (-0.5, 0, 0.5):
            canvas.line(place([(half * post, low - step * 0.6), (half * post, low)], x, y, size), 0.5, 180)
        e, t = half + 0.15, low - step
        eaves = [
            (-e, t + 0.03),
            (-half * 1.1, t - 0.03),
            (-half * 0.7, t - 0.085),
            (half * 0.7, t - 0.085),
            (half * 1.1, t - 0.03),
            (e, t + 0.03),
        ]
        roof = np.concatenate([spline(eaves, 3), [(half, t + 0.045), (-half, t + 0.045)]])
        canvas.fill(place(roof, x, y, size), studio.bright("white") if studio.scene.snowy else tile, line=0.8)
    canvas.fill(
        place(brush([(0, -0.86), (0, -1.04)], 0.025, (1, 0.4)), x, y, size), studio["ochre"], line=0.4
    )


def torii(studio: Studio, x: float, y: float, size: float, colour: str) -> None:
    """A shrine gate `size` pixels high: two pillars, a tie beam, a curved lintel."""
    canvas, wood = studio.canvas, studio[{"grey": "stone"}.get(colour, colour)]
    for side in (-1, 1):
        pillar = [(side * 0.42, 0.0), (side * 0.36, -0.86)]
        canvas.fill(place(brush(pillar, 0.09, (1, 0.85)), x, y, size), wood, line=0.8)
        canvas.fill(
            place(rectangle(side * 0.42 - 0.07, -0.05, side * 0.42 + 0.07, 0.01), x, y, size),
            studio["ink"],
            line=0.4,
        )
    canvas.fill(place(rectangle(-0.54, -0.68, 0.54, -0.6), x, y, size), wood, line=0.8)
    canvas.fill(
        place(rectangle(-0.05, -0.84, 0.05, -0.62), x, y, size), mix(wood, studio["ink"], 0.3), line=0.6
    )
    beam = spline([(-0.66, -0.98), (-0.3, -0.9), (0.3, -0.9), (0.66, -0.98)], 4)
    canvas.fill(place(np.concatenate([beam, shifted(beam, 0, 0.09)[::-1]]), x, y, size), wood, line=0.8)
    cap = studio.bright("white") if studio.scene.snowy else studio["ink"]
    canvas.fill(place(np.concatenate([shifted(beam, 0, -0.045), beam[::-1]]), x, y, size), cap, line=0.6)


def bridge(studio: Studio, x: float, y: float, size: float, colour: str) -> None:
    """An arched bridge `size` pixels wide whose ends stand at y."""
    canvas, wood = studio.canvas, studio[colour]
    t = np.linspace(-1, 1, 25)
    deck = np.stack([t * 0.52, -0.2 * (1 - t * t)], 1)
    for k in range(3, 24, 4):
        px, py = deck[k]
        canvas.fill(
            place(rectangle(px - 0.012, py, px + 0.012, 0.1), x, y, size),
            mix(wood, studio["bark"], 0.6),
            line=0.6,
        )
    canvas.fill(place(np.concatenate([deck, shifted(deck, 0, 0.055)[::-1]]), x, y, size), wood, line=0.9)
    snow = studio.scene.snowy
    canvas.fill(
        place(np.concatenate([shifted(deck, 0, -0.018), deck[::-1]]), x, y, size),
        studio.bright("white") if snow else studio["straw"],
        line=0.5,
    )
    rail = shifted(deck, 0, -0.1)
    for k in range(0, 25, 3):
        px, py = deck[k]
        canvas.fill(place(rectangle(px - 0.009, py - 0.125, px + 0.009, py), x, y, size), wood, line=0.5)
    for drop in (0.0, 0.045):
        canvas.fill(
            place(np.concatenate([shifted(rail, 0, drop), shifted(rail, 0, drop + 0.018)[::-1]]), x, y, size),
            wood,
            line=0.5,
        )
