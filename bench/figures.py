"""Measured figures go in; a Rich table, the ratios to keep, and what was lost against recorded ratios come out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from scipy import stats

Ratios = Mapping[str, float]
CONFIDENCE = 0.95
ALLOWED_LOSS = 0.10


@dataclass(frozen=True)
class Goal:
    """What a figure is to reach: `limit` at most, or at `least`; without a unit it is about the ratio."""

    limit: float
    unit: str = ""
    least: bool = False

    def reached(self, measured: float) -> bool:
        return measured >= self.limit if self.least else measured <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g} {self.unit}".strip()


@dataclass(frozen=True)
class Figure:
    """A row of the table; `ratio` (more is better) is what a machine's speed cancels out of.

    `measured` is the value in the goal's unit; a goal without one is about the ratio.
    """

    name: str
    value: str
    against: str = ""
    ratios: Sequence[float] = ()
    goal: Goal | None = None
    key: str | None = None
    measured: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        reached = self.ratio if self.measured is None else self.measured
        return None if self.goal is None or reached is None else self.goal.reached(reached)

    @property
    def ratio(self) -> float | None:
        """The median of the paired ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def at_most(self) -> float:
        """What the median of more such ratios hardly exceeds: on a busy machine they scatter, and only what lies
        below this bound is known to be lost."""
        return upper_bound(self.ratios)


def table(figures: list[Figure], title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for heading in ("measured", "against", "ratio", "goal"):
        shown.add_column(heading, justify="right")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        if len(figure.ratios) > 1:
            ratio += f" ({lower_bound(figure.ratios):.2f} to {figure.at_most:.2f})"
        shown.add_row(figure.name, figure.value, figure.against, ratio, str(figure.goal or ""))
    return shown


def verdicts(figures: Sequence[Figure]) -> list[str]:
    """A line for each goal: met or missed, and by what."""
    lines = []
    for figure in figures:
        if figure.met is not None:
            shown = figure.value if figure.measured is not None else f"{figure.ratio:.2f}"
            lines.append(
                f"{'met   ' if figure.met else 'missed'}  {figure.name}: {shown} (goal: {figure.goal})"
            )
    return lines


def as_json(figures: Sequence[Figure], **about: object) -> str:
    """Everything that was measured, and `about` what on."""
    rows = [
        {**asdict(f), "ratio": f.ratio, "goal": str(f.goal) if f.goal else None, "met": f.met}
        for f in figures
    ]
    return json.dumps({**about, "figures": rows}, indent=1) + "\n"


def upper_bound(values: Sequence[float]) -> float:
    """The smallest order statistic that exceeds the median with CONFIDENCE; the largest where there are too few."""
    count = len(values)
    place = int(stats.binom.ppf(CONFIDENCE, count, 0.5))
    return sorted(values)[min(place, count - 1)]


def lower_bound(values: Sequence[float]) -> float:
    return -upper_bound([-value for value in values])


def bounds_of(figures: list[Figure]) -> dict[str, float]:
    """What --check compares: the most that each ratio may be."""
    return {figure.key: figure.at_most for figure in figures if figure.key and figure.ratios}


def paired(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """How many times as long the others took, turn by turn."""
    return [other / own for own, other in zip(ours, others, strict=True)]


def ratios_of(figures: list[Figure]) -> dict[str, float]:
    return {
        figure.key: round(figure.ratio, 3) for figure in figures if figure.key and figure.ratio is not None
    }


def recorded(file: Path, machine: str) -> dict[str, float] | None:
    """The ratios recorded on such a machine; None where there are none."""
    known: dict[str, dict[str, float]] = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    )
    return known.get(machine)


def record(file: Path, machine: str, ratios: Ratios) -> None:
    """Replaces this machine's ratios and leaves the others'."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    known[machine] = dict(ratios)
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def losses(measured: Ratios, known: Ratios) -> list[str]:
    """A line for each recorded ratio that is missing now or has lost more than a tenth, by the bound measured."""
    lines = []
    for key, before in known.items():
        if key not in measured:
            lines.append(f"{key}: recorded as {before:.2f}, not measured now")
        elif measured[key] < (1 - ALLOWED_LOSS) * before:
            lines.append(
                f"{key}: at most {measured[key]:.2f}, recorded as {before:.2f}: {measured[key] / before - 1:.0%}"
            )
    return lines
