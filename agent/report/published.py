"""The published run: its log leaves as rows, and as levels relative to its reference."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("published.csv")
TASK = "eclip"  # whose log it is
REFERENCE = 1  # the eCLIP baseline; row 0 is CLIP without experts


@dataclass(frozen=True)
class Row:
    """One experiment: its number in the log, what it changed, the mean rank, and what became of it."""

    number: int
    change: str
    mean_rank: float
    verdict: str


def rows() -> list[Row]:
    """The public log in order, and at its end the averaging of weights that followed."""
    with FILE.open(encoding="utf-8", newline="") as file:
        read = csv.DictReader(file)
        return [Row(int(r["number"]), r["change"], float(r["mean_rank"]), r["verdict"]) for r in read]


def staircase() -> list[tuple[int, float]]:
    """(number, best mean rank so far / reference's), counted from the reference as 0."""
    reference = _reference()
    kept = [row for row in rows() if row.verdict == "kept"]
    return [(0, 1.0), *((row.number - REFERENCE, row.mean_rank / reference) for row in kept)]


def levels() -> dict[str, float]:
    """The published bests as shares of the reference: "324.61" -> 0.942, …, "157.43" -> 0.457."""
    reference = _reference()
    kept = [row for row in rows() if row.verdict in ("kept", "afterwards")]
    return {f"{row.mean_rank:.2f}": row.mean_rank / reference for row in kept}


def _reference() -> float:
    return next(row.mean_rank for row in rows() if row.number == REFERENCE)
