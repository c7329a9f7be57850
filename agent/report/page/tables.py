"""A campaign and its figures go in, the page's tables come out: each cell a value to sort by and a text."""

from __future__ import annotations

import statistics as averages
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.report import published
from agent.report.accounts import Account, alike, keep_rates
from agent.report.best_so_far import time_to
from agent.report.campaign import Campaign
from agent.report.comparison import Pair, differing
from agent.report.text import line
from agent.report.words import duration, share, span

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """value: to sort by, None for unknown. kind: a CSS class."""

    value: float | None
    text: str
    kind: str = ""


def studies(campaign: Campaign, rows: Sequence[Account]) -> list[dict[str, Any]]:
    names = test_names(rows)
    return [{"name": row.study.name, "cells": _study(campaign, row, names)} for row in rows]


def test_names(rows: Sequence[Account]) -> list[str]:
    """Metrics of the test set, where any study has read it."""
    return list(dict.fromkeys(name for row in rows for name in row.test))


def _study(campaign: Campaign, row: Account, test: Sequence[str]) -> list[Cell]:
    final, charges = row.final, row.study.charges
    promised, held = (final.promised, final.confirmed) if final else (None, None)
    interval = final.interval if final else None
    cost = row.seconds_per_percent
    sure = "" if row.by_confirmed else "°"
    return [
        Cell(len(row.study.proposals), str(len(row.study.proposals))),
        Cell(row.kept, str(row.kept)),
        _gain(campaign, promised),
        _gain(campaign, held, "good" if final and final.better else ""),
        Cell(interval[0] if interval else None, span(campaign, *interval) if interval else NONE),
        _p(final.p if final else None),
        Cell(row.area, NONE if row.area is None else f"{100 * row.area:.1f} %"),
        *(_rate(value) for value in (row.failed, row.rejected, row.duplicate, row.llm)),
        Cell(charges.seconds, duration(charges.seconds)),
        Cell(charges.usd, f"${charges.usd:.2f}" if charges.usd else NONE),
        Cell(cost, f"{duration(cost)}{sure}" if cost else NONE),
        Cell(row.usd_per_percent, f"${row.usd_per_percent:.3f}{sure}" if row.usd_per_percent else NONE),
        *(Cell(row.test.get(name), f"{row.test[name]:.4g}" if name in row.test else NONE) for name in test),
    ]


def _gain(campaign: Campaign, gain: float | None, kind: str = "") -> Cell:
    return Cell(gain, NONE if gain is None else share(campaign, gain), kind)


def _rate(value: float) -> Cell:
    return Cell(value, f"{100 * value:.0f} %" if value else NONE)


def _p(value: float | None, kind: str = "") -> Cell:
    text = NONE if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"
    return Cell(value, text, kind)


def tests(campaign: Campaign, found: Sequence[Pair]) -> list[dict[str, Any]]:
    """One row a pair, the better one named first."""
    turned = [turn(pair) if (pair.difference or 0.0) < 0 else pair for pair in found]
    return [
        {"names": f"{pair.first} – {pair.second}", "cells": _pair(campaign, pair), "says": _says(pair)}
        for pair in turned
    ]


def turn(pair: Pair) -> Pair:
    """The same pair seen from the other side."""
    interval = (-pair.interval[1], -pair.interval[0]) if pair.interval else None
    return replace(pair, first=pair.second, second=pair.first, values=pair.values[::-1], interval=interval)


def _pair(campaign: Campaign, pair: Pair) -> list[Cell]:
    sizes, test = tuple(map(len, pair.values)), pair.test
    return [
        Cell(sum(sizes), f"{sizes[0]} : {sizes[1]}"),
        _gain(campaign, pair.difference),
        Cell(
            pair.interval[0] if pair.interval else None,
            span(campaign, *pair.interval) if pair.interval else NONE,
        ),
        _p(test.permutation if test else None),
        _p(test.welch if test else None),
        _p(test.smallest if test else None),
        _p(pair.p, "good" if pair.better else ""),
    ]


def _says(pair: Pair) -> str:
    where = f" at {duration(pair.limit)}" if pair.limit else ""
    if pair.missing:
        where += f" ({pair.missing} not confirmed)"
    return f"{pair.better} is better{where}" if pair.better else f"no difference shown{where}"


def wins(campaign: Campaign, found: Sequence[Pair]) -> list[tuple[str, list[float | None]]]:
    """Row against column: the share of duels between their studies that the row wins."""
    shares: dict[tuple[str, str], float | None] = {}
    for pair in found:
        shares[pair.first, pair.second] = pair.wins
        shares[pair.second, pair.first] = None if pair.wins is None else 1 - pair.wins
    names = campaign.searchers
    return [(a, [shares.get((a, b)) for b in names]) for a in names] if found else []


def levels(campaign: Campaign) -> list[dict[str, Any]]:
    """When each searcher reached what the published run reached, relative to its reference."""
    known = published.levels()
    reached = {
        axis: {s.name: time_to(s, known, axis) for s in campaign.studies}  # type: ignore[arg-type]
        for axis in ("trials", "seconds")
    }
    rows = []
    for name, ratio in known.items():
        cells = []
        for searcher in campaign.searchers:
            group = campaign.of(searcher)
            times = {
                axis: [v for s in group if (v := at[s.name][name]) is not None]
                for axis, at in reached.items()
            }
            if not times["trials"]:
                cells.append(NONE)
                continue
            trials, seconds = (averages.median(times[axis]) for axis in ("trials", "seconds"))
            cells.append(f"{trials:g}, {duration(seconds)} ({len(times['trials'])} of {len(group)})")
        rows.append({"name": name, "share": f"{100 * ratio:.0f} %", "cells": cells})
    return rows


def rates(campaign: Campaign) -> list[dict[str, Any]]:
    """Keep rates by category, phase and route; a grouping with a single name tells nothing."""
    found = []
    for by in ("category", "phase", "route"):
        groups = keep_rates(campaign, by)
        if len(groups) > 1:
            found += [
                {"by": by, "name": line(name, 80), "tried": tried, "kept": kept, "share": kept / tried}
                for name, tried, kept in groups
            ]
    return found


def all_marks(campaign: Campaign, rows: Sequence[Account]) -> list[str]:
    """What must be known before believing the page."""
    found = [f"{row.study.name}: {mark}." for row in rows for mark in row.marks]
    for name, hard in differing(campaign).items():
        found.append(f"The studies differ in {name}{': they cannot be compared' if hard else ''}.")
    for names in alike(campaign):
        found.append(
            f"{', '.join(names)} tried exactly the same: they count as studies, but chance played no part."
        )
    return found
