"""The lab's own time a trial at trial 1,000: `python scripts/bench_lab.py [trials] [searcher …]`; nothing is trained.

Everything is real (sweep.py's settings, a clone of this repository, SQLite, the live table) but the training run:
what it would leave behind, embeddings of 2,000 candidates among it, lies ready for the judge. Most of the history
is copies of trials that the loop itself wrote, with other values and scores, so that it reads just what it would
read after so many trials. The goal is 0.5 s a trial on one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as scripts/sweep.py does

import copy
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial
from rich.console import Console
from safetensors.numpy import save_file

from agent.acceptance import from_config
from agent.claims import open_run_dir
from agent.experiment import Experiment
from agent.ledger import Ledger, Owner, StudyLedger, StudySpec
from agent.live import LiveTable
from agent.loop import Loop
from agent.observers import Observers
from agent.records import Budget, Measurement
from agent.runner import Run
from agent.searchers.base import active
from agent.space import Space
from agent.task import Task
from agent.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
CANDIDATES, WIDTH, POINTS = 2000, 128, 200
# trials that the loop writes before they are copied, and those that are timed
WRITTEN, MEASURED = 4, 7
GOAL = 0.5
SEARCHERS = ("random", "tpe", "cmaes", "playbook", "queue")
# gp is asked for by name: what it fits grows with the cube of the history
TITLE = """the lab's own time a trial at trial {trials}: milliseconds, median of {measured}; goal: all below {goal:g}
checks: and the loop itself; table: the live table; cpu: the processor's time for all of it, git's included;
resuming: reading the whole history, once a start"""
PARTS = ("ask", "checks", "workspace", "ledger", "judge", "table")


class Clock:
    """Seconds by part. A part that calls another one is not charged for it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack = ["checks"]
        self._since = time.perf_counter()
        self._cpu = sum(os.times()[:4])

    def watch(self, thing: Any, part: str, names: Sequence[str]) -> None:
        """Charge these methods of `thing` to `part`."""
        for name in names:
            setattr(thing, name, self._timed(getattr(thing, name), part))

    def lap(self) -> dict[str, float]:
        """Seconds by part since the last lap; "cpu" is the processor's time, git's included."""
        self._switch()
        found, self.seconds = self.seconds, defaultdict(float)
        before, self._cpu = self._cpu, sum(os.times()[:4])
        found["cpu"] = self._cpu - before
        return found

    def _timed(self, method: Any, part: str) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            self._switch()
            self._stack.append(part)
            try:
                return method(*arguments, **named)
            finally:
                self._switch()
                self._stack.pop()

        return timed

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now


@dataclass
class ReadyRunner:
    """In the place of agent.runner.Runner: no process, only the reading and judging of what one would leave."""

    task: Task
    folder: Path
    dice: np.random.Generator

    @classmethod
    def prepare(cls, task: Task, folder: Path) -> ReadyRunner:
        dice = np.random.default_rng(1)
        folder.mkdir()
        for fold in task.folds:
            sides = {
                f"fold{fold}.{side}": dice.normal(size=(CANDIDATES, WIDTH)).astype(np.float32)
                for side in ("image", "text")
            }
            save_file(sides, folder / f"{fold}.safetensors")
        save_file(
            {f"{side}_order": dice.permutation(CANDIDATES) for side in ("image", "text")}, folder / "key"
        )
        return cls(task, folder, dice)

    def run(self, code: Path, arguments: Any, *, seed: int, fold: int, folder: Path, stop: Any = None) -> Run:
        with open_run_dir(self.folder) as claims:
            embeddings = claims.read_embeddings(f"{fold}.safetensors")
        metrics = self.task.function("judge")(embeddings, self.folder / "key")
        # about as far from one another as trials are
        score = float(metrics[self.task.metric] * self.dice.normal(1.0, 0.05))
        names = ("seconds", "loss", "learning_rate", "logit_scale", "gradient_norm")
        curve = tuple({"step": float(step), **dict.fromkeys(names, 1 / (step + 3))} for step in range(POINTS))
        measurement = Measurement(seed, fold, score, metrics, 19.0, 20.0, 2**30)
        return Run("completed", 20.0, measurement, 19.0, curve=curve)


@dataclass
class Place:
    """A clone of this repository with a ledger that holds `trials` trials of the study "bench"."""

    folder: Path
    trials: int
    plain: dict[str, Any]

    @classmethod
    def prepare(cls, folder: Path, trials: int) -> Place:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "repository")], check=True)
        place = cls(folder, trials, settings("random"))
        ReadyRunner.prepare(place.task(), folder / "left")
        loop = place.loop("random", "ledger.db", WRITTEN)
        with loop.workspace:
            loop.run()
        copies(loop.ledger, loop.space, trials)
        return place

    def task(self) -> Task:
        return Task.from_mapping(self.plain["task"], self.folder / "repository")

    def loop(self, searcher: str, ledger: str, trials: int) -> Loop:
        plain, task = settings(searcher, f"{self.folder}/ideas.jsonl"), self.task()
        space = Space.from_mapping(plain["space"], task)
        # the study is every searcher's in turn: its spec names none
        budget = Budget(self.trials + MEASURED, 60.0)
        spec = StudySpec("bench", 0, budget, task.name)
        study = Ledger.open(f"sqlite:///{self.folder}/{ledger}").study("bench", create=spec)
        make = instantiate(OmegaConf.create(plain["searcher"]), _partial_=True, _convert_="all")
        offered = {"space": space, "seed": 0, "direction": task.direction}
        enter = Workspace.open if Workspace.exists(task, "bench") else Workspace.create
        rule = from_config(plain["acceptance"] | {"max_reruns": 0}, task.direction, task.scale)
        stop = threading.Event()
        runner: Any = ReadyRunner(task, self.folder / "left", np.random.default_rng(len(searcher)))
        loop = Loop(
            study, make(**offered), space, Experiment(runner, rule, [0, 1, 2], stop),
            enter(task, "bench", self.folder / "runs"), self.folder / "runs" / "bench",
            str(Owner.here()), Observers(), stop,
        )  # fmt: skip
        tell = loop.searcher.tell

        def enough(trial: Any) -> None:
            tell(trial)
            if trial.number >= trials:
                stop.set()

        loop.searcher.tell = enough  # type: ignore[method-assign]
        return loop


def settings(searcher: str, ideas: str = "") -> dict[str, Any]:
    """sweep.py's settings for a searcher, as plain containers."""
    words = [f"searcher={searcher}", "searcher_name=bench", "budget_name=bench", "study=bench"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose("sweep", words + [f"searcher.path={ideas}"] * (searcher == "queue"))
    plain: Any = OmegaConf.to_container(config.copy(), resolve=False)
    return plain


def copies(ledger: StudyLedger, space: Space, trials: int) -> None:
    """Copies of the loop's own trials, each with other values and scores, until there are `trials`."""
    frozen = ledger.study.get_trials()
    models = [trial for trial in frozen[1:] if trial.state.is_finished()]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    for number in range(len(frozen), trials):
        params = drawn.ask(dict(space.distributions)).params
        made = another(models[number % len(models)], params, active(params, space), number)
        assert made.user_attrs.keys() == models[number % len(models)].user_attrs.keys()
        ledger.study.add_trial(made)


def another(
    model: FrozenTrial, params: dict[str, Any], overrides: dict[str, Any], number: int
) -> FrozenTrial:
    """A reverted trial that is like `model`, of other params, its scores a little higher for each trial."""
    made = copy.deepcopy(model)
    attributes = made.user_attrs
    attributes["proposal"] |= {"overrides": overrides, "params": params}
    attributes["overrides"] = attributes["result"]["overrides"] = overrides
    attributes["progress"]["fingerprint"] = uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex
    attributes["result"]["verdict"] |= {"decision": "reverted", "compared_with": 0}
    attributes["verdict"] = "reverted"
    outcome = attributes["result"]["outcome"]
    for measurement in (*outcome["measurements"], *attributes["progress"]["measurements"]):
        measurement["score"] += number / 100
    outcome["score"] += number / 100
    made.params, made.value = params, outcome["score"]
    return made


def measure(place: Place, searcher: str) -> tuple[float, list[dict[str, float]]]:
    """Seconds until the loop knows the history, and by part for each of a few trials that follow."""
    ledger = f"{searcher}.db"
    shutil.copy(place.folder / "ledger.db", place.folder / ledger)
    ideas = (f'{{"overrides": {{"optimizer.lr": {1e-3 + n * 1e-5}}}}}\n' for n in range(MEASURED))
    (place.folder / "ideas.jsonl").write_text("".join(ideas), encoding="utf-8")
    began = time.perf_counter()
    loop = place.loop(searcher, ledger, place.trials + MEASURED)
    loop.observers = Observers([LiveTable(Console(file=io.StringIO(), width=120), Budget(1, 1.0))])
    loop.ledger.history()
    reading = time.perf_counter() - began
    clock = watched(loop)
    with loop.workspace:
        laps = [clock.lap() for _ in loop.steps()]
    return reading, laps[1:]  # the first also starts the loop


def watched(loop: Loop) -> Clock:
    clock = Clock()
    clock.watch(loop.searcher, "ask", ["ask"])
    clock.watch(
        loop.workspace, "workspace", ["revert", "apply", "commit", "head", "code_hash", "log", "diff"]
    )
    names = [name for name in vars(StudyLedger) if not name.startswith("_")]
    clock.watch(loop.ledger, "ledger", [name for name in names if callable(getattr(loop.ledger, name))])
    clock.watch(loop.experiment.runner, "judge", ["run"])
    for name in ("started", "trial_started", "progress", "trial_finished"):
        clock.watch(loop.observers, "table", [name])
    return clock


def main() -> None:
    words = sys.argv[1:]
    trials = int(words.pop(0)) if words and words[0].isdigit() else 1000
    print(TITLE.format(trials=trials, measured=MEASURED - 1, goal=GOAL * 1000))
    print(f"{'searcher':10}" + "".join(f"{name:>10}" for name in (*PARTS, "all", "most", "cpu", "resuming")))
    with tempfile.TemporaryDirectory(prefix="bench-lab-") as folder:
        place = Place.prepare(Path(folder), trials)
        for searcher in words or SEARCHERS:
            reading, laps = measure(place, searcher)
            sums = [sum(lap[part] for part in PARTS) for lap in laps]
            *cells, cpu = (statistics.median(lap[part] for lap in laps) for part in (*PARTS, "cpu"))
            found = [*cells, statistics.median(sums), max(sums), cpu, reading]
            print(f"{searcher:10}" + "".join(f"{value * 1000:10.0f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
