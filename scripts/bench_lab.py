"""The lab's own time a trial at trial 1,000: `python scripts/bench_lab.py [trials] [searcher …]`; nothing is trained.

Ask, checks, workspace, ledger and judge are the real ones, on a clone of this repository with the eCLIP task; only
the run is replaced, by embeddings of 2,000 candidates that the judge scores. The goal is 0.5 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as scripts/sweep.py does

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from agent.acceptance import from_config
from agent.experiment import Experiment
from agent.ledger import Ledger, Owner, StudyLedger, StudySpec
from agent.loop import Loop
from agent.observers import Observers
from agent.records import Budget, Charges, Measurement, Outcome, Proposal, Trial, Verdict
from agent.runner import Run
from agent.space import Space
from agent.task import Task
from agent.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
CANDIDATES, WIDTH, MEASURED = 2000, 128, 5
GOAL = 0.5


@dataclass
class InstantRunner:
    """Takes the place of agent.runner.Runner: no process, but the task's judge on the host."""

    task: Task
    key: Path
    dice: np.random.Generator

    def run(self, code: Path, arguments: Any, *, seed: int, fold: int, folder: Path, stop: Any = None) -> Run:
        sides = {
            f"fold{fold}.{side}": self.dice.normal(size=(CANDIDATES, WIDTH)) for side in ("image", "text")
        }
        metrics = self.task.function("judge")(sides, self.key)
        curve = tuple({"step": float(step), "loss": 1.0} for step in range(200))
        return Run(
            "completed", 20.0, Measurement(seed, fold, metrics[self.task.metric], metrics), 19.0, curve=curve
        )


def fill(ledger: StudyLedger, space: Space, trials: int, owner: str) -> None:
    """A history of `trials` completed trials, the reference first."""
    dice = np.random.default_rng(0)
    for number in range(trials):
        route = "sampler" if number else "reference"
        proposal = Proposal(
            {"optimizer.lr": float(dice.uniform(1e-4, 1e-2))} if number else {}, base="reference", route=route
        )
        measured = tuple(Measurement(0, fold, float(dice.normal(500, 5))) for fold in range(3))
        at = ledger.start(
            proposal, overrides=proposal.overrides, params={**space.defaults, **proposal.overrides},
            distributions=space.distributions, owner=owner,
        )  # fmt: skip
        verdict = Verdict("reverted", 0.1, 1.0, 0) if number else Verdict("reference")
        outcome = Outcome("completed", sum(m.score for m in measured) / 3, measured)
        ledger.finish(Trial(at, proposal, proposal.overrides, outcome, verdict, Charges(60.0, 55.0, 0.0, 3)))


def measure(searcher: str, trials: int, folder: Path) -> list[float]:
    """Seconds of the loop for each of a few trials that follow a history of `trials`."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "repository")], check=True)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        words = [f"searcher={searcher}", "searcher_name=bench", "budget_name=bench", "study=bench"]
        plain: Any = OmegaConf.to_container(compose("sweep", words).copy(), resolve=False)
    task = Task.from_mapping(plain["task"], folder / "repository")
    space = Space.from_mapping(plain["space"], task)
    owner = str(Owner.here())
    spec = StudySpec(searcher, 0, Budget(trials + MEASURED - 1, 60.0), task.name)
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db").study("bench", create=spec)
    fill(ledger, space, trials, owner)
    key = folder / "key.safetensors"
    dice = np.random.default_rng(1)
    save_file({f"{side}_order": dice.permutation(CANDIDATES) for side in ("image", "text")}, key)
    runner: Any = InstantRunner(task, key, dice)
    make = instantiate(OmegaConf.create(plain["searcher"]), _partial_=True, _convert_="all")
    with Workspace.create(task, "bench", folder / "runs") as workspace:
        stop = threading.Event()
        rule = from_config(plain["acceptance"] | {"max_reruns": 0}, task.direction, task.scale)
        experiment = Experiment(runner, rule, [0], stop)
        loop = Loop(
            ledger, make(space=space, seed=0, direction=task.direction), space, experiment, workspace,
            folder / "runs" / "bench", owner, Observers(), stop,
        )  # fmt: skip
        seconds, began = [], time.perf_counter()
        for _ in loop.steps():
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
    return seconds[1:]  # the first reads the whole history once


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    table = Table(
        title=f"the lab's own time a trial at trial {trials}, judge included, seconds", title_justify="left"
    )
    for heading in ("searcher", "median", "most", "goal"):
        table.add_column(heading, justify="left" if heading == "searcher" else "right")
    for searcher in sys.argv[2:] or ["random", "tpe", "cmaes"]:
        with tempfile.TemporaryDirectory(prefix="bench-lab-") as folder:
            found = measure(searcher, trials, Path(folder))
        table.add_row(searcher, f"{statistics.median(found):.2f}", f"{max(found):.2f}", f"{GOAL:g}")
    Console().print(table)


if __name__ == "__main__":
    main()
