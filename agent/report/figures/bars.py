"""Worths of changes, or importances of knobs, go in; dots and bars with intervals come out."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from agent.report.attribution import Worth
from agent.report.campaign import Campaign
from agent.report.figures.style import Theme, canvas, fitted, panel, text_width, texts
from agent.report.importance import Importance

ROW = 0.27  # inches
MOST_ROWS = 24


def attribution_bars(campaign: Campaign, worths: Sequence[Worth], theme: Theme) -> Figure:
    """How much worse the recipe gets without each of its changes."""
    shown = list(worths)[:MOST_ROWS]
    subtitle = (
        "taken back alone, on fresh seeds; bar: 95 % interval, each by itself; grey: not shown to be needed"
    )
    unit = "% worse without it" if campaign.scale == "log" else f"{campaign.metric} worse without it"
    title = (
        f"What each change of {worths[0].study}'s recipe is worth" if worths else "What each change is worth"
    )
    figure, axes = _rows(theme, title, subtitle, [worth.change for worth in shown])
    factor = 100 if campaign.scale == "log" else 1
    for index, worth in enumerate(shown):
        y, colour = len(shown) - 1 - index, theme.colour(0) if worth.proven else theme.muted
        effect = factor * -campaign.ratio(-worth.effect)
        if worth.interval:
            ends = [factor * -campaign.ratio(-end) for end in worth.interval]
            axes.plot(
                ends, [y, y], color=colour, lw=5, alpha=0.3, solid_capstyle="butt", gid=f"interval:{index}"
            )
        axes.plot([effect], [y], "o", color=colour, ms=6, gid=f"worth:{index}")
    axes.axvline(0, color=theme.muted, lw=0.9)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−").replace("+0", "0"))
    )
    axes.set_xlabel(unit, color=theme.muted, size=9.5, loc="left")
    texts(figure)
    return figure


def importance_bars(found: Sequence[Importance], theme: Theme) -> Figure:
    """How strongly each knob's value goes with the score."""
    shown = list(found)[:MOST_ROWS]
    subtitle = "rank correlation of value and score; tick: what chance reaches among so many knobs; it shows no cause"
    names = [f"{item.knob}  ({item.trials})" for item in shown]
    figure, axes = _rows(theme, "Knobs that went with the score", subtitle, names)
    for index, item in enumerate(shown):
        y, colour = len(shown) - 1 - index, theme.colour(0) if item.strength > item.chance else theme.dot
        axes.barh([y], [item.strength], height=0.42, color=colour, gid=f"strength:{index}")
        axes.plot([item.chance] * 2, [y - 0.34, y + 0.34], color=theme.ink, lw=1.1, gid=f"chance:{index}")
    axes.set_xlim(0, max([0.3, *(max(item.strength, item.chance) for item in shown)]) * 1.04)
    axes.set_xlabel(
        "strength (in brackets: trials that set the knob)", color=theme.muted, size=9.5, loc="left"
    )
    texts(figure)
    return figure


def _rows(theme: Theme, title: str, subtitle: str, names: Sequence[str]) -> tuple[Figure, Axes]:
    labels = [fitted(name, 9.5, 3.6) for name in reversed(names)]
    figure = canvas(theme, title, subtitle, width=9.0, height=1.55 + ROW * max(len(names), 1))
    # a page's reader may have a broader font than we
    left = 0.3 + 1.12 * max((text_width(label, 9.5) for label in labels), default=0.0) / 72
    axes = panel(figure, theme, left, right=0.35, bottom=0.55, top=0.88)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(range(len(names)), labels, color=theme.ink, size=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.grid(axis="x", color=theme.faint, lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes
