"""What can be seen in a print goes in; a caption and its phrases, each with boxes, come out.

The grammar: noun phrases (number, colour, noun, detail: all with synonyms) take a position or a verb; hour,
weather, season and place become adverbials or clauses; a sentence form puts them in order. Things are left
out at random, as people do: a caption says some of what is there, never what is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eclip.data.synthetic import words
from eclip.data.synthetic.dice import Dice
from eclip.data.synthetic.draw.artist import Box, Seen
from eclip.data.synthetic.scene import Scene

MENTION = 0.9  # knobs: how often a thing, its colour, its position and the rest are put into words
MENTION_COLOUR = 0.93
MENTION_POSITION = 0.4
MENTION_TIME = 0.85
MENTION_WEATHER = 0.9
MENTION_PLACE = 0.8
MENTION_SEASON = 0.2
MENTION_DETAIL = 0.3  # a sash, a cap of snow
SYNONYM = 0.35  # how often a colour goes by another name


@dataclass(frozen=True)
class Caption:
    """The text, and phrases of it with the boxes (x1, y1, x2, y2 in pixels) of what they name."""

    text: str
    regions: tuple[tuple[str, tuple[Box, ...]], ...]


def describe(scene: Scene, seen: tuple[Seen, ...], dice: Dice) -> Caption:
    """A caption of what is seen; names at least one thing if there is any."""
    order = dice.shuffled(seen)
    chosen = [thing for thing in order if dice.chance(MENTION)] or order[:1]
    phrases = [(noun_phrase(thing, dice), thing) for thing in chosen]
    mentions = [_placed(phrase, thing, scene, dice) for phrase, thing in phrases]
    text = _sentence(scene, mentions, dice)
    return Caption(text, tuple((phrase, thing.boxes) for phrase, thing in phrases))


def noun_phrase(thing: Seen, dice: Dice) -> str:
    """For instance "three white sails", "a lady in a scarlet kimono with a yellow obi"."""
    motif, count = thing.motif, len(thing.boxes)
    colour = _colour_word(motif.colour, dice)
    forms = words.CRESCENT if motif.form == "crescent" else words.NOUNS[motif.kind]
    form = dice.one([form for form in forms if colour or "{colour}" not in form])
    singular, _, plural = form.partition("|")
    noun = (singular if count == 1 else plural or singular + "s").replace("{colour}", colour)
    if colour and motif.kind not in words.CLOTHED and "{colour}" not in form:
        noun = f"{colour} {noun}"
    if motif.kind == "woman" and dice.chance(MENTION_DETAIL):
        noun += dice.one(words.SASH).format(sash=motif.form)
    if motif.kind == "fuji" and motif.form == "snow" and dice.chance(MENTION_DETAIL):
        noun += dice.one(words.SNOW_CAP)
    return re.sub(r"\ba (?=[aeiou])", "an ", _counted(noun, motif.kind, count, dice))


def _colour_word(colour: str, dice: Dice) -> str:
    """The colour or another name for it; "" where it is left out or goes without saying."""
    if not colour or not dice.chance(MENTION_COLOUR):
        return ""
    return dice.one(words.COLOURS[colour]) if colour in words.MATERIALS or dice.chance(SYNONYM) else colour


def _counted(noun: str, kind: str, count: int, dice: Dice) -> str:
    if kind in words.PROPER:
        return noun if noun.split()[0] in ("Mount", "Fuji") else f"the {noun}"
    if count == 1:
        if kind in words.UNIQUE and dice.chance(0.6):
            return f"the {noun}"
        return f"a {noun}"
    return f"{dice.one(words.COUNTS[min(count, 5)])} {noun}"


def _placed(phrase: str, thing: Seen, scene: Scene, dice: Dice) -> str:
    """The phrase, perhaps with where it is or what it does."""
    if dice.chance(MENTION_POSITION):
        return f"{phrase} {dice.one(_position(thing, scene))}"
    doing = words.DOING.get(thing.motif.kind)
    if doing and dice.chance(0.45):
        return f"{phrase} {dice.one(doing)}"
    return phrase


def _position(thing: Seen, scene: Scene) -> tuple[str, ...]:
    """Words for where the middle of the boxes lies, in thirds of the print."""
    x = sum(box[0] + box[2] for box in thing.boxes) / (2 * len(thing.boxes) * scene.width)
    column = "left" if x < 0.38 else "right" if x > 0.62 else "middle"
    return words.POSITIONS[column]


def _sentence(scene: Scene, mentions: list[str], dice: Dice) -> str:
    time = dice.one(words.TIMES[scene.time]) if dice.chance(MENTION_TIME) else ""
    weather = words.WEATHER.get(scene.weather) if dice.chance(MENTION_WEATHER) else None
    place = dice.one(words.PLACES[scene.place]) if dice.chance(MENTION_PLACE) else ""
    season = dice.one(words.SEASONS[scene.season]) if dice.chance(MENTION_SEASON) else ""
    falling = dice.one(weather[0]) if weather else ""
    things = _listed(mentions, dice)
    opening = f"{dice.one(words.OPENINGS)} {things}"
    forms = [
        f"{things} {place} {time} {falling} {season}",
        f"{time}, {things} {place} {falling}, {season}",
        f"{opening} {place} {falling} {time} {season}",
        f"{falling}, {things} {place}, {time}, {season}",
    ]
    if place:
        scenery = place.split(" ", 1)[1]
        forms.append(f"{scenery} {time} {falling} with {things} {season}")
        forms.append(f"{scenery} {falling}: {things}, {time} {season}")
    if weather:
        forms.append(f"{dice.one(weather[1])} {place} {time}; {things} {season}")
    if len(mentions) > 1:
        cut = dice.integer(1, len(mentions) - 1)
        first, second = _listed(mentions[:cut], dice), _listed(mentions[cut:], dice)
        forms.append(f"{first} {place} {time}. {second} {falling} {season}")
        forms.append(f"{first} and, {dice.one(words.BESIDE)}, {second} {falling} {time} {place}")
    return _tidy(dice.one(forms), dice)


def _listed(mentions: list[str], dice: Dice) -> str:
    if len(mentions) < 2:
        return "".join(mentions)
    last = dice.one((" and ", " and ", " with ", ", "))
    return ", ".join(mentions[:-1]) + last + mentions[-1]


def _tidy(text: str, dice: Dice) -> str:
    """Single spaces, no orphaned commas, capitals at the start of sentences, mostly a full stop."""
    text = " ".join(text.split())
    for mark in (",", ".", ";", ":"):
        text = text.replace(f" {mark}", mark)
    while ",," in text:
        text = text.replace(",,", ",")
    for pair, single in ((",.", "."), (",;", ";"), (",:", ":"), (";,", ";"), (":,", ":")):
        text = text.replace(pair, single)
    text = text.strip(" ,;:.")
    sentences = [part[0].upper() + part[1:] for part in text.split(". ") if part]
    return ". ".join(sentences) + ("." if dice.chance(0.8) else "")
