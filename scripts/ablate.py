"""What each kept change of a recipe is worth in the end; `python scripts/ablate.py studies=[tpe-cpu-0]`."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the lab itself; the runs get theirs from executor.threads

from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from agent.ablation import Ablation, Effect, keep_rates
from agent.campaign import studies_of
from agent.command import launch
from agent.interrupt import on_interrupt
from agent.ledger import StudyLedger
from agent.retraining import open_retraining
from agent.study import open_ledger

ROOT = Path(__file__).resolve().parent.parent


def main(config: DictConfig) -> None:
    """Takes every study's recipe apart and shows what its changes are worth."""
    settings = config.ablate
    with ExitStack() as stack:
        room = open_retraining(config, ROOT, stack)
        on_interrupt(room.stop.set, "the run under way")
        ledgers = studies_of(config, open_ledger(config, ROOT))
        found = Ablation(room, ledgers, list(settings.seeds), settings.by, settings.minimal).run()
    for ledger in ledgers:
        show(ledger, found[ledger.name])


def show(ledger: StudyLedger, effects: list[Effect]) -> None:
    """Effects, the greatest first, and what share of each phase's and category's proposals was kept."""
    console = Console()
    table = Table("change", "trial", "effect", "95 % interval", "", title=ledger.name, box=None)
    for effect in sorted(effects, key=lambda effect: -effect.mean):
        verdict = "helps" if effect.needed else "hurts" if effect.high < 0 else "not shown to help"
        interval = f"{effect.low:+.4f} to {effect.high:+.4f}"
        table.add_row(effect.change, str(effect.trial), f"{effect.mean:+.4f}", interval, verdict)
    console.print(table)
    for by in ("phase", "category"):
        rates = keep_rates(ledger.trials(), by)
        shown = ", ".join(f"{name} {kept} of {tried}" for name, (kept, tried) in sorted(rates.items()))
        console.print(f"kept by {by}: {shown}", highlight=False)


if __name__ == "__main__":
    launch(main, "ablate")
