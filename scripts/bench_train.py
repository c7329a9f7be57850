"""Prints how fast train.py is against a bare loop and a plain one, how soon it starts, packs and evaluates.

    python scripts/bench_train.py                     what `make bench` runs, some minutes
    python scripts/bench_train.py --check             fails where a ratio lost a tenth of the recorded one
    python scripts/bench_train.py --record            keeps this machine's ratios
    python scripts/bench_train.py --gpu               what `make bench-gpu` runs: the published model and sizes
    python scripts/bench_train.py --million           and a million pairs evaluated, by extrapolation

Words that hold a `=` are Hydra overrides of train.py. Everything is measured in turns, medians are shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import argparse

from rich.console import Console

from eclip import entry  # noqa: F401  # isort: skip (before torch: OpenMP waits here as it does in train.py)

from bench import figures
from bench.suite import Suite
from bench.workload import FOLD_PRINTS, PUBLISHED, PUBLISHED_PRINTS, ROOT

RECORDED_FILE = ROOT / "scripts" / "bench_recorded.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--lap", type=int, default=None, help="steps until the loops take turns")
    parser.add_argument("--laps", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3, help="of start, pack and evaluation")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "bench", help="for prints and packs")
    parser.add_argument("--prints", type=int, default=None, help="training prints of the loops")
    parser.add_argument("--only", choices=("steps",), help="the loops alone")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--recorded", type=Path, default=RECORDED_FILE, help="the file of recorded ratios")
    chosen = parser.parse_args()
    console = Console(width=max(100, Console().width))
    published, prints = (PUBLISHED, PUBLISHED_PRINTS) if chosen.gpu else ((), FOLD_PRINTS)
    suite = Suite.of([*published, *chosen.overrides], chosen.folder, chosen.prints or prints)
    # a GPU is faster than the turns are taken
    lap = chosen.lap or (50 if suite.device.type == "cuda" else 6)
    measured = (
        suite.steps(lap, chosen.laps) if chosen.only else suite.measure(lap, chosen.laps, chosen.repeats)
    )
    if chosen.million:
        measured += suite.million((8_192, 16_384))
    console.print(figures.table(measured, f"{suite.machine}: {suite.work}"))
    key = f"{suite.machine}: {suite.work}"
    if chosen.record:
        figures.record(chosen.recorded, key, figures.ratios_of(measured))
    return check(console, chosen.recorded, key, figures.bounds_of(measured)) if chosen.check else 0


def check(console: Console, file: Path, key: str, bounds: figures.Ratios) -> int:
    """Exit status: 1 for a loss, 2 where nothing is recorded to compare with."""
    known = figures.recorded(file, key)
    if known is None:
        console.print(f"nothing is recorded for {key}: run with --record first")
        return 2
    lost = figures.losses(bounds, known)
    console.print("\n".join(lost) or f"no ratio lost more than {figures.ALLOWED_LOSS:.0%}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
