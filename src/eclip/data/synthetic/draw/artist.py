"""A scene and dice go in; the finished print and the box of every object that can be seen in it come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.draw import (
    birds,
    boats,
    buildings,
    land,
    lanterns,
    paper,
    people,
    plants,
    sky,
    water,
)
from eclip.data.synthetic.draw.canvas import Canvas
from eclip.data.synthetic.draw.studio import Studio, mix
from eclip.data.synthetic.draw.weather import weather
from eclip.data.synthetic.scene import Item, Motif, Scene

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; x2 and y2 are just outside

MIN_SEEN = 0.45  # an object covered more than this leaves the annotations
MIN_PIXELS, MIN_SIDE = 14, 3  # and what is left of it must be at least this large
_INK = (36, 34, 50)


@dataclass(frozen=True)
class Seen:
    """A motif and the tight pixel boxes of those of its objects that can be seen, in order of drawing."""

    motif: Motif
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Print:
    image: Image.Image
    seen: tuple[Seen, ...]


def draw_print(scene: Scene, dice: Dice) -> Print:
    """Draw the scene back to front."""
    canvas = Canvas(scene.width, scene.height)
    m = scene.margin
    studio = Studio(canvas, scene, dice, m, m, scene.width - m, scene.height - m)
    numbers = _numbers(scene)
    _distance(studio, numbers)
    _middle(studio, numbers)
    _foreground(studio, numbers)
    weather(studio)
    paper.margin(studio)
    if dice.chance(0.7):
        paper.title(studio, dice)
    shift = (dice.integer(-2, 2), dice.integer(-2, 2))
    image = paper.onto_paper(canvas.impression(shift, _INK), dice)
    return Print(image, _seen(scene, canvas, numbers))


def _numbers(scene: Scene) -> dict[tuple[int, int], int]:
    """A number for each object (motif, item) of the scene, from 1."""
    keys = [(m, k) for m, motif in enumerate(scene.motifs) for k in range(len(motif.items))]
    return {key: number for number, key in enumerate(keys, 1)}


def _layer(studio: Studio, numbers: dict[tuple[int, int], int], layer: str) -> None:
    """Draw the layer's objects, those with the higher foot (farther away) first."""
    objects = [
        (item.y if layer != "sky" else 0.0, m, k, motif, item)
        for m, motif in enumerate(studio.scene.motifs)
        if motif.layer == layer
        for k, item in enumerate(motif.items)
    ]
    for _, m, k, motif, item in sorted(objects, key=lambda o: o[:3]):
        with studio.canvas.object(numbers[m, k]):
            _draw(studio, motif, item)


def _distance(studio: Studio, numbers: dict[tuple[int, int], int]) -> None:
    scene, dice = studio.scene, studio.dice
    horizon = studio.y(scene.horizon)
    sky.sky(studio, horizon + 0.1 * studio.unit)
    _layer(studio, numbers, "sky")
    tone = mix(studio[dice.one(("azure", "prussian", "pine", "moss", "purple"))], studio["mist"], 0.35)
    pale = mix(tone, studio["mist"], 0.6)
    if scene.snowy:
        tone, pale = mix(tone, studio["white"], 0.6), studio["white"]
    if scene.place != "waves" or dice.chance(0.3):
        high = studio.unit * (dice.real(0.1, 0.2) if scene.place != "mountain" else dice.real(0.06, 0.12))
        crest = land.ridge(studio, horizon + 2, high, tone, pale)
        if dice.chance(0.5):
            land.woods(studio, crest, mix(studio["pine"], tone, 0.3), studio.unit * 0.05)
    mist = mix(studio["paper"], studio["mist"], 0.5)
    for _ in range(dice.integer(3, 4) if scene.weather == "mist" else dice.integer(0, 1)):
        y = horizon - studio.unit * dice.real(0.0, 0.22)
        sky.cloud_band(studio, studio.x(dice.real()), y, studio.unit * dice.real(0.6, 1.2), mist)


def _middle(studio: Studio, numbers: dict[tuple[int, int], int]) -> None:
    scene = studio.scene
    if scene.place in ("waves", "bay", "river", "marsh"):
        water.sea(studio, studio.y(scene.horizon), calm=scene.place != "waves")
    _layer(studio, numbers, "water")


def _foreground(studio: Studio, numbers: dict[tuple[int, int], int]) -> None:
    scene, dice = studio.scene, studio.dice
    if scene.place in ("bay", "river", "marsh"):
        colour = (
            studio.bright("white") if scene.snowy else studio[dice.one(("moss", "meadow", "ochre", "green"))]
        )
        land.bank(studio, studio.y(scene.shore), scene.side, colour, mix(colour, studio["pine"], 0.5))
    elif scene.place != "waves":
        land.ground(studio, studio.y(scene.horizon + 0.02))
    _layer(studio, numbers, "near")
    if scene.weather == "mist":
        for _ in range(2):
            y = studio.y(dice.real(scene.horizon + 0.1, 0.9))
            sky.cloud_band(
                studio,
                studio.x(dice.one((0.05, 0.95))),
                y,
                studio.unit * 0.6,
                mix(studio["paper"], studio["mist"], 0.5),
                215,
            )


def _draw(studio: Studio, motif: Motif, item: Item) -> None:
    x, y, size, flip, colour = (
        studio.x(item.x),
        studio.y(item.y),
        item.size * studio.unit,
        item.flip,
        motif.colour,
    )
    match motif.kind:
        case "sun" | "moon":
            sky.sun_or_moon(studio, item, motif.kind, colour, motif.form)
        case "fuji":
            land.fuji(studio, x, y, size, colour, motif.form == "snow")
        case "flying":
            birds.flying_crane(studio, x, y, size, flip)
        case "geese":
            birds.goose(studio, x, y, size, flip)
        case "sail" | "boat":
            boats.boat(studio, x, y, size, flip, colour, motif.kind == "sail")
        case "bridge":
            buildings.bridge(studio, x, y, size, colour)
        case "torii":
            buildings.torii(studio, x, y, size, colour)
        case "swell":
            water.swell(studio, x, y, size, flip)
        case "woman":
            people.woman(studio, x, y, size, flip, colour, motif.form)
        case "parasol":
            side = -1 if flip else 1
            woman = size / 0.79
            people.parasol(studio, x + side * 0.3 * woman, y - 0.95 * woman, size, flip, colour)
        case "traveller":
            people.traveller(studio, x, y, size, flip, colour)
        case "house":
            buildings.house(studio, x, y, size, flip, colour)
        case "pagoda":
            buildings.pagoda(studio, x, y, size, colour)
        case "stone":
            lanterns.stone_lantern(studio, x, y, size)
        case "lantern":
            lanterns.paper_lantern(studio, x, y, size, colour)
        case "crane":
            birds.standing_crane(studio, x, y, size, flip)
        case "flowers" | "grass":
            plants.reeds(studio, x, y, size, colour or "straw")
        case "pine":
            plants.pine(studio, x, y, size, flip)
        case "willow":
            plants.willow(studio, x, y, size, flip)
        case "bamboo":
            plants.bamboo(studio, x, y, size, flip)
        case "cherry" | "maple":
            plants.blossom_tree(studio, x, y, size, flip, colour)
        case _:
            raise ValueError(f"no drawing for a motif of kind {motif.kind!r}")


def _seen(scene: Scene, canvas: Canvas, numbers: dict[tuple[int, int], int]) -> tuple[Seen, ...]:
    """Boxes of what is still to be seen when all is drawn; mostly covered objects are left out."""
    left = canvas.seen.histogram()
    pixels = np.asarray(canvas.seen)
    seen = []
    for m, motif in enumerate(scene.motifs):
        boxes = []
        for k in range(len(motif.items)):
            number = numbers[m, k]
            if left[number] >= max(MIN_PIXELS, MIN_SEEN * canvas.drawn[number]):
                box = _box(pixels == number)
                if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE:
                    boxes.append(box)
        if boxes:
            seen.append(Seen(motif, tuple(boxes)))
    return tuple(seen)


def _box(shape: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
