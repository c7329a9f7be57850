"""Prints how soon a sandboxed run trains, started cold and forked from a process that has its libraries imported.

    python scripts/bench_start.py                     what `make bench` runs: start, end and memory, in turns
    python scripts/bench_start.py --beside            what a run loses while libraries are imported beside it
    python scripts/bench_start.py --trial cpu         one trial of that budget: training seconds / charged seconds

Words that hold a `=` are Hydra overrides of the task's reference (data.root=…, trainer.threads=2).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from agent.records import Budget
from agent.runner import Run, Runner
from agent.sandbox import RUN_DIR, Bubblewrap, Limits
from agent.study import run_environment, seal
from agent.task import Task

ROOT = Path(__file__).resolve().parent.parent
GOAL_SECONDS = 1.0
GOALS = {"five_minutes": 0.95, "cpu": 0.80}
# what a run does, by the clock that it shares with the host
STAMP = """
import time
from pathlib import Path
from lightning.pytorch import Callback

class Stamp(Callback):
    def __init__(self, folder):
        self.folder = Path(folder)
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 0:
            (self.folder / "first").write_text(str(time.monotonic()))
    def on_train_end(self, *_):
        (self.folder / "last").write_text(str(time.monotonic()))
"""


@dataclass
class Bench:
    """A copy of this checkout's code, its sealed folds, and both ways to start it."""

    folder: Path
    task: Task
    runners: dict[str, Runner]

    def run(self, way: str, *overrides: str, fold: int = 0, budget: Budget | None = None) -> tuple[Run, Path]:
        """One run, and its folder. Raises RuntimeError for one that was not completed."""
        folder = self.folder / way
        runner = self.runners[way] if budget is None else replace(self.runners[way], budget=budget)
        run = runner.run(
            self.folder / "code", [*self.task.base, *overrides], seed=0, fold=fold, folder=folder
        )
        if run.status != "completed":
            raise RuntimeError(f"{way}: {run.status}: {run.reason}\n{run.log_tail}")
        return run, folder / "run"

    def stamped(self, way: str) -> tuple[float, float]:
        """Seconds from the call to the first step, and from the last step to the judged score."""
        began = time.monotonic()
        stamp = ("+callbacks.stamp._target_=stamp.Stamp", f"+callbacks.stamp.folder={RUN_DIR}")
        _, left = self.run(way, "trainer.max_steps=2", *stamp)
        ended = time.monotonic()
        first, last = (float((left / name).read_text()) for name in ("first", "last"))
        return first - began, ended - last


@contextmanager
def opened(overrides: Sequence[str], threads: int | None) -> Iterator[Bench]:
    task = Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT)
    task = replace(task, base=(*task.base, *overrides))
    limits = yaml.safe_load((ROOT / "configs" / "sandbox" / "_limits.yaml").read_text())["limits"]
    sealed = seal(task, ROOT / "data" / "vault")
    environment = run_environment(threads)
    warm = Bubblewrap(warm=True)
    with tempfile.TemporaryDirectory(prefix="bench-start-") as name, closing(warm):
        code = Path(name, "code")
        for part in ("configs", "src"):
            shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "train.py", code)
        (code / "stamp.py").write_text(STAMP)
        (code / ".git").touch()
        Path(name).chmod(0o755)

        def runner(sandbox: Bubblewrap) -> Runner:
            return Runner(
                task, sandbox, lambda wall: Limits(wall_seconds=wall, **limits), Budget(1, 600.0), sealed,
                environment, notice=lambda text: print(text, file=sys.stderr), keep=("first", "last"),
            )  # fmt: skip

        yield Bench(Path(name), task, {"cold": runner(Bubblewrap()), "warm": runner(warm)})


def start(bench: Bench, repeats: int) -> Table:
    bench.stamped("warm")  # starts the server
    server = next(child for child in psutil.Process().children() if "/dev/fd/" in str(child.cmdline()))
    memory = server.memory_full_info()
    times: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        for way, found in times.items():
            found.append(bench.stamped(way))
    table = Table(
        title=f"a run of two steps in the sandbox; the server takes {memory.rss >> 20} MiB, of which its own "
        f"{memory.uss >> 20} MiB",
        title_justify="left",
    )
    for heading in ("", "to the first step", "worst", "last step to score", "goal"):
        table.add_column(heading, justify="right")
    for way, found in times.items():
        first, last = zip(*found, strict=True)
        cells = (statistics.median(first), max(first), statistics.median(last))
        table.add_row(
            way, *(f"{value:.2f} s" for value in cells), f"{GOAL_SECONDS:g} s" if way == "warm" else ""
        )
    return table


def beside(bench: Bench, rounds: int, seconds: float = 6.0) -> Table:
    """Steps of a run on all cores: alone, and beside an import of the libraries."""
    assert bench.task.preload is not None
    importing = "import torch, torch._dynamo, torch.optim; print(len(__import__('sys').modules))"
    others = {"alone": None, "beside an import": [], "beside an import, nice 19": ["nice", "-n", "19"]}
    steps: dict[str, list[int]] = {name: [] for name in others}
    budget = Budget(1, seconds * len(bench.task.folds))
    for _ in range(rounds):
        for name, prefix in others.items():
            other: subprocess.Popen[Any] | None = None
            if prefix is not None:
                command = f'sleep 2; exec {" ".join(prefix)} {sys.executable} -c "{importing}"'
                other = subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL)
            _, left = bench.run("warm", "trainer.max_steps=100000", budget=budget)
            if other is not None:
                other.wait()
            steps[name].append(json.loads((left / "result.json").read_text())["steps"])
    table = Table(title=f"steps in {seconds:g} s of training", title_justify="left")
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("each", justify="right")
    for name, found in steps.items():
        table.add_row(name, f"{statistics.median(found):.0f}", " ".join(map(str, found)))
    return table


def trial(bench: Bench, name: str) -> Table:
    """The reference under a budget of configs/budget, all folds, forked and cold."""
    values = yaml.safe_load((ROOT / "configs" / "budget" / f"{name}.yaml").read_text())
    table = Table(title=f"one trial of the reference at budget={name}", title_justify="left")
    for heading in ("", "training", "charged", "efficiency", "goal", "mean rank"):
        table.add_column(heading, justify="right")
    for way in ("warm", "cold"):
        runs = [bench.run(way, fold=fold, budget=Budget(**values))[0] for fold in bench.task.folds]
        training, charged = sum(run.train_seconds for run in runs), sum(run.seconds for run in runs)
        score = statistics.mean(run.measurement.score for run in runs if run.measurement)
        goal = f"{GOALS[name]:.0%}" if name in GOALS else ""
        table.add_row(
            way, f"{training:.1f} s", f"{charged:.1f} s", f"{training / charged:.1%}", goal, f"{score:.1f}"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="of a run; one a core")
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--trial", metavar="BUDGET")
    chosen = parser.parse_args()
    with opened(chosen.overrides, chosen.threads) as bench:
        if chosen.trial:
            table = trial(bench, chosen.trial)
        else:
            table = beside(bench, chosen.repeats) if chosen.beside else start(bench, chosen.repeats)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
