"""One study: a searcher, a budget and a task; `python scripts/sweep.py searcher=tpe budget=smoke`, resumable."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the lab itself; the runs get theirs from executor.threads
os.environ.setdefault("WANDB_SILENT", "true")  # it would print between the rows of the table

import logging
from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from agent.command import launch
from agent.interrupt import on_interrupt
from agent.live import LiveTable
from agent.loop import Loop
from agent.observers import Observer, Observers
from agent.recipe_file import how_to_run
from agent.searchers.base import SearcherStopped
from agent.study import open_study
from agent.tracking import WandbTracker, composed_config

ROOT = Path(__file__).resolve().parent.parent


def main(config: DictConfig) -> None:
    """Runs, or resumes, one study."""
    for chatty in ("httpx2", "wandb"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with ExitStack() as stack:
        loop = open_study(config, ROOT, stack)
        loop.observers = Observers(watchers(config, loop))
        on_interrupt(loop.stop.set, "the trial under way")
        try:
            say_the_end(loop, loop.run())
        except SearcherStopped as error:
            raise SearcherStopped(
                f"{error}\nnothing is lost: the same command goes on once that is mended"
            ) from error


def say_the_end(loop: Loop, reason: str) -> None:
    """Why it ended, the recipe's own command, and where to look next."""
    name, task = loop.ledger.name, loop.workspace.task
    print(f"{reason}; the same command goes on with it" if loop.stop.is_set() else reason)
    if best := loop.ledger.best():
        print(f"recipe, trial {best.number}: {how_to_run(name, task, task.base, best)}")
        print(f"all of it:       make report study={name}")


def watchers(config: DictConfig, loop: Loop) -> list[Observer]:
    """Who sees the study: the table on this terminal, and W&B."""
    seen: list[Observer] = [LiveTable(Console(), loop.ledger.spec.budget)]
    if config.tracker.name == "wandb":
        config_of = composed_config(loop.workspace.task)
        seen.append(WandbTracker(config.tracker.project, loop.folder, config_of))
    return seen


if __name__ == "__main__":
    launch(main, "sweep")
