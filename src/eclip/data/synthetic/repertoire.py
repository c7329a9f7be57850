"""The knobs of the data set: what may be shown, where, when, in which colours, how often.

Weights are relative. More kinds and colours tell prints apart better; more synonyms (`words.py`) and more
left unsaid (`caption.py`) make it harder. Nothing else needs to change.
"""

from __future__ import annotations


def _weights(text: str) -> dict[str, float]:
    """ "boat 2, sail 1.5" -> {"boat": 2.0, "sail": 1.5}."""
    pairs = (item.split() for item in text.split(",") if item.strip())
    return {name: float(weight) for name, weight in pairs}


FEWEST = 2  # kinds of things in a scene

# (width, height, margin) in pixels: weight
SHEETS: dict[tuple[int, int, int], float] = {
    (320, 224, 9): 4,  # oban, landscape
    (320, 216, 0): 1,
    (224, 320, 9): 3,  # oban, portrait
    (216, 320, 0): 1,
    (272, 224, 8): 2,  # chuban
    (224, 272, 8): 1,
    (256, 256, 10): 1,  # surimono
}
PLACES = _weights(
    "waves 1.2, bay 1.3, mountain 1.2, river 1.3, village 1.1, garden 1.4, shrine 1.2, marsh 0.9"
)
HOURS = _weights("dawn 0.2, day 0.38, dusk 0.2, night 0.22")
WEATHERS = _weights("clear 0.4, rain 0.17, snow 0.15, mist 0.13, wind 0.15")
SEASONS = ("spring", "summer", "autumn", "winter")

# colours a thing comes in; not listed = it has one colour that goes without saying
COLOURS: dict[str, tuple[str, ...]] = {
    kind: tuple(colours.split())
    for kind, colours in {
        "fuji": "blue blue red black purple green white",
        "sun": "red red orange yellow",
        "moon": "white yellow",
        "sail": "white white red yellow blue",
        "boat": "brown red black green",
        "cherry": "pink pink white",
        "maple": "red orange yellow",
        "flowers": "purple blue white",
        "woman": "red blue purple green pink yellow black white",
        "traveller": "blue black brown green",
        "parasol": "red yellow blue purple green white orange",
        "house": "straw straw grey red",
        "pagoda": "red brown blue",
        "torii": "red red grey",
        "bridge": "red brown",
        "lantern": "red white yellow blue",
    }.items()
}
SASHES = ("red", "yellow", "purple", "green", "white", "black", "orange")

# what each place has on the water, near the viewer, and (trees) at an edge of the picture
AFLOAT = {
    "waves": _weights("boat 2, sail 1.5"),
    "bay": _weights("sail 2, boat 1.6, torii 0.6"),
    "river": _weights("bridge 1.6, boat 1.2, sail 0.6"),
    "marsh": _weights("boat 0.7, sail 0.4"),
}
NEAR = {
    "waves": _weights("swell 1"),
    "bay": _weights("woman 0.6, traveller 0.7, house 0.7, stone 0.3"),
    "mountain": _weights("house 1.3, traveller 1.2, torii 0.5, woman 0.6, pagoda 0.6"),
    "river": _weights("woman 1.2, traveller 0.8, lantern 0.6, house 0.6, stone 0.4"),
    "village": _weights("house 2.2, traveller 1.4, woman 1.0, stone 0.4, lantern 0.8"),
    "garden": _weights("woman 2.6, stone 1.2, crane 0.8, lantern 1, flowers 0.8"),
    "shrine": _weights("torii 1.6, stone 1.4, pagoda 1.2, woman 1, traveller 0.8, lantern 0.8"),
    "marsh": _weights("crane 2.4, flowers 1.4, grass 1.4"),
}
TREES = {
    "waves": {},
    "bay": _weights("pine 2, cherry 1, maple 1, willow 0.6"),
    "mountain": _weights("pine 2, maple 1, cherry 1, bamboo 0.6"),
    "river": _weights("willow 1.5, cherry 1.3, pine 1, maple 1"),
    "village": _weights("pine 1.2, bamboo 1.2, cherry 1, maple 1, willow 0.5"),
    "garden": _weights("cherry 2, maple 1.4, pine 1, bamboo 1"),
    "shrine": _weights("pine 1.6, maple 1.4, cherry 1.4"),
    "marsh": _weights("pine 1, willow 1, bamboo 0.5"),
}

# how large, as a share of the picture's shorter side
SIZES: dict[str, tuple[float, float]] = {
    "sun": (0.16, 0.3),
    "moon": (0.14, 0.26),
    "fuji": (0.28, 0.62),
    "geese": (0.05, 0.075),
    "flying": (0.2, 0.34),
    "sail": (0.24, 0.4),
    "boat": (0.32, 0.5),
    "bridge": (0.6, 0.95),
    "torii": (0.34, 0.56),
    "swell": (0.42, 0.68),
    "woman": (0.44, 0.64),
    "parasol": (0.29, 0.5),
    "traveller": (0.34, 0.48),
    "house": (0.36, 0.52),
    "pagoda": (0.46, 0.66),
    "stone": (0.26, 0.4),
    "lantern": (0.22, 0.34),
    "crane": (0.26, 0.4),
    "flowers": (0.2, 0.32),
    "grass": (0.24, 0.36),
    "pine": (0.62, 0.9),
    "cherry": (0.6, 0.88),
    "maple": (0.56, 0.84),
    "willow": (0.6, 0.86),
    "bamboo": (0.7, 0.95),
}
# how many of a kind; not listed = one
COUNTS: dict[str, dict[int, float]] = {
    "sail": {1: 5, 2: 3, 3: 2},
    "boat": {1: 6, 2: 3},
    "woman": {1: 6, 2: 3},
    "traveller": {1: 5, 2: 3, 3: 1},
    "house": {1: 5, 2: 3},
    "lantern": {1: 3, 2: 3, 3: 3},
    "crane": {1: 3, 2: 4, 3: 1},
    "flowers": {1: 2, 2: 3},
    "grass": {1: 2, 2: 3},
    "flying": {1: 3, 2: 3, 3: 3},
    "geese": {3: 2, 4: 2, 5: 2},
}
