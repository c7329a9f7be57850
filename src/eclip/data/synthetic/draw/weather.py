"""The weather goes in; rain, falling snow, drifting petals and leaves are drawn over the picture."""

from __future__ import annotations

from eclip.data.synthetic.draw.geometry import brush, ellipse, place
from eclip.data.synthetic.draw.studio import Studio, mix


def weather(studio: Studio) -> None:
    """Whatever falls or blows in this scene; belongs to no object and hides none."""
    kind = studio.scene.weather
    if kind in ("rain", "storm"):
        rain(studio, heavy=kind == "storm")
    elif kind == "snow":
        snow(studio)
    elif kind == "wind":
        blown(studio)


def rain(studio: Studio, heavy: bool) -> None:
    """Long parallel lines, dark and light, all at one slant."""
    dice, canvas = studio.dice, studio.canvas
    slant = dice.real(0.18, 0.34) * (1 if dice.chance(0.5) else -1)
    pale = mix(studio["white"], studio["grey"], 0.3)
    for k in range(70 if heavy else 46):
        x, y = dice.real(studio.left - 20, studio.right + 20), dice.real(studio.top - 20, studio.bottom)
        long = studio.unit * dice.real(0.14, 0.34)
        path = [(x, y), (x + slant * long, y + long)]
        if k % 3:
            canvas.line(path, 0.5, 150)
        else:
            canvas.shade(brush(path, 0.8, (1, 1)), pale)


def snow(studio: Studio) -> None:
    """Flakes of all sizes, gofun white."""
    dice = studio.dice
    flakes = [
        (
            dice.real(studio.left, studio.right),
            dice.real(studio.top, studio.bottom),
            studio.unit * (0.003 + 0.007 * dice.real() * dice.real()),
        )
        for _ in range(dice.integer(110, 170))
    ]
    white = studio.bright("white")
    studio.canvas.dots(flakes, white)
    for x, y, r in flakes:
        if r > 1.2:  # large enough to lie over the outlines too
            studio.canvas.veil(ellipse(x, y, r, r, 1), white, 230)


_PETAL = [(-0.5, 0), (0, -0.3), (0.5, 0), (0, 0.3)]


def blown(studio: Studio) -> None:
    """Petals or leaves on the wind, by the season."""
    dice = studio.dice
    colour = {"spring": "pink", "summer": "moss", "autumn": "red", "winter": "grey"}[studio.scene.season]
    for _ in range(dice.integer(26, 44)):
        x, y = dice.real(studio.left, studio.right), dice.real(studio.top, studio.bottom)
        petal = place(_PETAL, x, y, studio.unit * dice.real(0.012, 0.024), tilt=dice.real())
        studio.canvas.shade(petal, studio.bright(colour))
