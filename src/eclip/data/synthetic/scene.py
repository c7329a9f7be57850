"""A seed and a number go in; what a print shows (place, hour, weather, things and where they stand) comes out.

A scene is decided before anything is drawn, from dice alone. The tables below are the knobs: how often each place,
hour, weather and thing occurs, in which colours, how many and how large.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from eclip.data.synthetic.dice import Dice

# sheets: (width, height) in pixels, margin around the picture, weight
SHEETS: dict[tuple[int, int, int], float] = {
    (320, 224, 9): 4,  # oban, landscape
    (320, 216, 0): 1,
    (224, 320, 9): 3,  # oban, portrait
    (216, 320, 0): 1,
    (272, 224, 8): 2,  # chuban
    (224, 272, 8): 1,
    (256, 256, 10): 1,  # surimono
}
PLACES: dict[str, float] = {
    "waves": 1.2, "bay": 1.3, "mountain": 1.2, "river": 1.3, "village": 1.1, "garden": 1.4, "shrine": 1.2, "marsh": 0.9,
}  # fmt: skip
HOURS: dict[str, float] = {"dawn": 0.2, "day": 0.38, "dusk": 0.2, "night": 0.22}
WEATHERS: dict[str, float] = {"clear": 0.4, "rain": 0.17, "snow": 0.15, "mist": 0.13, "wind": 0.15}
SEASONS = ("spring", "summer", "autumn", "winter")

FEWEST = 2  # kinds of things in a scene

# colours a thing comes in; "" = it has one colour that goes without saying
COLOURS: dict[str, tuple[str, ...]] = {
    "fuji": ("blue", "blue", "red", "black", "purple", "green", "white"),
    "sun": ("red", "red", "orange", "yellow"),
    "moon": ("white", "yellow"),
    "sail": ("white", "white", "red", "yellow", "blue"),
    "boat": ("brown", "red", "black", "green"),
    "cherry": ("pink", "pink", "white"),
    "maple": ("red", "orange", "yellow"),
    "flowers": ("purple", "blue", "white"),
    "grass": ("straw",),
    "woman": ("red", "blue", "purple", "green", "pink", "yellow", "black", "white"),
    "traveller": ("blue", "black", "brown", "green"),
    "parasol": ("red", "yellow", "blue", "purple", "green", "white", "orange"),
    "house": ("straw", "straw", "grey", "red"),
    "pagoda": ("red", "brown", "blue"),
    "torii": ("red", "red", "grey"),
    "bridge": ("red", "brown"),
    "lantern": ("red", "white", "yellow", "blue"),
}
SASHES = ("red", "yellow", "purple", "green", "white", "black", "orange")

# what stands where: for each place the things on the water, near the viewer, and at the edges, with weights
MENU: dict[str, dict[str, dict[str, float]]] = {
    "waves": {"water": {"boat": 2, "sail": 1.5}, "near": {"swell": 1}, "edge": {}},
    "bay": {"water": {"sail": 2, "boat": 1.6, "torii": 0.6}, "near": {"woman": 0.6, "traveller": 0.7, "house": 0.7, "stone": 0.3}, "edge": {"pine": 2, "cherry": 1, "maple": 1, "willow": 0.6}},
    "mountain": {"water": {}, "near": {"house": 1.3, "traveller": 1.2, "torii": 0.5, "woman": 0.6, "pagoda": 0.6}, "edge": {"pine": 2, "maple": 1, "cherry": 1, "bamboo": 0.6}},
    "river": {"water": {"bridge": 1.6, "boat": 1.2, "sail": 0.6}, "near": {"woman": 1.2, "traveller": 0.8, "lantern": 0.6, "house": 0.6, "stone": 0.4}, "edge": {"willow": 1.5, "cherry": 1.3, "pine": 1, "maple": 1}},
    "village": {"water": {}, "near": {"house": 2.2, "traveller": 1.4, "woman": 1.0, "stone": 0.4, "lantern": 0.8}, "edge": {"pine": 1.2, "bamboo": 1.2, "cherry": 1, "maple": 1, "willow": 0.5}},
    "garden": {"water": {}, "near": {"woman": 2.6, "stone": 1.2, "crane": 0.8, "lantern": 1, "flowers": 0.8}, "edge": {"cherry": 2, "maple": 1.4, "pine": 1, "bamboo": 1}},
    "shrine": {"water": {}, "near": {"torii": 1.6, "stone": 1.4, "pagoda": 1.2, "woman": 1, "traveller": 0.8, "lantern": 0.8}, "edge": {"pine": 1.6, "maple": 1.4, "cherry": 1.4}},
    "marsh": {"water": {"boat": 0.7, "sail": 0.4}, "near": {"crane": 2.4, "flowers": 1.4, "grass": 1.4}, "edge": {"pine": 1, "willow": 1, "bamboo": 0.5}},
}  # fmt: skip
# how large, as a share of the sheet's shorter side (lowest, highest), and how many (number: weight)
SIZES: dict[str, tuple[float, float]] = {
    "sun": (0.16, 0.3), "moon": (0.14, 0.26), "fuji": (0.28, 0.62), "geese": (0.05, 0.075), "flying": (0.2, 0.34),
    "sail": (0.2, 0.36), "boat": (0.26, 0.44), "bridge": (0.6, 0.95), "torii": (0.34, 0.56), "swell": (0.42, 0.68),
    "woman": (0.4, 0.58), "traveller": (0.3, 0.42), "house": (0.36, 0.52), "pagoda": (0.46, 0.66), "stone": (0.26, 0.4),
    "lantern": (0.18, 0.28), "crane": (0.26, 0.4), "flowers": (0.2, 0.32), "grass": (0.24, 0.36), "pine": (0.62, 0.9),
    "cherry": (0.6, 0.88), "maple": (0.56, 0.84), "willow": (0.6, 0.86), "bamboo": (0.7, 0.95), "parasol": (0.24, 0.32),
}  # fmt: skip
COUNTS: dict[str, dict[int, float]] = {
    "sail": {1: 5, 2: 3, 3: 2}, "boat": {1: 6, 2: 3}, "woman": {1: 6, 2: 3}, "traveller": {1: 5, 2: 3, 3: 1},
    "house": {1: 5, 2: 3}, "lantern": {1: 3, 2: 3, 3: 3}, "crane": {1: 3, 2: 4, 3: 1}, "flowers": {1: 2, 2: 3},
    "grass": {1: 2, 2: 3}, "flying": {1: 3, 2: 3, 3: 3}, "geese": {3: 2, 4: 2, 5: 2},
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One object: its foot (or waterline, or centre in the sky) and its size, as shares; mirrored if `flip`."""

    x: float
    y: float
    size: float
    flip: bool


@dataclass(frozen=True)
class Motif:
    """Objects of one kind that a caption may name in one phrase."""

    kind: str
    colour: str
    items: tuple[Item, ...]
    layer: str  # sky, water or near
    form: str = ""  # crescent, snow (a capped mountain), or the colour of a sash


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    margin: int
    place: str
    time: str
    weather: str
    season: str
    snowy: bool
    horizon: float  # share of the picture's height
    shore: float  # where near ground begins; 1 = no shore
    side: str  # the shore's side: left, right, both
    motifs: tuple[Motif, ...] = field(default=())


def compose(dice: Dice) -> Scene:
    """One scene from these dice."""
    width, height, margin = dice.weighted(SHEETS)
    place, time, weather = dice.weighted(PLACES), dice.weighted(HOURS), dice.weighted(WEATHERS)
    if place == "waves" and weather in ("rain", "wind") and dice.chance(0.5):
        weather = "storm"
    season = "winter" if weather == "snow" else dice.one(SEASONS)
    snowy = season == "winter" and (weather == "snow" or dice.chance(0.5))
    tall = height > width
    horizon = dice.real(0.36, 0.46) + (0.06 if tall else 0.0) + (0.1 if place == "mountain" else 0.0)
    watery = bool(MENU[place]["water"])
    shore = {"waves": 1.0, "marsh": 0.84}.get(place, dice.real(0.72, 0.8) if watery else horizon + 0.06)
    side = "both" if place in ("river", "marsh") or not watery else dice.one(("left", "right", "both"))
    scene = Scene(width, height, margin, place, time, weather, season, snowy, horizon, shore, side)
    motifs = _motifs(scene, dice)
    while len(motifs) < FEWEST:
        motifs = _motifs(scene, dice)
    return replace(scene, motifs=tuple(motifs))


def _motifs(scene: Scene, dice: Dice) -> list[Motif]:
    sides = dice.shuffled((0.2, 0.5, 0.8))
    motifs = [*_heavens(scene, dice, sides), *_water(scene, dice)]
    return [*motifs, *_near(scene, dice)]


def _heavens(scene: Scene, dice: Dice, sides: list[float]) -> list[Motif]:
    """Sun or moon, Fuji, birds on the wing: each in its own third of the sky."""
    motifs, open_sky = [], scene.weather in ("clear", "wind", "mist")
    disc = "moon" if scene.time == "night" or (scene.time == "dusk" and dice.chance(0.3)) else "sun"
    if open_sky and dice.chance(0.6):
        item = _item(dice, disc, sides[0], dice.real(0.14, 0.24))
        form = "crescent" if disc == "moon" and dice.chance(0.35) else ""
        motifs.append(Motif(disc, dice.one(COLOURS[disc]), (item,), "sky", form))
    if dice.chance(0.8 if scene.place == "mountain" else 0.4):
        grow = 1.25 if scene.place == "mountain" else 1.0
        item = _item(dice, "fuji", sides[1], scene.horizon + 0.02, grow)
        colour = dice.one(COLOURS["fuji"])
        motifs.append(
            Motif("fuji", colour, (item,), "sky", "snow" if colour != "white" and dice.chance(0.6) else "")
        )
    if scene.weather != "storm" and dice.chance(0.34):
        kind = dice.weighted({"flying": 2, "geese": 1})
        motifs.append(Motif(kind, "", _flock(scene, dice, kind, sides[2]), "sky"))
    return motifs


def _flock(scene: Scene, dice: Dice, kind: str, x: float) -> tuple[Item, ...]:
    count, flip = dice.weighted(COUNTS[kind]), dice.chance(0.5)
    y, size = dice.real(0.12, 0.24), dice.real(*SIZES[kind])
    if kind == "flying":
        size *= 1.0 if count == 1 else 0.78
    step = size * (1.6 if kind == "geese" else 0.85)
    return tuple(
        Item(
            x + (k - (count - 1) / 2) * step + dice.jitter(0.02),
            y + k * step * dice.real(0.2, 0.5),
            size,
            flip,
        )
        for k in range(count)
    )


def _water(scene: Scene, dice: Dice) -> list[Motif]:
    """One or two kinds of things afloat, the farther ones smaller."""
    menu = MENU[scene.place]["water"]
    if not menu:
        return []
    kinds = _different(dice, menu, dice.integer(1, 2))
    if "bridge" in kinds:
        kinds = ["bridge"]
    motifs, slots = [], dice.shuffled((0.22, 0.5, 0.78))
    low = min(scene.shore, 0.86)
    for kind in kinds:
        count = min(dice.weighted(COUNTS.get(kind, {1: 1})), len(slots))
        items = []
        for _ in range(count):
            depth = dice.real(0.3, 0.95)
            y = scene.horizon + (low - scene.horizon) * depth
            items.append(_item(dice, kind, slots.pop() if slots else 0.5, y, 0.6 + 0.45 * depth))
        if items:
            items.sort(key=lambda item: item.y)
            motifs.append(Motif(kind, dice.one(COLOURS[kind]), tuple(items), "water"))
    return motifs


def _near(scene: Scene, dice: Dice) -> list[Motif]:
    """A tree at an edge, then things and people beside it, none on another's place."""
    motifs, slots = [], [0.14, 0.38, 0.62, 0.86]
    if scene.side == "left":
        slots = [0.12, 0.36]
    if scene.side == "right":
        slots = [0.64, 0.88]
    menu = MENU[scene.place]
    if menu["edge"] and dice.chance(0.72):
        kind = _in_season(dice, menu["edge"], scene.season)
        x = dice.one([slot for slot in slots if slot in (slots[0], slots[-1])])
        slots.remove(x)
        outer = 0.1 if x < 0.5 else 0.9
        foot = dice.real(max(scene.shore + 0.08, 0.78), 0.96)
        motifs.append(
            Motif(
                kind,
                dice.one(COLOURS.get(kind, ("",))),
                (Item(outer, foot, dice.real(*SIZES[kind]), x > 0.5),),
                "near",
            )
        )
    slots = dice.shuffled(slots)
    for kind in _different(dice, menu["near"], dice.integer(1, 2 if scene.place != "garden" else 3)):
        motifs += _group(scene, dice, kind, slots)
    return motifs


def _group(scene: Scene, dice: Dice, kind: str, slots: list[float]) -> list[Motif]:
    count = min(dice.weighted(COUNTS.get(kind, {1: 1})), len(slots))
    if not count:
        return []
    base = max(scene.shore + 0.1, {"house": 0.7, "pagoda": 0.72, "torii": 0.86}.get(kind, 0.84))
    items = []
    for _ in range(count):
        y = dice.real(base, max(base + 0.02, 0.97))
        if kind == "lantern":
            y = dice.real(0.16, 0.3)
        if kind == "swell":
            y = dice.real(0.88, 1.02)
        items.append(_item(dice, kind, slots.pop(), y))
    items.sort(key=lambda item: item.y)
    colour = dice.one(COLOURS.get(kind, ("",)))
    form = dice.one([sash for sash in SASHES if sash != colour]) if kind == "woman" else ""
    group = [Motif(kind, colour, tuple(items), "near", form)]
    if kind == "woman" and dice.chance(0.45) and scene.weather != "storm":
        shades = tuple(_held(item, dice) for item in items)
        group.append(
            Motif("parasol", dice.one([c for c in COLOURS["parasol"] if c != colour]), shades, "near")
        )
    return group


def _held(item: Item, dice: Dice) -> Item:
    """The parasol in the raised hand of the woman at `item`; its y is hers, so that it is drawn just after her."""
    return Item(item.x, item.y, item.size * dice.real(0.72, 0.86), item.flip)


def _item(dice: Dice, kind: str, x: float, y: float, grow: float = 1.0) -> Item:
    return Item(x + dice.jitter(0.05), y, dice.real(*SIZES[kind]) * grow, dice.chance(0.5))


def _different(dice: Dice, menu: dict[str, float], count: int) -> list[str]:
    left, kinds = dict(menu), []
    for _ in range(min(count, len(menu))):
        kinds.append(dice.weighted(left))
        del left[kinds[-1]]
    return kinds


def _in_season(dice: Dice, menu: dict[str, float], season: str) -> str:
    """Cherries blossom in spring, maples redden in autumn; either is rare at other times."""
    best = {"spring": "cherry", "autumn": "maple"}.get(season)
    weights = {
        kind: w * (3 if kind == best else 0.25 if kind in ("cherry", "maple") else 1)
        for kind, w in menu.items()
    }
    return dice.weighted(weights)
