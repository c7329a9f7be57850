"""Measured figures go in; a Rich table, the ratios to keep, and what was lost against recorded ratios come out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

Ratios = Mapping[str, float]
ALLOWED_LOSS = 0.10


@dataclass(frozen=True)
class Figure:
    """A row of the table; `ratio` (more is better) is what a machine's speed cancels out of."""

    name: str
    value: str
    against: str = ""
    ratio: float | None = None
    goal: str = ""
    key: str | None = None


def table(figures: list[Figure], title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for heading in ("measured", "against", "ratio", "goal"):
        shown.add_column(heading, justify="right")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        shown.add_row(figure.name, figure.value, figure.against, ratio, figure.goal)
    return shown


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
    """A line for each recorded ratio that is missing now or has lost more than a tenth."""
    lines = []
    for key, before in known.items():
        if key not in measured:
            lines.append(f"{key}: recorded as {before:.2f}, not measured now")
        elif measured[key] < (1 - ALLOWED_LOSS) * before:
            lines.append(
                f"{key}: {measured[key]:.2f}, recorded as {before:.2f}: {measured[key] / before - 1:.0%}"
            )
    return lines
