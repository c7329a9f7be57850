"""Winners and reference trained again on fresh seeds; `python scripts/confirm.py studies=[compare-smoke-*]`."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the lab itself; the runs get theirs from executor.threads

from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig

from agent.campaign import studies_of
from agent.command import launch
from agent.confirmation import Confirmation
from agent.interrupt import on_interrupt
from agent.report import load
from agent.report.comparison import to_confirm
from agent.retraining import Retraining, open_retraining
from agent.study import open_ledger

ROOT = Path(__file__).resolve().parent.parent


def main(config: DictConfig) -> None:
    """Confirms every study named; then each winner reads the test set once."""
    with ExitStack() as stack:
        room = open_retraining(config, ROOT, stack)
        on_interrupt(room.stop.set, "the run under way")
        confirm(room, config)


def confirm(room: Retraining, config: DictConfig) -> None:
    """All that is still to be measured, then the test set."""
    ledgers, settings = studies_of(config, open_ledger(config, ROOT)), config.confirm
    campaign = load(open_ledger(config, ROOT), [ledger.name for ledger in ledgers], room.task.scale)
    # where studies were charged unequally, their recipes at equal charges are compared, too
    trials = to_confirm(campaign)
    confirmation = Confirmation(room, ledgers, list(settings.seeds), list(settings.budget_factors), trials)
    confirmation.measure()
    if settings.test:
        confirmation.read_test(settings.again)


if __name__ == "__main__":
    launch(main, "confirm")
