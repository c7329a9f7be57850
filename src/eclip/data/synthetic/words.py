"""The vocabulary of the captions: synonyms for kinds of things, colours, hours, weather, seasons and places.

In a noun, "|" parts singular and plural where adding an s will not do, and {colour} marks where the colour
goes if it does not simply stand in front.
"""

from __future__ import annotations

NOUNS: dict[str, tuple[str, ...]] = {
    "sun": ("sun", "sun disc", "round sun"),
    "moon": ("moon", "full moon", "round moon"),
    "fuji": ("Mount Fuji", "Fuji", "great mountain", "mountain", "volcano", "peak"),
    "flying": ("crane on the wing|cranes on the wing", "flying crane", "crane in flight|cranes in flight"),
    "geese": ("wild goose|wild geese", "goose in flight|geese in flight", "distant bird"),
    "sail": ("sailing boat", "sail", "sailboat", "boat under sail|boats under sail", "junk"),
    "boat": ("rowing boat", "fishing boat", "skiff", "ferry boat", "boat with rowers|boats with rowers"),
    "bridge": ("arched bridge", "bridge", "wooden bridge", "footbridge"),
    "torii": ("torii", "torii gate", "shrine gate"),
    "swell": ("great wave", "towering wave", "breaking wave", "huge wave", "wave with claws of foam"),
    "woman": (
        "woman in a {colour} kimono|women in {colour} kimono",
        "lady in a {colour} kimono|ladies in {colour} kimono",
        "woman in a {colour} gown|women in {colour} gowns",
        "beauty in a {colour} robe|beauties in {colour} robes",
        "courtesan in a {colour} kimono|courtesans in {colour} kimono",
        "woman|women",
        "lady in a kimono|ladies in kimono",
    ),
    "traveller": (
        "traveller in a {colour} coat|travellers in {colour} coats",
        "man in a {colour} coat|men in {colour} coats",
        "pilgrim in a {colour} cloak|pilgrims in {colour} cloaks",
        "traveller in a straw hat|travellers in straw hats",
        "porter with a staff|porters with staffs",
    ),
    "parasol": ("parasol", "paper umbrella", "umbrella", "paper parasol"),
    "house": ("house", "cottage", "farmhouse", "teahouse"),
    "pagoda": ("pagoda", "temple tower", "temple pagoda"),
    "stone": ("stone lantern", "garden lantern of stone|garden lanterns of stone", "stone lamp"),
    "lantern": ("paper lantern", "lantern", "hanging lantern", "lamp"),
    "crane": ("crane", "standing crane", "stately crane", "red-crowned crane"),
    "flowers": (
        "clump of {colour} irises|clumps of {colour} irises",
        "clump of irises|clumps of irises",
        "bed of {colour} flowers|beds of {colour} flowers",
    ),
    "grass": (
        "tuft of pampas grass|tufts of pampas grass",
        "clump of reeds|clumps of reeds",
        "sheaf of tall grass|sheaves of tall grass",
    ),
    "pine": ("pine", "pine tree", "old pine", "twisted pine"),
    "cherry": (
        "cherry tree",
        "blossoming cherry",
        "cherry in bloom|cherries in bloom",
        "flowering cherry tree",
    ),
    "maple": ("maple", "maple tree", "autumn maple"),
    "willow": ("willow", "willow tree", "weeping willow"),
    "bamboo": ("stand of bamboo|stands of bamboo", "bamboo grove", "clump of bamboo|clumps of bamboo"),
}
CRESCENT = ("crescent moon", "young moon", "sickle moon", "thin moon")
SASH = (" with a {sash} obi", " and a {sash} obi", " with a {sash} sash")
SNOW_CAP = (" capped with snow", " under snow", " with a white cap")
CLOTHED = {"woman", "traveller"}  # the colour is their clothes', so it never stands in front
MATERIALS = {"straw"}  # not a word that captions use
PROPER = {"fuji"}
UNIQUE = {"sun", "moon", "swell"}
COUNTS = {
    2: ("two", "a pair of", "two"),
    3: ("three", "three", "a group of three"),
    4: ("four",),
    5: ("five",),
}

COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("vermilion", "scarlet", "crimson", "bright red"),
    "blue": ("indigo", "deep blue", "prussian blue", "azure"),
    "green": ("dark green", "moss green", "jade"),
    "yellow": ("golden", "pale yellow", "saffron"),
    "purple": ("violet", "lilac", "plum"),
    "black": ("ink-black", "dark", "sombre"),
    "white": ("pale", "snow-white", "plain white"),
    "pink": ("rose", "pale pink", "blush pink"),
    "orange": ("amber", "tawny", "burnt orange"),
    "brown": ("dark brown", "umber", "russet"),
    "grey": ("stone grey", "ashen", "slate"),
    "straw": ("thatched", "straw-roofed", "rustic"),
}

TIMES: dict[str, tuple[str, ...]] = {
    "dawn": ("at dawn", "at daybreak", "in the early morning", "at sunrise", "as the day begins"),
    "day": ("by day", "in broad daylight", "under a bright sky", "at noon", "in the daytime"),
    "dusk": ("at dusk", "at sunset", "in the evening glow", "under a burning sky", "at nightfall"),
    "night": ("at night", "by night", "under a dark sky", "after dark", "in the deep of night"),
}
# adverbials, then clauses
WEATHER: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rain": (
        ("in the rain", "in a shower", "under falling rain", "in a downpour"),
        ("rain falls", "it is raining", "rain slants down"),
    ),
    "storm": (
        ("in a storm", "in a gale", "in wild weather"),
        ("a storm rages", "rain lashes down", "the storm howls"),
    ),
    "snow": (
        ("in the snow", "in falling snow", "amid snowflakes", "in a snowfall"),
        ("snow falls", "it is snowing", "snowflakes drift down"),
    ),
    "mist": (
        ("in the mist", "in drifting haze", "wrapped in mist", "behind bands of mist"),
        ("mist drifts", "haze veils the view", "bands of mist hang low"),
    ),
    "wind": (
        ("in the wind", "in a breeze", "in gusts of wind"),
        ("wind blows", "the wind carries leaves", "a breeze stirs"),
    ),
}
SEASONS: dict[str, tuple[str, ...]] = {
    "spring": ("in spring", "in springtime"),
    "summer": ("in summer", "in midsummer"),
    "autumn": ("in autumn", "in the fall"),
    "winter": ("in winter", "in the cold season"),
}
# "preposition scenery": the scenery alone can open a caption
PLACES: dict[str, tuple[str, ...]] = {
    "waves": ("on a rough sea", "off a stormy coast", "amid high waves", "on the open sea"),
    "bay": ("at a quiet bay", "by the calm sea", "along a sheltered coast", "at a still inlet"),
    "mountain": ("before mountain slopes", "on a highland plain", "below the mountains", "in open country"),
    "river": ("at a river crossing", "along the riverside", "by a wide river", "beside a stream"),
    "village": ("in a village", "along a village road", "at a wayside hamlet", "at a post station"),
    "garden": ("in a garden", "on a garden lawn", "in the palace grounds", "in a park"),
    "shrine": ("at a shrine", "in temple grounds", "on the way to a shrine", "in a sacred precinct"),
    "marsh": ("at a marsh", "by a reedy pond", "in the shallows", "at the edge of a lake"),
}
OPENINGS = (
    "a view of",
    "a print of",
    "woodblock print of",
    "a scene with",
    "here are",
    "we see",
    "the artist shows",
)
BESIDE = ("nearby", "beside that", "further off", "next to it", "as well")
POSITIONS: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "to the left", "at the left edge", "at left"),
    "right": ("on the right", "to the right", "at the right edge", "at right"),
    "middle": ("in the middle", "in the centre", "at the centre", "halfway across"),
}
DOING: dict[str, tuple[str, ...]] = {
    "sun": ("hanging low", "above", "shining overhead"),
    "moon": ("hanging overhead", "above", "shining down"),
    "fuji": ("in the distance", "rising behind", "on the horizon", "far away"),
    "flying": ("passing overhead", "crossing the sky", "flying by"),
    "geese": ("crossing the sky", "flying past", "high above"),
    "sail": ("drifting by", "on the water", "heading home", "running before the breeze"),
    "boat": ("on the water", "pulling for the shore", "afloat", "making way"),
    "bridge": ("over the water", "spanning the stream"),
    "swell": ("about to break", "rearing up", "curling over"),
    "woman": ("strolling", "walking by", "standing still", "looking back"),
    "traveller": ("on the road", "trudging along", "resting", "walking by"),
    "house": ("by the road", "standing alone", "in the foreground"),
    "lantern": ("hanging above", "overhead", "on a cord"),
    "crane": ("standing still", "looking for food", "at rest"),
    "pine": ("leaning over", "in the foreground", "spreading its branches"),
    "willow": ("trailing its twigs", "in the foreground"),
    "cherry": ("in full bloom", "in the foreground"),
    "maple": ("in full colour", "in the foreground"),
}
