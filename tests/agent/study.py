"""A whole study of the toy task in a folder of its own, as tests and the kill test's subprocess start it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.acceptance import from_config
from agent.executors.base import Executor
from agent.executors.local import Local
from agent.experiment import Experiment
from agent.ledger import Ledger, Owner, StudyLedger, StudySpec
from agent.loop import Loop
from agent.observers import Observer, Observers
from agent.records import Budget
from agent.runner import Runner
from agent.sandbox import Bubblewrap, Limits, Sandbox, Unsandboxed
from agent.searchers.base import Searcher
from agent.searchers.queue import queue
from agent.searchers.samplers import random
from agent.study import seal
from agent.task import Task
from agent.workspace import Workspace
from tests.fake_task.fixture import toy_repository, toy_space, toy_task

LIMITS = {
    "memory_bytes": 2**30,
    "file_bytes": 2**26,
    "disk_bytes": 2**27,
    "inodes": 1000,
    "log_bytes": 2**20,
    "log_kill_bytes": 2**24,
    "shm_bytes": 2**24,
    "tmp_bytes": 2**26,
}
GREEDY = {"name": "greedy", "floor_seeds": 1, "hopeless_below": 0.001}


def toy(folder: Path) -> Task:
    """The toy as the only content of a fresh git repository, or the one that is there."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        toy_repository(folder)
    return toy_task(folder)


@contextmanager
def toy_loop(
    folder: Path,
    proposals: Sequence[dict[str, Any]] | None = None,
    *,
    name: str = "toy",
    sandbox: Sandbox | None = None,
    trials: int = 100,
    seconds: float = 30.0,
    acceptance: dict[str, Any] = GREEDY,
    observers: Sequence[Observer] = (),
    training_seeds: Sequence[int] = (0, 1, 2),
    wall_factor: float = 1.0,
    setup_seconds: float = 20.0,
    folds: Sequence[int] = (0, 1, 2),
    seed: int = 0,
    workers: int = 1,
    executor: Executor | None = None,
    url: str = "",
    searcher: Searcher | None = None,
) -> Iterator[Loop]:
    """`proposals` go through a queue; without them `searcher` proposes, or the random one."""
    task, space = replace(toy(folder / "repository"), folds=tuple(folds)), toy_space()
    sandbox = sandbox or Unsandboxed()
    budget = Budget(trials, seconds, wall_factor=wall_factor, setup_seconds=setup_seconds)
    spec = StudySpec("toy", seed, budget, "toy", training_seeds=tuple(training_seeds), sandbox=sandbox.name)
    ledger = Ledger.open(url or f"sqlite:///{folder}/ledger.db").study(name, create=spec)
    if searcher is not None:
        pass
    elif proposals is None:
        searcher = random(space=space, seed=seed)
    else:
        lines = folder / f"{name}.jsonl"
        lines.write_text("".join(json.dumps(proposal) + "\n" for proposal in proposals))
        searcher = queue(space=space, seed=0, path=str(lines))
    enter = Workspace.open if Workspace.exists(task, name) else Workspace.create
    stop = threading.Event()
    with ExitStack() as stack, enter(task, name, folder / "runs") as workspace:
        runner = Runner(
            task=task,
            sandbox=sandbox,
            limits=lambda wall: Limits(wall_seconds=wall, **LIMITS),
            budget=budget,
            sealed=seal(task, folder / "vault"),
            environment={"OMP_NUM_THREADS": "1"},
        )
        runners = (executor or Local(workers, threads=1)).runners(runner, stack)
        rule = from_config(acceptance, task.direction, task.scale)
        yield Loop(
            ledger=ledger,
            searcher=searcher,
            space=space,
            experiment=Experiment(runners[0], rule, list(training_seeds), stop),
            workspace=workspace,
            folder=folder / "runs" / name,
            owner=str(Owner.here()),
            observers=Observers(observers),
            stop=stop,
            runners=runners,
        )


def accounts(ledger: StudyLedger) -> None:
    """What must hold of a study at its end, whatever happened on the way."""
    trials = ledger.trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    for trial in trials:
        assert trial.outcome is not None, f"trial {trial.number} never ended"
        assert trial.verdict is not None
        noted = sum(item.charged_seconds for item in trial.outcome.measurements)
        assert trial.charges.seconds >= noted
    assert not ledger.unfinished()


if __name__ == "__main__":
    trials, workers = int(sys.argv[2]), int((*sys.argv, "1")[3])
    with toy_loop(Path(sys.argv[1]), trials=trials, sandbox=Bubblewrap(), workers=workers) as loop:
        print(loop.run())
