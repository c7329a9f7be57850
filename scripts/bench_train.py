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
import gc
import re

from rich.console import Console

from eclip import entry  # noqa: F401  # isort: skip (before torch: OpenMP waits here as it does in train.py)

import torch

from bench import figures
from bench.suite import Part, Suite
from bench.workload import FOLD_PRINTS, PUBLISHED, PUBLISHED_PRINTS, ROOT
from eclip.gpu import why_no_gpu
from eclip.run_directory import commit_of

RECORDED_FILE = ROOT / "scripts" / "bench_recorded.json"
OUTPUTS = ROOT / "outputs" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--lap", type=int, default=None, help="steps until the loops take turns")
    parser.add_argument("--laps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3, help="of start, pack and evaluation")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "bench", help="for prints and packs")
    parser.add_argument("--prints", type=int, default=None, help="training prints of the loops")
    parser.add_argument("--only", choices=("steps",), help="the loops alone")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--million", action="store_true")
    parser.add_argument(
        "--json", type=Path, help="where to write all figures; on a GPU outputs/bench/DEVICE.json"
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--recorded", type=Path, default=RECORDED_FILE, help="the file of recorded ratios")
    chosen = parser.parse_args()
    console = Console(width=max(100, Console().width))
    if chosen.gpu and not torch.cuda.is_available():
        console.print(
            f"make bench-gpu needs a GPU: {why_no_gpu()}.\n`make bench` measures what a CPU can show."
        )
        return 2
    published, prints = (PUBLISHED, PUBLISHED_PRINTS) if chosen.gpu else ((), FOLD_PRINTS)
    suite = Suite.of([*published, *chosen.overrides], chosen.folder, chosen.prints or prints)
    # the first step after a turn finds the caches full of others' data (a lap of 6 steps: 2 % of train.py's time)
    lap = chosen.lap or (50 if suite.device.type == "cuda" else 18)
    parts = suite.parts(lap, chosen.laps, chosen.repeats)
    if chosen.million and not chosen.gpu:
        parts["a million pairs"] = lambda: suite.million((8_192, 16_384))
    measured, failed = measure(console, {"three loops": parts["three loops"]} if chosen.only else parts)
    key = f"{suite.machine}: {suite.work}"
    console.print(figures.table(measured, key))
    console.print("\n".join(figures.verdicts(measured)), markup=False, highlight=False)
    if chosen.gpu or chosen.json:
        write(console, chosen.json or OUTPUTS / f"{slug(suite.machine)}.json", suite, measured, failed)
    if chosen.record:
        figures.record(chosen.recorded, key, figures.ratios_of(measured))
    status = check(console, chosen.recorded, key, figures.bounds_of(measured)) if chosen.check else 0
    return 1 if failed else status


def measure(console: Console, parts: dict[str, Part]) -> tuple[list[figures.Figure], dict[str, str]]:
    """(all figures, part -> why it failed): what one part meets costs the others nothing."""
    measured: list[figures.Figure] = []
    failed: dict[str, str] = {}
    for name, part in parts.items():
        console.print(f"[dim]measuring: {name}[/dim]")
        try:
            measured += part()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:500]
            console.print_exception(max_frames=4)
        gc.collect()  # Lightning's circles of references hold a GPU's memory
        torch.cuda.empty_cache()  # which runs in processes of their own need, too
    for name, reason in failed.items():
        console.print(f"not measured: {name}: {reason}", markup=False)
    return measured, failed


def write(
    console: Console, file: Path, suite: Suite, measured: list[figures.Figure], failed: dict[str, str]
) -> None:
    about = {"device": suite.machine, "work": suite.work, "torch": torch.__version__, "cuda": torch.version.cuda,
             "commit": commit_of(ROOT), "command": " ".join(sys.argv), "failed": failed}  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(figures.as_json(measured, **about), encoding="utf-8")
    console.print(f"written to {file}")


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


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
