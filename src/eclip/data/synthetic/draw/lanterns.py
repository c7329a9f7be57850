"""A place and a size go in; stone lanterns and hanging paper lanterns are drawn, alight after dusk."""

from __future__ import annotations

from eclip.data.synthetic.draw.canvas import rectangle
from eclip.data.synthetic.draw.geometry import brush, ellipse, place, spline
from eclip.data.synthetic.draw.studio import PIGMENTS, Studio, mix


def stone_lantern(studio: Studio, x: float, y: float, size: float) -> None:
    """A garden lantern `size` pixels high."""
    canvas, stone = studio.canvas, studio["stone"]
    lit = studio.scene.time in ("night", "dusk")
    if lit:
        for share in (0.5, 0.36, 0.24):
            canvas.veil(ellipse(x, y - 0.62 * size, share * size, share * size, 3), (252, 214, 120), 34)
    parts = [
        [(-0.22, 0), (-0.17, -0.1), (0.17, -0.1), (0.22, 0)],
        [(-0.07, -0.1), (-0.055, -0.42), (0.055, -0.42), (0.07, -0.1)],
        [(-0.19, -0.42), (-0.22, -0.5), (0.22, -0.5), (0.19, -0.42)],
        [(-0.13, -0.5), (-0.13, -0.72), (0.13, -0.72), (0.13, -0.5)],
        [(-0.34, -0.7), (-0.2, -0.78), (-0.08, -0.88), (0.08, -0.88), (0.2, -0.78), (0.34, -0.7)],
        [(-0.05, -0.88), (-0.06, -0.95), (0, -1.0), (0.06, -0.95), (0.05, -0.88)],
    ]
    for k, part in enumerate(parts):
        colour = (
            studio.bright("white")
            if studio.scene.snowy and k == 4
            else mix(stone, studio["ink"], 0.06 * (k % 3))
        )
        canvas.fill(place(part, x, y, size), colour, line=0.8)
    canvas.fill(
        place(rectangle(-0.06, -0.68, 0.06, -0.55), x, y, size),
        (252, 222, 130) if lit else studio["ink"],
        line=0.6,
    )


def paper_lantern(studio: Studio, x: float, y: float, size: float, colour: str) -> None:
    """A hanging chochin `size` pixels high; glows after dusk."""
    canvas = studio.canvas
    lit = studio.scene.time in ("night", "dusk")
    skin = PIGMENTS[colour]
    if lit:
        for share in (1.0, 0.78, 0.6):
            canvas.veil(ellipse(x, y, share * size, share * size, 3), (252, 200, 110), 36)
    canvas.line([(x, studio.top - 4), (x, y - size * 0.4)], 0.6)
    stops = [
        (0, mix(skin, PIGMENTS["ink"], 0.15)),
        (0.5, mix(skin, (255, 226, 140), 0.35 if lit else 0.1)),
        (1, skin),
    ]
    canvas.wash(ellipse(x, y, size * 0.33, size * 0.42, 3), stops, line=0.9)
    for k in (-0.6, -0.3, 0.0, 0.3, 0.6):
        half = size * 0.33 * (1 - k * k) ** 0.5
        canvas.line(
            spline(
                [
                    (x - half, y + k * size * 0.42),
                    (x, y + (k + 0.07) * size * 0.42),
                    (x + half, y + k * size * 0.42),
                ],
                3,
            ),
            0.5,
            150,
        )
    for end in (-1, 1):
        canvas.fill(
            rectangle(
                x - size * 0.17,
                y + end * size * 0.42 - size * 0.05,
                x + size * 0.17,
                y + end * size * 0.42 + size * 0.05,
            ),
            studio["ink"],
            line=0.4,
        )
    canvas.shade(
        brush([(x, y - size * 0.2), (x, y + size * 0.2)], size * 0.09, (0.7, 0.7)),
        mix(PIGMENTS["ink"], skin, 0.15),
    )
