"""Trains train.py's way and the plain loop's on the same steps and data, and prints what both score.

    python scripts/bench_equal.py                     three seeds of the default recipe on fold 0
    python scripts/bench_equal.py --seeds 0 1 trainer.max_steps=200

Words that hold a `=` are Hydra overrides of train.py. Scores do not depend on what else the machine does.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import argparse

import torch
from rich.console import Console

from eclip import entry  # noqa: F401  # isort: skip (before torch: OpenMP waits here as it does in train.py)

from bench import equal
from bench.workload import ROOT, Workload

EMBEDDED = ("data.prints=6000", "data.test_prints=1000")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "data", help="for the data set and its pack")
    chosen = parser.parse_intermixed_args()
    console = Console(width=max(100, Console().width))
    workload = Workload.prepare([*EMBEDDED, "trainer.threads=1", *chosen.overrides], chosen.folder)
    torch.set_num_threads(workload.settings.trainer.threads or torch.get_num_threads())
    trainer, pairs = workload.settings.trainer, []
    title = (
        f"{workload.settings.model.name}, {trainer.max_steps} steps of {trainer.batch_size}, "
        f"fold {workload.data.fold}, {workload.data.candidates} candidates"
    )
    for seed in chosen.seeds:
        pairs.append(equal.compare(workload, seed))
        console.print(equal.table(pairs, title))


if __name__ == "__main__":
    main()
