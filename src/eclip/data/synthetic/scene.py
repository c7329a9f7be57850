"""A seed and a number go in; what a print shows (place, hour, weather, things, where they stand) comes out.

A scene is decided before anything is drawn, from dice alone; what may be in it stands in `repertoire.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from eclip.data.synthetic import repertoire
from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.repertoire import AFLOAT, COLOURS, COUNTS, NEAR, SIZES, TREES


@dataclass(frozen=True)
class Item:
    """One object: its foot (waterline, or centre in the sky) and its size, as shares; mirrored if `flip`."""

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
    motifs: tuple[Motif, ...] = ()


def compose(dice: Dice) -> Scene:
    """One scene from these dice."""
    width, height, margin = dice.weighted(repertoire.SHEETS)
    place = dice.weighted(repertoire.PLACES)
    time, weather = dice.weighted(repertoire.HOURS), dice.weighted(repertoire.WEATHERS)
    if place == "waves" and weather in ("rain", "wind") and dice.chance(0.5):
        weather = "storm"
    season = "winter" if weather == "snow" else dice.one(repertoire.SEASONS)
    snowy = season == "winter" and (weather == "snow" or dice.chance(0.5))
    tall = height > width
    horizon = dice.real(0.36, 0.46) + (0.06 if tall else 0.0) + (0.1 if place == "mountain" else 0.0)
    watery = place in AFLOAT
    shore = {"waves": 1.0, "marsh": 0.84}.get(place, dice.real(0.72, 0.8) if watery else horizon + 0.06)
    side = "both" if place in ("river", "marsh") or not watery else dice.one(("left", "right", "both"))
    scene = Scene(width, height, margin, place, time, weather, season, snowy, horizon, shore, side)
    motifs = _motifs(scene, dice)
    while len(motifs) < repertoire.FEWEST:
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
    if scene.place not in AFLOAT:
        return []
    kinds = _different(dice, AFLOAT[scene.place], dice.integer(1, 2))
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
    motifs: list[Motif] = []
    slots = [0.14, 0.38, 0.62, 0.86]
    if scene.side == "left":
        slots = [0.12, 0.36]
    if scene.side == "right":
        slots = [0.64, 0.88]
    motifs += _tree(scene, dice, slots)
    slots = dice.shuffled(slots)
    most = 3 if scene.place == "garden" else 2
    for kind in _different(dice, NEAR[scene.place], dice.integer(1, most)):
        motifs += _group(scene, dice, kind, slots)
    return motifs


def _tree(scene: Scene, dice: Dice, slots: list[float]) -> list[Motif]:
    """Perhaps a tree at one end of `slots`, which is then taken."""
    if not TREES[scene.place] or not dice.chance(0.72):
        return []
    kind = _in_season(dice, TREES[scene.place], scene.season)
    slot = dice.one((slots[0], slots[-1]))
    slots.remove(slot)
    foot = dice.real(max(scene.shore + 0.08, 0.78), 0.96)
    item = Item(0.1 if slot < 0.5 else 0.9, foot, dice.real(*SIZES[kind]), slot > 0.5)
    return [Motif(kind, dice.one(COLOURS.get(kind, ("",))), (item,), "near")]


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
    form = dice.one([sash for sash in repertoire.SASHES if sash != colour]) if kind == "woman" else ""
    group = [Motif(kind, colour, tuple(items), "near", form)]
    if kind == "woman" and dice.chance(0.45) and scene.weather != "storm":
        shades = tuple(_held(item, dice) for item in items)
        group.append(
            Motif("parasol", dice.one([c for c in COLOURS["parasol"] if c != colour]), shades, "near")
        )
    return group


def _held(item: Item, dice: Dice) -> Item:
    """The parasol of the woman at `item`; its foot is hers, so that it is drawn just after her."""
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
        kind: w * (3 if kind == best else 0.12 if kind in ("cherry", "maple") else 1)
        for kind, w in menu.items()
    }
    return dice.weighted(weights)
