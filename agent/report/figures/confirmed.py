"""A campaign goes in; each winner's gain on fresh seeds, with its interval, beside what the search promised."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from agent.report.campaign import Campaign
from agent.report.comparison import Final, finals
from agent.report.figures.style import Theme, canvas, panel, texts

ROW, GAP = 0.22, 0.6  # inches a study; rows between searchers


def confirmed(campaign: Campaign, theme: Theme, factor: float = 1.0) -> Figure | None:
    """None where no winner has been confirmed."""
    ends = [final for final in finals(campaign, factor) if final.confirmed is not None]
    if not ends:
        return None
    unit = "%" if campaign.scale == "log" else campaign.metric
    subtitle = (
        f"gain over the reference ({unit}) on fresh seeds, with 95 % interval; ring: what the search promised"
    )
    rows = len(ends) + GAP * len({final.searcher for final in ends})
    figure = canvas(theme, "What the winners are worth", subtitle, width=9.0, height=1.5 + ROW * rows)
    axes = panel(figure, theme, left=1.75, right=0.95, bottom=0.55, top=0.9)
    places = _draw(axes, campaign, ends, theme)
    axes.set_ylim(-0.9, rows - 0.2)
    axes.set_yticks(list(places), [str(name) for name in places.values()], color=theme.muted, size=8.5)
    axes.axvline(0, color=theme.muted, lw=0.9, ls=(0, (4, 3)))
    axes.text(
        0,
        1.0,
        "reference",
        size=8.5,
        color=theme.muted,
        ha="center",
        va="bottom",
        transform=axes.get_xaxis_transform(),
    )
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+g}".replace("-", "−").replace("+0", "0")))
    axes.grid(axis="x", color=theme.faint, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("better →", color=theme.muted, size=9.5, loc="right")
    texts(figure)
    return figure


def _draw(axes: Axes, campaign: Campaign, ends: list[Final], theme: Theme) -> dict[float, str]:
    """Draws each study's row, searchers as groups from the top; returns the rows' heights and names."""
    factor = 100 if campaign.scale == "log" else 1
    y = len(ends) + GAP * len({final.searcher for final in ends}) - 1.0
    places: dict[float, str] = {}
    for searcher in campaign.searchers:
        colour, top = theme.colour(campaign.searchers.index(searcher)), y
        group = [final for final in ends if final.searcher == searcher]
        for final in group:
            value = factor * campaign.ratio(final.confirmed or 0.0)
            if final.interval:
                span = [factor * campaign.ratio(end) for end in final.interval]
                axes.plot(
                    span,
                    [y, y],
                    color=colour,
                    lw=4.5,
                    alpha=0.28,
                    solid_capstyle="butt",
                    gid=f"interval:{final.study}",
                )
            if final.promised is not None and final.kept:
                promise = factor * campaign.ratio(final.promised)
                axes.plot([promise, value], [y, y], color=colour, lw=0.8)
                axes.plot(
                    [promise],
                    [y],
                    "o",
                    mfc=theme.surface,
                    mec=colour,
                    mew=1.1,
                    ms=5.5,
                    gid=f"promised:{final.study}",
                )
            axes.plot([value], [y], "o", color=colour, ms=6, gid=f"confirmed:{final.study}")
            places[y] = final.study
            y -= 1
        if group:
            middle = (top + y + 1) / 2
            axes.text(
                1.015,
                middle,
                searcher,
                transform=axes.get_yaxis_transform(),
                va="center",
                size=9.5,
                weight="bold",
                color=colour,
            )
            y -= GAP
    return places
