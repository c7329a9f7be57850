"""A scene's hour goes in; the pigments as they look in that light, and the sheet's measures, come out."""

from __future__ import annotations

from dataclasses import dataclass, field

from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.draw.canvas import RGB, Canvas
from eclip.data.synthetic.scene import Scene

PIGMENTS: dict[str, RGB] = {
    "paper": (243, 231, 207),
    "white": (249, 243, 229),
    "ink": (33, 31, 40),
    "prussian": (24, 58, 112),
    "indigo": (36, 50, 86),
    "azure": (96, 150, 186),
    "pale": (188, 211, 208),
    "mist": (226, 222, 205),
    "red": (200, 58, 40),
    "crimson": (158, 38, 48),
    "pink": (236, 172, 168),
    "rose": (214, 120, 128),
    "orange": (226, 128, 58),
    "yellow": (236, 190, 82),
    "straw": (222, 194, 124),
    "ochre": (198, 148, 70),
    "brown": (116, 78, 52),
    "bark": (92, 70, 58),
    "green": (76, 122, 84),
    "pine": (42, 84, 70),
    "moss": (132, 146, 84),
    "meadow": (172, 178, 112),
    "purple": (110, 72, 128),
    "blue": (40, 84, 148),
    "black": (46, 44, 52),
    "grey": (142, 138, 134),
    "stone": (166, 160, 150),
    "skin": (247, 226, 198),
}

# what the hour does to a pigment: (share mixed in, of which colour), then a factor for each channel
_LIGHT: dict[str, tuple[float, RGB, tuple[float, float, float]]] = {
    "dawn": (0.12, (248, 196, 164), (1.0, 0.98, 0.97)),
    "day": (0.0, (255, 255, 255), (1.0, 1.0, 1.0)),
    "dusk": (0.12, (206, 104, 70), (0.97, 0.93, 0.92)),
    "night": (0.15, (30, 44, 88), (0.76, 0.78, 0.90)),
}


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`share` of b in a."""
    return (
        int(a[0] + (b[0] - a[0]) * share),
        int(a[1] + (b[1] - a[1]) * share),
        int(a[2] + (b[2] - a[2]) * share),
    )


@dataclass
class Studio:
    """What every drawing needs: the canvas, the sheet's measures in pixels, pigments and dice."""

    canvas: Canvas
    scene: Scene
    dice: Dice
    left: float
    top: float
    right: float
    bottom: float
    _mixed: dict[str, RGB] = field(default_factory=dict)

    @property
    def unit(self) -> float:
        """The shorter side of the picture, in pixels: sizes in a scene are shares of it."""
        return min(self.right - self.left, self.bottom - self.top)

    def x(self, share: float) -> float:
        return self.left + share * (self.right - self.left)

    def y(self, share: float) -> float:
        return self.top + share * (self.bottom - self.top)

    def __getitem__(self, pigment: str) -> RGB:
        """The pigment in the light of the hour."""
        if pigment not in self._mixed:
            share, tint, factor = _LIGHT[self.scene.time]
            r, g, b = mix(PIGMENTS[pigment], tint, share)
            self._mixed[pigment] = (int(r * factor[0]), int(g * factor[1]), int(b * factor[2]))
        return self._mixed[pigment]

    def bright(self, pigment: str) -> RGB:
        """The pigment as if lit: halfway between its own colour and the hour's."""
        return mix(PIGMENTS[pigment], self[pigment], 0.3)
