"""How every figure looks: a theme and a size go in, an empty Figure with its title comes out; and SVG, PNG.

Colours are Okabe and Ito's, which the colour-blind tell apart, lightened for dark backgrounds. The theme
"page" draws with stand-ins that become CSS variables, so that one SVG serves a page by day and by night.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

# the first that is installed; DejaVu Sans comes with matplotlib
FONTS = ("Inter", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
LIGHT: dict[str, Any] = {
    "surface": "#ffffff",
    "ink": "#1b1c1f",
    "muted": "#6a6d73",
    "faint": "#e4e4e0",
    "dot": "#b4b6ba",
    "series": ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#b98300", "#3f97cf", "#5b5f66", "#8a6d00"),
}
DARK: dict[str, Any] = {
    "surface": "#16181c",
    "ink": "#eceae5",
    "muted": "#a0a3a9",
    "faint": "#2d3036",
    "dot": "#5f636b",
    "series": ("#56a9e0", "#f58a4b", "#33c39a", "#e08fc0", "#e6b84c", "#9ad2f5", "#b9bcc3", "#cbb24a"),
}
# stand-ins: no two alike, found again in the SVG
PAGE: dict[str, Any] = {
    "surface": "#0a0b00",
    "ink": "#0a0b01",
    "muted": "#0a0b02",
    "faint": "#0a0b03",
    "dot": "#0a0b04",
    "series": tuple(f"#0a0b{16 + number:02x}" for number in range(8)),
}


@dataclass(frozen=True)
class Theme:
    """Colours by role. `series`: one for each searcher, in order."""

    name: str
    surface: str
    ink: str
    muted: str
    faint: str
    dot: str
    series: tuple[str, ...]

    def colour(self, index: int) -> str:
        return self.series[index % len(self.series)]


THEMES = {name: Theme(name, **values) for name, values in (("light", LIGHT), ("dark", DARK), ("page", PAGE))}


def canvas(theme: Theme, title: str, subtitle: str, width: float = 9.0, height: float = 4.6) -> Figure:
    """A figure in inches with its title at the top left; axes are placed with `panel`."""
    with mpl.rc_context({"font.family": _font()}):
        figure = Figure(figsize=(width, height), facecolor=theme.surface)
        figure.text(0.16 / width, 1 - 0.20 / height, title, size=13, weight="bold", color=theme.ink, va="top")
        figure.text(0.16 / width, 1 - 0.47 / height, subtitle, size=9.5, color=theme.muted, va="top")
    return figure


def panel(
    figure: Figure, theme: Theme, left: float, right: float, bottom: float = 0.52, top: float = 0.85
) -> Axes:
    """Axes with margins in inches, only a line below, and quiet ticks."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    axes = figure.add_axes(box, facecolor="none")
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(theme.dot)
        spine.set_linewidth(0.8)
    axes.tick_params(colors=theme.muted, labelsize=9, length=3, width=0.8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(which="minor", length=0, labelsize=9, labelcolor=theme.muted)
    return axes


def texts(figure: Figure) -> None:
    """The font for all that was written: call once, at the end. A "$" is a "$", whoever wrote it."""
    font = _font()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(font)
        text.set_parse_math(False)


def fitted(text: str, size: float, inches: float) -> str:
    """The text, cut with an ellipsis to `inches` at `size` points. One line, and no control characters."""
    plain = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:200]
    if text_width(plain, size) <= 72 * inches:
        return plain
    # measuring is what takes the time of a figure with many names, so the longest that fits is halved out
    fits = bisect_right(range(len(plain)), 72 * inches, lo=1, key=lambda n: text_width(_cut(plain, n), size))
    return _cut(plain, fits - 1) if fits > 1 else ""


def _cut(text: str, letters: int) -> str:
    return f"{text[:letters].rstrip()}…"


def text_width(text: str, size: float) -> float:
    """In points."""
    return _width(text, size, _font())


@lru_cache(maxsize=4096)
def _width(text: str, size: float, family: str) -> float:
    font = font_manager.FontProperties(family=family, size=size)
    width: float = TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
    return width


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near `places` (any order), at least `gap` apart and within [low, high] if that is possible."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    found = [0.0] * len(places)
    before = low - gap
    for index in order:
        found[index] = before = max(places[index], before + gap)
    limit = high
    for index in reversed(order):
        found[index] = min(found[index], limit)
        limit = found[index] - gap
    return found


def svg(figure: Figure, salt: str, outlines: bool = True) -> str:
    """The figure as an <svg> element. `outlines`: letters as shapes, else text in the reader's own font."""
    settings: Any = {
        "svg.fonttype": "path" if outlines else "none",
        "svg.hashsalt": salt,
        "font.family": _font(),
    }
    buffer = io.StringIO()
    with mpl.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def for_page(figure: Figure, salt: str, label: str) -> str:
    """The SVG of a "page" figure with its colours and font as CSS variables; `label` is for screen readers."""
    text = svg(figure, salt, outlines=False)
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # tags only: what stands between them was written by others and stays as it is
    text = re.sub(r"<[^>]+>", lambda tag: _for_page(tag.group(), salt), text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(label)}" ', 1)


def _for_page(tag: str, salt: str) -> str:
    for role in ("surface", "ink", "muted", "faint", "dot"):
        tag = tag.replace(PAGE[role], f"var(--{role})")
    for number, stand_in in enumerate(PAGE["series"]):
        tag = tag.replace(stand_in, f"var(--series-{number})")
    # matplotlib up to 3.10 writes `font: 9px 'Arial'`, later ones `font-family: 'Arial'`
    tag = re.sub(r"(font: [^;\"]*?px |font-family: )[^;\"]*", r"\1var(--sans)", tag)
    # numbers to a hundredth of a point: a third of the bytes
    tag = re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)
    return re.sub(r' id="|url\(#|href="#', lambda found: f"{found.group()}{salt}-", tag)


def save(figure: Figure, folder: Path, name: str) -> None:
    """`name`.svg and `name`.png (twice the size, for sharp screens) in `folder`."""
    (folder / f"{name}.svg").write_text(svg(figure, name), encoding="utf-8")
    figure.savefig(folder / f"{name}.png", dpi=160)


def _attribute(text: str) -> str:
    table: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
    return "".join(table.get(letter, letter) for letter in text)


@cache
def _font() -> str:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next(name for name in FONTS if name in installed)
