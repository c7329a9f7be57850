"""Scenes, prints and captions: what is said can be seen, and boxes are where it is seen."""

from __future__ import annotations

import re

import numpy as np
import pytest

from eclip.data.synthetic import repertoire, words
from eclip.data.synthetic.caption import describe, noun_phrase
from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.draw.artist import Seen, draw_print
from eclip.data.synthetic.draw.canvas import Canvas, rectangle
from eclip.data.synthetic.draw.geometry import directions, spline
from eclip.data.synthetic.scene import Item, Motif, Scene, compose
from eclip.data.synthetic.workshop import compose_and_draw

PRINTS = range(60)


@pytest.fixture(scope="module")
def prints():
    return [compose_and_draw(7, index) for index in PRINTS]


def test_boxes_lie_inside_the_picture_and_have_area(prints):
    for scene, drawn in prints:
        assert drawn.image.size == (scene.width, scene.height)
        for seen in drawn.seen:
            for x1, y1, x2, y2 in seen.boxes:
                assert 0 <= x1 <= x2 - 3 < scene.width - 2
                assert 0 <= y1 <= y2 - 3 < scene.height - 2


def test_no_box_reaches_into_the_margin(prints):
    for scene, drawn in prints:
        for x1, y1, x2, y2 in [box for seen in drawn.seen for box in seen.boxes]:
            assert min(x1, y1, scene.width - x2, scene.height - y2) >= scene.margin - 1


def still_life(*motifs: Motif) -> Scene:
    return Scene(320, 224, 0, "village", "day", "clear", "summer", False, 0.4, 0.46, "both", motifs)


def test_a_box_is_tight_around_what_is_drawn():
    lonely = Motif("torii", "red", (Item(0.5, 0.9, 0.5, False),), "near")
    (seen,) = draw_print(still_life(lonely), Dice(0, 0, "draw")).seen
    ((x1, y1, x2, y2),) = seen.boxes
    # the drawing is 1.32 wide and 1.035 high for its size of 0.5 x 224 pixels, its feet at y = 0.9
    assert (x1 + x2) / 2 == pytest.approx(160, abs=1.5)
    assert x2 - x1 == pytest.approx(1.32 * 112, abs=3)
    assert y2 == pytest.approx(0.9 * 224, abs=3)
    assert y2 - y1 == pytest.approx(1.035 * 112, abs=3)


def test_a_covered_object_leaves_the_annotations():
    behind = Motif("crane", "", (Item(0.5, 0.86, 0.2, False),), "near")
    front = Motif("house", "grey", (Item(0.5, 0.9, 0.8, False),), "near")
    kinds = [seen.motif.kind for seen in draw_print(still_life(behind, front), Dice(0, 0, "draw")).seen]
    assert kinds == ["house"]
    assert [s.motif.kind for s in draw_print(still_life(behind), Dice(0, 0, "draw")).seen] == ["crane"]


@pytest.mark.parametrize(("least", "kinds"), [(0.95, ["house"]), (0.05, ["crane", "house"])])
def test_how_much_must_be_seen_decides(least, kinds, monkeypatch):
    monkeypatch.setattr("eclip.data.synthetic.draw.artist.MIN_SEEN", least)
    beside = Motif("crane", "", (Item(0.72, 0.86, 0.3, False),), "near")  # partly behind the house's eaves
    front = Motif("house", "grey", (Item(0.5, 0.9, 0.6, False),), "near")
    assert [s.motif.kind for s in draw_print(still_life(beside, front), Dice(0, 0, "draw")).seen] == kinds


def test_the_map_of_objects_knows_what_covers_what():
    canvas = Canvas(100, 80)
    with canvas.object(1):
        canvas.fill(rectangle(10, 20, 70, 60), (200, 0, 0))
    with canvas.object(2):
        canvas.fill(rectangle(40, 0, 90, 80), (0, 0, 200))
    rim = 2 * (60 + 40)  # the outline's width: a pixel on either side
    assert canvas.drawn[1] == pytest.approx(60 * 40, abs=rim)
    assert canvas.visible(1) == pytest.approx(30 * 40, abs=rim)
    assert canvas.visible(2) == canvas.drawn[2] == pytest.approx(50 * 80, abs=rim)
    with canvas.object(3):
        canvas.fill(rectangle(-5, -5, 200, 200), (0, 200, 0))
    assert canvas.visible(1) == canvas.visible(2) == 0
    assert canvas.visible(3) == 100 * 80


UNMISTAKABLE = {
    "swell": r"\bwaves? with claws|(towering|breaking|huge) wave",
    "torii": r"torii|shrine gate",
    "pagoda": r"pagoda|temple tower",
    "bridge": r"bridge",
    "willow": r"willow",
    "bamboo": r"bamboo",
    "maple": r"maple",
    "cherry": r"cherr(y|ies)\b",
    "pine": r"\bpines?\b",
    "moon": r"\bmoon\b",
    "sun": r"\b(red|orange|the|a|yellow|round) sun\b|sun disc",
    "parasol": r"parasol|umbrella",
    "flowers": r"iris|bed of|beds of",
    "fuji": r"Fuji|volcano",
}


def test_every_kind_of_thing_has_nouns_and_sizes():
    for places in (repertoire.AFLOAT, repertoire.NEAR, repertoire.TREES):
        for menu in places.values():
            assert set(menu) <= set(words.NOUNS) & set(repertoire.SIZES)
    for colours in repertoire.COLOURS.values():
        assert set(colours) <= set(words.COLOURS)


def test_captions_name_only_what_can_be_seen(prints):
    named = 0
    for index, (scene, drawn) in enumerate(prints):
        kinds = {seen.motif.kind for seen in drawn.seen}
        for throw in range(10):
            caption = describe(scene, drawn.seen, Dice(throw, index, "caption"))
            for kind, pattern in UNMISTAKABLE.items():
                if re.search(pattern, caption.text):
                    named += 1
                    assert kind in kinds, (caption.text, kinds)
    assert named > 300


def test_phrases_are_parts_of_the_caption_and_count_their_boxes(prints):
    numbers = {"two": 2, "pair": 2, "three": 3, "four": 4, "five": 5}
    for index, (scene, drawn) in enumerate(prints):
        caption = describe(scene, drawn.seen, Dice(3, index, "caption"))
        assert caption.regions
        for phrase, boxes in caption.regions:
            assert phrase.lower() in caption.text.lower()
            said = [number for word, number in numbers.items() if word in phrase.split()[:4]]
            assert len(boxes) == (said[0] if said else 1)


def test_a_caption_says_hour_and_weather_of_its_own_scene_only(prints):
    hours = {hour: "|".join(forms) for hour, forms in words.TIMES.items()}
    for index, (scene, drawn) in enumerate(prints):
        text = describe(scene, drawn.seen, Dice(5, index, "caption")).text.lower()
        said = [hour for hour, forms in hours.items() if re.search(rf"\b({forms})\b", text)]
        assert said in ([], [scene.time]), text


def test_articles_and_punctuation(prints):
    for index, (scene, drawn) in enumerate(prints):
        text = describe(scene, drawn.seen, Dice(9, index, "caption")).text
        assert text[0].isupper()
        assert not re.search(r"  | [,.;:]|[,;:.]{2}|\ba [aeiou]|[{}|]", text), text


def test_a_noun_phrase_names_number_and_colour():
    sails = Seen(Motif("sail", "red", (), "water"), ((0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9)))
    phrases = {noun_phrase(sails, Dice(0, throw, "phrase")) for throw in range(200)}
    assert "three red sails" in phrases
    assert all("three" in phrase for phrase in phrases)
    reds = ("red", *words.COLOURS["red"])
    assert sum(any(red in phrase for red in reds) for phrase in phrases) > len(phrases) / 2


def test_scenes_vary(prints):
    scenes = [compose(Dice(1, index, "scene 0")) for index in range(400)]
    assert {scene.place for scene in scenes} == set(repertoire.PLACES)
    assert {motif.kind for scene in scenes for motif in scene.motifs} == set(repertoire.SIZES)
    assert min(len(scene.motifs) for scene in scenes) >= repertoire.FEWEST


def test_prints_of_one_scene_differ_in_drawing_only():
    scene = compose(Dice(0, 5, "scene 0"))
    first, again, other = (draw_print(scene, Dice(s, 5, "draw")).image for s in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_dice_are_fair_and_repeat():
    faces = [Dice(0, i, "fair").integer(1, 6) for i in range(6000)]
    assert all(800 < faces.count(face) < 1200 for face in range(1, 7))
    assert Dice(1, 2, "x").real() == Dice(1, 2, "x").real() != Dice(1, 2, "y").real()
    assert Dice(0, 0, "x").weighted({"never": 0.0, "always": 1.0}) == "always"


def test_directions_are_on_the_circle_and_splines_through_their_points():
    table = directions(5)
    np.testing.assert_allclose(np.hypot(*table.T), 1, atol=1e-12)
    angles = np.arctan2(table[:, 1], table[:, 0]) % (2 * np.pi)
    np.testing.assert_allclose(angles, np.arange(len(table)) * 2 * np.pi / len(table), atol=1e-9)
    points = [(0, 0), (1, 2), (3, 1), (4, 4)]
    np.testing.assert_allclose(spline(points, 5)[::5], points)
