"""python scripts/simulate_acceptance.py: what each acceptance rule does to pure noise and to real gains.

Noise as the published run shows it (folds vary by 2-4 % of the mean). Prints false keeps in 100 proposals
that do nothing, the chance to keep a real gain, what re-running costs, and what a study's last score claims
against what it really gained.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from agent.acceptance import Acceptance, from_config
from agent.simulation import WORLDS, false_keeps, power, whole_studies

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "acceptance"


def rule_named(name: str) -> Acceptance:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return from_config(config, "minimize", "log")


def noise_table(studies: int, seed: int) -> Table:
    table = Table(title="100 proposals that do nothing: false keeps a study")
    for column in ("noise", "rule", "mean", "95 % quantile", "most", "runs a proposal"):
        table.add_column(column, justify="left" if column in ("noise", "rule") else "right")
    for title, world in WORLDS.items():
        for name in ("greedy", "paired"):
            counts, runs = false_keeps(rule_named(name), world, 100, studies, seed)
            figures = (
                f"{counts.mean():.2f}",
                f"{np.quantile(counts, 0.95):.0f}",
                f"{counts.max()}",
                f"{runs:.2f}",
            )
            table.add_row(title, name, *figures)
    return table


def power_table(studies: int, seed: int) -> Table:
    gains = (0.0, 0.02, 0.05, 0.10, 0.20)
    table = Table(title="Chance that a proposal is kept, by its real gain")
    for column in ("noise", "rule", *(f"{gain:.0%}" for gain in gains)):
        table.add_column(column, justify="left" if column in ("noise", "rule") else "right")
    for title, world in list(WORLDS.items())[:3]:
        for name in ("greedy", "paired"):
            found = (power(rule_named(name), world, gain, studies, seed) for gain in gains)
            table.add_row(title, name, *(f"{value:.0%}" for value in found))
    return table


def study_table(studies: int, seed: int) -> Table:
    table = Table(title="Studies of 42 runs, mixed proposals (1/6 gain 1-10 %, 1/2 nothing, 1/3 harm 1-10 %)")
    for column in ("noise", "rule", "kept", "of them no gain", "real gain", "claimed gain", "runs"):
        table.add_column(column, justify="left" if column in ("noise", "rule") else "right")
    for title, world in list(WORLDS.items())[:3]:
        for name in ("greedy", "paired"):
            row = whole_studies(rule_named(name), world, studies, seed)
            shares = (f"{1 - math.exp(-row[key]):.1%}" for key in ("gained", "claimed"))
            table.add_row(
                title, name, f"{row['kept']:.1f}", f"{row['false']:.1f}", *shares, f"{row['runs']:.0f}"
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console()
    for table in (noise_table, power_table, study_table):
        console.print(table(options.studies, options.seed))


if __name__ == "__main__":
    main()
