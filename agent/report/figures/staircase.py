"""One study goes in, its progress comes out: every trial a dot, the recipe a staircase, its steps named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy.special import stdtrit

from agent.noise import NoisePrior, estimate
from agent.records import Measurement, Trial
from agent.report import published
from agent.report.campaign import Campaign, Study
from agent.report.figures.style import Theme, canvas, fitted, panel, texts
from agent.report.lineage import changes, lineage
from agent.searchers.base import comparable_score

MOST_NAMES = 16


@dataclass(frozen=True)
class Dots:
    """(number, score) of the trials by what became of them; failed: numbers. band: factor or distance."""

    tried: list[tuple[int, float]]
    early: list[tuple[int, float]]
    kept: list[tuple[int, float]]
    failed: list[int]
    reference: float
    band: float


def dots(campaign: Campaign, study: Study) -> Dots | None:
    """The numbers of the figure; None before the reference was measured.

    band: 95 % of one seed's means of an unchanged recipe lie within score / band … score * band ("log") or
    score ± band ("linear"), by the study's own noise floor.
    """
    if not study.reference or not study.reference.outcome or study.reference.outcome.score is None:
        return None
    by_number = {trial.number: trial for trial in study.trials}
    done = [t for t in study.trials if t.outcome and t.outcome.status == "completed" and t.verdict]
    kept = {trial.number for trial in lineage(study)}
    tried: list[tuple[int, float]] = []
    early: list[tuple[int, float]] = []
    for trial in done:
        assert trial.outcome is not None
        point = (trial.number, comparable_score(trial, by_number))
        if trial.number not in kept:
            (early if trial.outcome.stopped_early else tried).append(point)
    failed = [t.number for t in study.proposals if t.outcome and t.outcome.status != "completed"]
    steps = [(t.number, t.outcome.score) for t in lineage(study) if t.outcome and t.outcome.score is not None]
    reference = study.reference.outcome.score
    return Dots(tried, early, steps, failed, reference, _band(campaign, study))


def _band(campaign: Campaign, study: Study) -> float:
    groups = [
        [*trial.outcome.measurements, *study.remeasured.get(trial.number, ())]
        for trial in study.trials
        if trial.outcome and trial.outcome.measurements
    ]
    prior = NoisePrior(**study.spec.details.get("acceptance", {}).get("prior", {}))
    noise = estimate(groups, campaign.scale, prior)
    folds = len({item.fold for group in groups for item in group if isinstance(item, Measurement)})
    half = float(stdtrit(noise.df, 0.975)) * math.sqrt(noise.difference_variance(folds) / 2)
    return math.exp(half) if campaign.scale == "log" else half


def staircase(campaign: Campaign, study: Study, theme: Theme, overlay: bool = False) -> Figure | None:
    """The progress of a study. `overlay`: the published run behind it, rescaled to this reference."""
    found = dots(campaign, study)
    if found is None:
        return None
    last = found.kept[-1][1]
    change = 100 * (last / found.reference - 1) if found.reference else 0.0
    said = f"{change:+.1f} %".replace("-", "−")
    title = f"{study.name}: {found.reference:.4g} → {last:.4g} ({said})"
    if len(found.kept) == 1:
        title = f"{study.name}: {last:.4g}, nothing kept"
    count, kept = len(study.proposals), len(found.kept) - 1
    better = "lower" if campaign.sign < 0 else "higher"
    subtitle = f"{campaign.metric} of {count} trials, {kept} kept; {better} is better"
    subtitle += "; shaded: 95 % of the recipe's repeats"
    subtitle += "; rings: stopped early" if found.early else ""
    figure = canvas(theme, title, subtitle, width=10.0, height=max(4.6, 1.6 + 0.21 * min(kept, MOST_NAMES)))
    axes = panel(figure, theme, left=0.66, right=3.75)
    _scales(axes, campaign, found, max(t.number for t in study.trials), theme)
    if overlay:
        _published(axes, found.reference, last, theme)
    _draw(axes, campaign, found, max(t.number for t in study.trials), theme)
    _list(figure, axes, campaign, study, found, theme)
    texts(figure)
    return figure


def _scales(axes: Axes, campaign: Campaign, found: Dots, end: int, theme: Theme) -> None:
    """The range of what was kept and a little more: a diverged trial must not press the rest flat."""
    steps = [score for _, score in found.kept]
    low, high = min(steps), max(steps)
    values = [score for _, score in [*found.tried, *found.early]]
    # where nothing was kept, what was tried is all there is to see
    room = 0.35 * (high - low) or 1.5 * abs(high)
    low = min([low, *(v for v in values if v > low - room)])
    high = max([high, *(v for v in values if v < high + room)])
    edge = min(room, 0.1 * abs(high)) if len(steps) == 1 else room
    low, high = low - 0.3 * edge, high + 0.5 * edge
    axes.set_xlim(-0.015 * end - 0.4, end + 0.5)
    axes.set_ylim(low, high)
    if campaign.scale == "log" and low > 0:
        axes.set_yscale("log")
    axes.yaxis.set_major_locator(
        FixedLocator(
            [v for v in MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= v <= high]
        )
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(axis="y", color=theme.faint, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("trial", color=theme.muted, size=9.5, loc="left")


def _draw(axes: Axes, campaign: Campaign, found: Dots, end: int, theme: Theme) -> None:
    colour, log = theme.colour(0), campaign.scale == "log"
    x, y = [n for n, _ in found.kept] + [end], [s for _, s in found.kept] + [found.kept[-1][1]]
    low = [value / found.band if log else value - found.band for value in y]
    high = [value * found.band if log else value + found.band for value in y]
    axes.fill_between(x, low, high, step="post", color=colour, alpha=0.12, lw=0, gid="noise band")
    axes.axhline(found.reference, color=theme.muted, lw=0.9, ls=(0, (4, 3)), gid="reference")
    bottom, top = axes.get_ylim()
    inside = [(n, min(max(s, bottom), top)) for n, s in found.tried]
    style = {"ls": "", "color": theme.dot, "clip_on": False}
    axes.plot(*_columns(inside), "o", ms=4, gid="tried", **style)  # type: ignore[arg-type]
    early = [(n, min(max(s, bottom), top)) for n, s in found.early]
    axes.plot(*_columns(early), "o", ms=4, mfc="none", mew=0.9, gid="early", **style)  # type: ignore[arg-type]
    axes.plot(found.failed, [top] * len(found.failed), "x", ms=4.5, mew=1.1, gid="failed", **style)  # type: ignore[arg-type]
    axes.step(x, y, where="post", color=colour, lw=1.8, gid="staircase")
    axes.plot(*_columns(found.kept), "o", ms=6, color=colour, mec=theme.surface, mew=1, gid="kept")
    _numbers(axes, campaign, found, theme)
    axes.text(end, found.reference, "reference ", size=8.5, color=theme.muted, ha="right", va="bottom")
    beyond = sum(not bottom <= s <= top for _, s in [*found.tried, *found.early])
    notes = [f"× {len(found.failed)} failed"] if found.failed else []
    notes += [f"{beyond} beyond the edge"] if beyond else []
    if notes:
        axes.text(
            0.995,
            1.015,
            ", ".join(notes),
            size=8.5,
            color=theme.muted,
            ha="right",
            va="bottom",
            transform=axes.transAxes,
        )


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [n for n, _ in points], [s for _, s in points]


def _numbers(axes: Axes, campaign: Campaign, found: Dots, theme: Theme) -> None:
    """Trial numbers on the empty side of the stairs, each moved on until it is free of the others."""
    to_pixels, to_data = axes.transData.transform, axes.transData.inverted().transform
    dpi = axes.get_figure().dpi / 72  # type: ignore[union-attr]
    taken: list[tuple[float, float, float]] = []
    for (_, before), (number, score) in pairwise(found.kept):
        # a step that was kept for another reason than its mean may go up
        side = campaign.sign if campaign.sign * (score - before) >= 0 else -campaign.sign
        x, y = to_pixels((number, score))
        half = 3.1 * len(str(number)) * dpi
        place = y + side * 10 * dpi
        while any(abs(x - a) < half + c and abs(place - b) < 9.5 * dpi for a, b, c in taken):
            place += side * 2 * dpi
        taken.append((x, place, half))
        data = to_data((x, place))
        axes.text(
            data[0], data[1], str(number), size=8, color=theme.ink, ha="center", va="center", clip_on=False
        )


def _list(figure: Figure, axes: Axes, campaign: Campaign, study: Study, found: Dots, theme: Theme) -> None:
    """What was kept, by number, beside the stairs."""
    width, height = figure.get_size_inches()
    left, top, line = width - 3.5, height - 0.98, 0.21
    if not (rows := _rows(campaign, study)):
        return
    shown = sorted(sorted(rows, key=lambda row: -row[3])[:MOST_NAMES])
    figure.text(left / width, (top + 0.06) / height, "kept", size=8.5, color=theme.muted, va="bottom")
    figure.text(
        (width - 0.18) / width,
        (top + 0.06) / height,
        "change",
        size=8.5,
        color=theme.muted,
        va="bottom",
        ha="right",
    )
    for index, (number, what, change, _) in enumerate(shown):
        y = (top - line * (index + 0.5)) / height
        style = {"size": 9, "va": "center", "color": theme.ink}
        figure.text((left + 0.24) / width, y, str(number), ha="right", **style)  # type: ignore[arg-type]
        figure.text((left + 0.34) / width, y, fitted(what, 9, 2.2), **style)  # type: ignore[arg-type]
        figure.text((width - 0.18) / width, y, change, ha="right", **style)  # type: ignore[arg-type]
    if len(rows) > len(shown):
        y = (top - line * (len(shown) + 0.5)) / height
        figure.text(
            (left + 0.34) / width,
            y,
            f"and {len(rows) - len(shown)} smaller steps",
            size=9,
            color=theme.muted,
            va="center",
        )


def _rows(campaign: Campaign, study: Study) -> list[tuple[int, str, str, float]]:
    found, chain = [], lineage(study)
    for before, trial in pairwise(chain):
        a, b = _score(before), _score(trial)
        share = 100 * (b / a - 1) if a else 0.0
        what = "; ".join(changes(trial, before, study.spec.details.get("reference", {}), short=True))
        text = f"{share:+.1f} %".replace("-", "−")
        found.append((trial.number, what or "no change", text, campaign.sign * share))
    return found


def _score(trial: Trial) -> float:
    assert trial.outcome is not None
    assert trial.outcome.score is not None
    return trial.outcome.score


def _published(axes: Axes, reference: float, last: float, theme: Theme) -> None:
    """The published stairs; where a study gained far less, they leave by the bottom rather than press it flat."""
    end, (low, high) = axes.get_xlim()[1], axes.get_ylim()
    x, y = _columns([(n, ratio * reference) for n, ratio in published.staircase() if n <= end])
    style = {"color": theme.colour(4), "lw": 1.2, "alpha": 0.9}
    axes.step([*x, end], [*y, y[-1]], where="post", gid="published", **style)  # type: ignore[arg-type]
    said = {"size": 8.5, "color": theme.colour(4)}
    corner = {"va": "bottom", "transform": axes.transAxes}
    if reference - last < (reference - y[-1]) / 3:
        axes.set_ylim(low, high)
        leaves = next(place for place, value in zip(x, y, strict=True) if value < low)
        text = f" published run, to {y[-1]:.4g}"
        corner["transform"] = axes.get_xaxis_transform()
        axes.text(leaves, 0.02, text, **said, **corner)  # type: ignore[arg-type]
    elif y[-1] < last:
        axes.set_ylim(min(low, y[-1] * 0.93), high)
        axes.text(end, y[-1] * 0.99, "published run, rescaled ", ha="right", va="top", **said)  # type: ignore[arg-type]
    else:  # the corner that falling stairs leave free
        axes.set_ylim(min(low, y[-1] * 0.97), high)
        axes.text(0.012, 0.02, "— published run, rescaled", **said, **corner)  # type: ignore[arg-type]
