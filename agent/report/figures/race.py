"""A campaign goes in, the race comes out: each searcher's median best-so-far with quartiles, on one axis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from agent.report.best_so_far import Axis, Band, at, band, relative
from agent.report.campaign import Campaign
from agent.report.figures.style import Theme, canvas, panel, spread, texts

TITLES = {"trials": "trials", "seconds": "charged time", "usd": "dollars"}
STEPS = [1, 2, 2.5, 5, 10]
ENOUGH = 3  # studies from which on quartiles say more than the curves themselves


def race(campaign: Campaign, axis: Axis, theme: Theme, width: float = 9.0) -> Figure:
    """Scores are percentages of the reference's, which every study starts from."""
    bands = {name: band(campaign.of(name), axis) for name in campaign.searchers}
    known = {name: found for name, found in bands.items() if found}
    better = "lower" if campaign.sign < 0 else "higher"
    many = all(found.studies >= ENOUGH for found in known.values())
    lines = "; median and quartiles over studies" if many else "; median, and every study"
    lines = lines if len(campaign.studies) > 1 else ""
    subtitle = f"best {campaign.metric} so far, in % of the reference; {better} is better{lines}"
    what = "The race" if len(known) > 1 else "Best so far"
    figure = canvas(theme, f"{what}, by {TITLES[axis]}", subtitle, width)
    axes = panel(figure, theme, left=0.62, right=1.55)
    for index, (name, found) in enumerate(known.items()):
        over = sum(_covers(later, found) for later in list(known.values())[index + 1 :])
        _line(axes, campaign, name, found, axis, theme.colour(index), 2 + 2 * min(over, 3))
    if known:
        _scales(axes, known, axis, theme, campaign.scale == "log")
        _names(axes, known, theme)
    texts(figure)
    return figure


def _covers(later: Band, found: Band) -> bool:
    """Whether a line drawn later hides a good part of this one, which is then drawn broader."""
    x = found.x[found.x <= later.x[-1]]
    same = at((later.x, later.median), x) == at((found.x, found.median), x)
    return bool(same.mean() > 0.2) if len(x) else False


def _line(
    axes: Axes, campaign: Campaign, name: str, found: Band, axis: Axis, colour: str, width: float
) -> None:
    """Median and quartiles, or every study while they are few."""
    x = found.x
    if found.studies >= ENOUGH:
        axes.fill_between(
            x,
            100 * found.low,
            100 * found.high,
            step="post",
            color=colour,
            alpha=0.14,
            lw=0,
            gid=f"band:{name}",
        )
    elif found.studies > 1:
        for study in campaign.of(name):
            curve = relative(study, axis)
            if len(curve[0]):
                axes.step(x, 100 * at(curve, x), where="post", color=colour, lw=0.8, alpha=0.5)
    axes.step(x, 100 * found.median, where="post", color=colour, lw=width, gid=f"median:{name}")
    axes.plot(x[-1:], 100 * found.median[-1:], "o", color=colour, ms=2.5 + width)


def _scales(axes: Axes, known: dict[str, Band], axis: Axis, theme: Theme, log: bool) -> None:
    values = np.concatenate(
        [line.get_ydata() for line in axes.lines] + [_edges(found) for found in known.values()]
    )
    low, high = min(float(values.min()), 100.0), max(float(values.max()), 100.0)
    pad = 0.06 * (high - low) or 1.0
    axes.set_ylim(max(low - pad, low * 0.9) if log else low - pad, high + pad)
    end = max(float(found.x[-1]) for found in known.values())
    axes.set_xlim(0, end * 1.01 or 1.0)
    if log and low > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(_ticks(low, high))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    for index, found in enumerate(known.values()):
        if found.x[-1] == 0:  # spends nothing: its end holds for any sum
            axes.axhline(100 * found.median[-1], color=theme.colour(index), lw=1.2, ls=(0, (1, 2)))
    axes.grid(axis="y", color=theme.faint, lw=0.8)
    axes.set_axisbelow(True)
    axes.axhline(100, color=theme.muted, lw=0.9, ls=(0, (4, 3)))
    factor, unit = _unit(axis, end)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / factor:g}"))
    if axis == "trials":
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if factor != 1:
        axes.xaxis.set_major_locator(_whole(end / factor, factor))
    axes.set_xlabel(unit, color=theme.muted, size=9.5, loc="left")


def _edges(found: Band) -> npt.NDArray[np.float64]:
    return 100 * np.concatenate([found.low, found.high])


def _unit(axis: Axis, end: float) -> tuple[float, str]:
    if axis == "trials":
        return 1.0, "trials"
    if axis == "usd":
        return 1.0, "dollars charged"
    return (3600.0, "hours charged") if end >= 7200 else (60.0, "minutes charged")


def _whole(end: float, factor: float) -> FixedLocator:
    return FixedLocator(
        [v * factor for v in MaxNLocator(8, steps=STEPS).tick_values(0, end) if v <= end * 1.01]
    )


def _ticks(low: float, high: float) -> FixedLocator:
    return FixedLocator([v for v in MaxNLocator(6, steps=STEPS).tick_values(low, high) if v > 0])


def _names(axes: Axes, known: dict[str, Band], theme: Theme) -> None:
    """Each searcher's name and final median beside the end of its line, moved apart where they would meet."""
    transform = axes.transData.transform
    ends = [transform((float(f.x[-1]), 100 * float(f.median[-1]))) for f in known.values()]
    box = axes.get_window_extent()
    line = 13 * axes.get_figure().dpi / 72  # type: ignore[union-attr]
    heights = spread([float(end[1]) for end in ends], line, float(box.y0) + line / 2, float(box.y1))
    for index, (name, found) in enumerate(known.items()):
        y = (heights[index] - box.y0) / box.height
        label = f"{name}  {100 * found.median[-1]:.0f} %"
        style = {"va": "center", "size": 9.5, "weight": "bold", "color": theme.colour(index)}
        axes.text(1.015, y, label, transform=axes.transAxes, **style)  # type: ignore[arg-type]
