"""One study: a searcher, a budget and a task; `python scripts/sweep.py searcher=tpe budget=smoke`, resumable."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the lab itself; the runs get theirs from executor.threads
os.environ.setdefault("WANDB_SILENT", "true")  # it would print between the rows of the table

import logging
import sys
from contextlib import ExitStack
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from agent.interrupt import on_interrupt
from agent.live import LiveTable
from agent.loop import Loop, StudyFailed
from agent.observers import Observer, Observers
from agent.recipe_file import how_to_run
from agent.sandbox import SandboxUnavailable
from agent.searchers.base import SearcherStopped
from agent.study import open_study
from agent.tracking import WandbTracker, composed_config

ROOT = Path(__file__).resolve().parent.parent


@hydra.main(version_base="1.3", config_path="../configs", config_name="sweep")
def main(config: DictConfig) -> None:
    """Runs, or resumes, one study."""
    for chatty in ("httpx2", "wandb"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    loop = None
    try:
        with ExitStack() as stack:
            loop = open_study(config, ROOT, stack)
            loop.observers = Observers(watchers(config, loop))
            on_interrupt(loop.stop.set, "the trial under way")
            print(
                f"{loop.run()}; the same command resumes, python scripts/status.py study={loop.ledger.name} shows"
            )
            if best := loop.ledger.best():
                task = loop.workspace.task
                print(
                    f"the recipe, trial {best.number}: {how_to_run(loop.ledger.name, task, task.base, best)}"
                )
    except (SandboxUnavailable, StudyFailed, SearcherStopped, ValueError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if loop is not None and isinstance(error, SearcherStopped):
            print("nothing is lost: the same command goes on once that is mended", file=sys.stderr)
        sys.exit(1)


def watchers(config: DictConfig, loop: Loop) -> list[Observer]:
    """Who sees the study: the table on this terminal, and W&B."""
    seen: list[Observer] = [LiveTable(Console(), loop.ledger.spec.budget)]
    if config.tracker.name == "wandb":
        config_of = composed_config(loop.workspace.task)
        seen.append(WandbTracker(config.tracker.project, loop.folder, config_of))
    return seen


if __name__ == "__main__":
    main()
