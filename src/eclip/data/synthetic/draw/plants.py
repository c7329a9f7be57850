"""A foot and a height go in; pines, cherries, maples, willows, bamboo and reeds are drawn."""

from __future__ import annotations

from eclip.data.synthetic.draw.canvas import RGB
from eclip.data.synthetic.draw.geometry import Curve, brush, place, shifted, spline
from eclip.data.synthetic.draw.land import tuft
from eclip.data.synthetic.draw.studio import Studio, mix

_TRUNKS = [
    [(0, 0.02), (0.03, -0.2), (-0.05, -0.42), (0.05, -0.64), (0.0, -0.84)],
    [(0, 0.02), (-0.07, -0.2), (0.02, -0.44), (0.12, -0.62), (0.1, -0.82)],
    [(0, 0.02), (0.09, -0.24), (0.2, -0.45), (0.18, -0.68), (0.3, -0.84)],
]
# where the branches of a tree end, relative to its height, and how wide the foliage there is
_BOUGHS = [
    (-0.3, -0.46, 0.2),
    (0.32, -0.55, 0.2),
    (-0.22, -0.7, 0.19),
    (0.26, -0.79, 0.17),
    (0.04, -0.93, 0.2),
    (-0.02, -0.6, 0.13),
]


def pine(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A bent trunk and flat pads of needles."""
    trunk = _trunk(studio, x, y, size, flip, 0.075)
    green = mix(studio["pine"], studio["green"], studio.dice.real(0, 0.5))
    for bx, by, wide in _boughs(studio):
        _branch(studio, trunk, x, y, size, flip, bx, by)
        side = -1 if flip else 1
        _pad(studio, x + side * bx * size, y + by * size, wide * size, green)


def _pad(studio: Studio, x: float, y: float, half: float, green: RGB) -> None:
    dice, canvas = studio.dice, studio.canvas
    count = 7
    discs = []
    for k in range(count):
        t = 2 * k / (count - 1) - 1
        discs.append(
            (
                x + t * half,
                y - (1 - t * t) * half * 0.25 + dice.jitter(half * 0.06),
                half * (0.3 - 0.12 * t * t),
            )
        )
    canvas.discs(discs, green, line=0.8)
    light = mix(green, studio["moss"], 0.55)
    for dx, dy, r in discs:
        for lean in (-0.6, 0.0, 0.6):
            tip = (dx + lean * r * 0.9, dy - r * 0.75)
            canvas.shade(brush([(dx, dy + r * 0.1), tip], max(0.6, r * 0.12), (1, 0.4)), light)
    if studio.scene.snowy:
        canvas.discs([(dx, dy - r * 0.55, r * 0.6) for dx, dy, r in discs], studio.bright("white"), line=0)


def blossom_tree(studio: Studio, x: float, y: float, size: float, flip: bool, colour: str) -> None:
    """A cherry (pink, white) or a maple (red, orange, yellow): clouds of dots on dark boughs."""
    dice, canvas = studio.dice, studio.canvas
    trunk = _trunk(studio, x, y, size, flip, 0.07)
    base = studio["white"] if colour == "white" else studio[colour]
    clouds = []
    side = -1 if flip else 1
    for bx, by, wide in _boughs(studio):
        _branch(studio, trunk, x, y, size, flip, bx, by)
        clouds += [
            (
                x + side * (bx + dice.jitter(wide)) * size,
                y + (by + dice.jitter(wide * 0.75)) * size,
                wide * size * dice.real(0.28, 0.5),
            )
            for _ in range(7)
        ]
    canvas.discs(clouds, base, line=0.7, ink=150)
    dark, light = (
        mix(base, studio["crimson" if colour != "green" else "pine"], 0.35),
        mix(base, studio["white"], 0.6),
    )
    specks = [
        (cx + dice.jitter(r), cy + dice.jitter(r), size * dice.real(0.005, 0.012))
        for cx, cy, r in clouds
        for _ in range(4)
    ]
    canvas.dots(specks[::2], light)
    canvas.dots(specks[1::2], dark)
    if studio.scene.snowy:
        canvas.discs(
            [(cx, cy - r * 0.6, r * 0.5) for cx, cy, r in clouds[::3]], studio.bright("white"), line=0
        )


def willow(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A trunk and curtains of hanging twigs."""
    dice, canvas, side = studio.dice, studio.canvas, -1 if flip else 1
    _trunk(studio, x, y, size, flip, 0.07)
    green = studio["moss"]
    crown = [
        (x + side * dice.jitter(0.3) * size, y - size * dice.real(0.78, 0.95), size * dice.real(0.08, 0.13))
        for _ in range(9)
    ]
    canvas.discs(crown, mix(green, studio["pine"], 0.4), line=0.7)
    lean = 0.1 if studio.scene.weather in ("wind", "storm") else 0.0
    for k in range(22):
        sx = x + side * size * (-0.42 + 0.84 * k / 21)
        top, long = y - size * dice.real(0.75, 0.95), size * dice.real(0.3, 0.62)
        path = [
            (sx, top),
            (sx + side * (0.03 + lean / 2) * size, top + long * 0.5),
            (sx + side * lean * size, top + long),
        ]
        shade = mix(green, studio["pine" if k % 2 else "meadow"], 0.5)
        canvas.stroke(spline(path, 4), size * 0.026, shade, (0.5, 0.2))


def bamboo(studio: Studio, x: float, y: float, size: float, flip: bool) -> None:
    """A few jointed stems with bunches of narrow leaves."""
    dice, canvas = studio.dice, studio.canvas
    green = mix(studio["green"], studio["moss"], 0.4)
    for k in range(3):
        foot, lean = x + (k - 1) * size * 0.1, dice.jitter(0.08) + (-0.05 if flip else 0.05)
        high = size * dice.real(0.8, 1.0)
        joints = 6
        for j in range(joints):
            a, b = j / joints, (j + 0.94) / joints
            ends = [(foot + lean * t * t * high, y - t * high) for t in (a, b)]
            canvas.fill(brush(ends, size * 0.034, (1, 1)), green, line=0.6)
        for _ in range(7):
            t = dice.real(0.45, 1.0)
            lx, ly = foot + lean * t * t * high, y - t * high
            for turn in (0.03, 0.1, 0.42, 0.48):
                leaf = place(_LEAF, lx, ly, size * dice.real(0.1, 0.17), tilt=turn + dice.jitter(0.05))
                canvas.fill(leaf, mix(green, studio["pine"], dice.real(0.2, 0.8)), line=0.4)


_LEAF = brush([(0, 0), (0.5, 0.06), (1, 0.2)], 0.2, (0.2, 0.05), steps=3)


def reeds(studio: Studio, x: float, y: float, size: float, colour: str) -> None:
    """A clump of blades with flowers on top: iris (purple), or plumes of grass (straw)."""
    dice, canvas = studio.dice, studio.canvas
    for _ in range(13):
        foot, lean = x + dice.jitter(size * 0.55), dice.jitter(0.35) * size
        high = size * dice.real(0.55, 1.0)
        blade = [(foot, y), (foot + lean * 0.3, y - high * 0.6), (foot + lean, y - high)]
        canvas.fill(
            brush(blade, size * 0.06, (0.7, 0.05), steps=4),
            mix(studio["green"], studio["moss"], dice.real()),
            line=0.4,
        )
        if dice.chance(0.55):
            head = (foot + lean, y - high, size * 0.055)
            petals = [
                head,
                (head[0] - size * 0.05, head[1] + size * 0.03, size * 0.05),
                (head[0] + size * 0.05, head[1] + size * 0.03, size * 0.05),
            ]
            canvas.discs(petals, studio.bright(colour), line=0.5)


def _boughs(studio: Studio) -> list[tuple[float, float, float]]:
    dice = studio.dice
    return [(x + dice.jitter(0.06), y + dice.jitter(0.05), w * dice.real(0.85, 1.25)) for x, y, w in _BOUGHS]


def _trunk(studio: Studio, x: float, y: float, size: float, flip: bool, width: float) -> Curve:
    path = spline(studio.dice.one(_TRUNKS), 5)
    bark = mix(studio["bark"], studio["brown"], studio.dice.real())
    outline = place(brush(path, width, (1.3, 0.35)), x, y, size, flip)
    studio.canvas.fill(outline, bark, line=0.8)
    for k in range(2, len(path) - 4, 3):
        knot = place(shifted(path[k : k + 3], studio.dice.jitter(width * 0.3), 0), x, y, size, flip)
        studio.canvas.line(knot, 0.6, 190)
    for k in range(5):
        tuft(studio, x + (k - 2) * size * 0.035, y + size * (0.03 if k % 2 else 0.015))
    return path


def _branch(
    studio: Studio, trunk: Curve, x: float, y: float, size: float, flip: bool, bx: float, by: float
) -> None:
    near = trunk[min(range(len(trunk)), key=lambda k: abs(trunk[k][1] - by - 0.1))]
    path = [(near[0], near[1]), ((near[0] + bx) / 2, (near[1] + by) / 2 + 0.03), (bx, by)]
    studio.canvas.fill(
        place(brush(path, 0.035, (1.2, 0.4), steps=4), x, y, size, flip), studio["bark"], line=0.7
    )
