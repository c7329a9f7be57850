"""How far the lab scales: `python scripts/bench_scale.py [throughput|real|ledger|loop|samples …]`; all by default.

throughput  trials an hour at 1, 2 and 4 workers, of runs that only wait: what the lab itself loses
real        the same of real trainings (the demo's), which share this machine's cores
ledger      64 workers that write 5,000 trials at once: SQLite and PostgreSQL
loop        the loop's own time a trial with 64 workers, up to trial 5,000; runs cost nothing
samples     best so far at equal trials with 1 and with 8 workers, on a recorded response surface

It is the one script that stands on the tests: on their toy study, whose runs can be told how long to take, and on
their PostgreSQL server.

--wait=SECONDS and --trials=N make it shorter. docs/scale.md has the figures.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import RBFInterpolator

from agent.ledger import Ledger, Owner, StudySpec
from agent.records import Budget, Charges, Measurement, Outcome, Proposal, Trial, Verdict
from agent.runner import Run
from agent.sandbox import Bubblewrap
from agent.searchers import evolution, samplers
from agent.searchers.base import Searcher
from agent.searchers.evolution import Cube
from agent.space import Space
from agent.task import Task

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SURFACE = ROOT / "scripts" / "bench_surface.json"
NO_EARLY_END = {"name": "greedy", "floor_seeds": 1, "hopeless_below": None}


def throughput(wait: float, trials: int) -> Iterator[str]:
    """The real loop, ledger, workspace and sandbox; the run sleeps, and what it takes besides is its start."""
    from tests.agent.study import toy_loop

    seconds: dict[int, float] = {}
    for workers in (1, 2, 4):
        proposals = [
            {"overrides": {"fault.kind": "hang", "fault.seconds": wait, "optimizer.steps": 50 + n}}
            for n in range(trials)
        ]
        with tempfile.TemporaryDirectory() as folder, toy_loop(
            Path(folder), proposals, sandbox=Bubblewrap(), workers=workers, folds=(0,), acceptance=NO_EARLY_END,
            seconds=wait + 60,
        ) as loop:  # fmt: skip
            steps = loop.steps()
            next(steps)
            began = time.perf_counter()
            for _ in steps:
                pass
            seconds[workers] = time.perf_counter() - began
        rate, efficiency = 3600 * trials / seconds[workers], seconds[1] / (workers * seconds[workers])
        took = f"{trials} trials of {wait:g} s in {seconds[workers]:.1f} s"
        yield f"{workers} workers: {took}, {rate:.0f} an hour, efficiency {efficiency:.1%}"


def real(trials: int) -> Iterator[str]:
    """Studies of the demo's task in a clone of this repository; a run's threads are the cores, shared out."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "kento")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        first = 0.0
        for workers in (1, 2, 4):
            words = (
                f"searcher=random task=eclip_demo budget=demo budget.trials={trials} tracker.name=none "
                f"acceptance=greedy acceptance.hopeless_below=null executor.workers={workers} study=real{workers}"
            )
            environment = {**os.environ, "PYTHONPATH": f"{clone / 'src'}:{clone}"}
            environment.pop("OMP_NUM_THREADS")
            command = [sys.executable, "scripts/sweep.py", *words.split()]
            subprocess.run(command, cwd=clone, check=True, env=environment, stdout=subprocess.DEVNULL)
            study = Ledger.open(f"sqlite:///{clone}/runs/ledger.db").study(f"real{workers}")
            ends = [
                t.datetime_complete for t in study.study.get_trials(deepcopy=False) if t.datetime_complete
            ]
            seconds = (max(ends) - min(ends)).total_seconds()
            first = first or seconds
            rate = f"{3600 * trials / seconds:.0f} an hour, {first / seconds:.2f} times one worker"
            yield f"{workers} workers: {trials} trainings in {seconds:.1f} s, {rate}"


def ledger(trials: int) -> Iterator[str]:
    """8 processes of 8 threads each, one study a process, every trial with the writes that a real one makes."""
    from tests.agent import postgres

    with ExitStack() as stack:
        urls = [f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/ledger.db"]
        if programs := postgres.installed():
            port = stack.enter_context(postgres.server(programs))
            urls.append(f"postgresql://kento@127.0.0.1:{port}/postgres")
        for url in urls:
            Ledger.open(url)
            began = time.perf_counter()
            with get_context("spawn").Pool(8) as pool:
                found = pool.starmap(write_study, [(url, f"p{n}", trials // 8) for n in range(8)])
            seconds = time.perf_counter() - began
            waits = sorted(wait for process in found for wait in process)
            half, most = waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3
            yield (
                f"{url.partition(':')[0]}: {trials} trials by 64 workers in {seconds:.0f} s, "
                f"{trials / seconds:.0f} a second; a write took {half:.0f} ms, 99 % less than {most:.0f} ms"
            )
        if len(urls) == 1:
            yield "postgresql: not installed (apt-get install postgresql)"


def write_study(url: str, name: str, trials: int) -> list[float]:
    """Seconds of each write of one study with 8 workers."""
    study = Ledger.open(url).study(name, create=StudySpec("random", 0, Budget(trials, 60.0), "bench"))
    owner, lock, waits = str(Owner.here()), threading.Lock(), list[float]()

    def write(action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        with lock:
            value = action(*arguments, **more)
        waits.append(time.perf_counter() - began)
        return value

    def work() -> None:
        for _ in range(trials // 8):
            proposal = Proposal({"optimizer.lr": 0.1}, route="sampler")
            number = write(study.start, proposal, owner=owner)
            measured = [Measurement(0, fold, 100.0) for fold in range(3)]
            for count, item in enumerate(measured, start=1):
                write(study.note, number, charges=Charges(float(count)), measurement=item, phase="running")
            ended = Trial(
                number, proposal, proposal.overrides, charges=Charges(3.0), verdict=Verdict("reverted")
            )
            write(study.finish, replace(ended, outcome=Outcome("completed", 100.0, tuple(measured))))

    with study.held(owner):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return waits


class Instant:
    """Takes the place of agent.runner.Runner: a score from the arguments, at once."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def run(self, code: Path, arguments: Sequence[str], *, seed: int, fold: int, **_: Any) -> Run:
        score = 50.0 + int.from_bytes(repr(sorted(arguments)).encode(), "little") % 997 / 10
        return Run("completed", 1.0, Measurement(seed, fold, score), 1.0)


def loop(trials: int) -> Iterator[str]:
    """64 workers and one study: proposals, checks, seats, ledger; seconds a trial as the history grows."""
    from tests.agent.study import toy_loop

    with (
        tempfile.TemporaryDirectory() as folder,
        toy_loop(Path(folder), None, trials=trials, workers=64, folds=(0,)) as study,
    ):
        runner: Any = Instant(study.experiment.runner.task)
        study.runners = [runner] * 64
        study.experiment = replace(study.experiment, runner=runner)
        began, done = time.perf_counter(), 1
        for count, _ in enumerate(study.steps()):
            now = len(study.ledger.trials())
            seconds = time.perf_counter() - began
            if count and (count in (1, 2) or count % 10 == 0 or now > trials):
                each = f"{seconds / (now - done):.3f} s a trial"
                yield f"up to trial {now - 1}: {each}, {seconds:.1f} s a batch of {now - done}"
            began, done = time.perf_counter(), now


def samples(seeds: int) -> Iterator[str]:
    """What it costs to propose 8 at a time: the same searchers, trials and surface, one or eight a batch."""
    recorded = json.loads(SURFACE.read_text(encoding="utf-8"))
    task = Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT)
    space = Space.from_mapping(recorded["space"], task)
    space = replace(space, defaults=recorded["reference"])
    surface = fitted(recorded, Cube(space.distributions))
    makes: dict[str, Callable[[int], Searcher]] = {
        "random": lambda seed: samplers.random(space=space, seed=seed),
        "tpe": lambda seed: samplers.tpe(space=space, seed=seed, startup_trials=10, candidates=24),
        "cmaes": lambda seed: evolution.cmaes(space=space, seed=seed, sigma=0.2, population=None),
    }
    for name, make in makes.items():
        for at in (1, 8):
            curves = np.array([best_so_far(make(seed), surface, at, 64) for seed in range(seeds)])
            shown = ", ".join(f"{curves[:, n - 1].mean():.1f} after {n}" for n in (16, 32, 64))
            error = curves[:, -1].std(ddof=1) / np.sqrt(seeds)
            yield f"{name}, {at} at a time: best {shown} (standard error {error:.1f}, {seeds} seeds)"


def fitted(recorded: dict[str, Any], cube: Cube) -> Callable[[Any], float]:
    """A smooth surface through the recorded trials, on the logarithm of the score; outside the data it guesses."""
    places = np.array([cube.coordinates(point["params"]) for point in recorded["points"]])
    scores = np.log([point["score"] for point in recorded["points"]])
    model = RBFInterpolator(places, scores, kernel="linear", smoothing=0.05)
    return lambda params: float(np.exp(model(cube.coordinates(params)[None])[0]))


def best_so_far(searcher: Searcher, surface: Callable[[Any], float], at: int, trials: int) -> list[float]:
    """The best score after each trial; what a batch proposes is told when all of it has ended."""
    reference: Any = searcher.space.defaults  # type: ignore[attr-defined]
    outcome = Outcome("completed", surface(reference))
    history = [Trial(0, Proposal(base="reference"), {}, outcome, Verdict("reference"))]
    while len(history) <= trials:
        for proposal in searcher.ask_many(history, min(at, trials + 1 - len(history))):
            outcome = Outcome("completed", surface(proposal.params))
            history.append(
                Trial(len(history), proposal, proposal.overrides, outcome, Verdict("reverted", delta=0.0))
            )
    scores = [trial.outcome.score for trial in history if trial.outcome and trial.outcome.score is not None]
    return list(np.minimum.accumulate(scores)[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds of a run that waits")
    parser.add_argument("--trials", type=int, help="of ledger and loop (5,000), throughput and real (8)")
    given = parser.parse_args()
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "throughput": lambda: throughput(given.wait, given.trials or 8),
        "real": lambda: real(given.trials or 8),
        "ledger": lambda: ledger(given.trials or 5000),
        "loop": lambda: loop(given.trials or 5000),
        "samples": lambda: samples(30),
    }
    if unknown := sorted(set(given.parts) - set(parts)):
        sys.exit(f"{', '.join(unknown)}: expected some of {', '.join(parts)}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    for part in given.parts or parts:
        print(f"\n{part}", flush=True)
        for line in parts[part]():
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
