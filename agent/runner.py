"""One training run: code, arguments, a seed and a sealed fold go in; how it ended, judged on the host, comes out."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from agent.claims import ClaimError, open_run_dir
from agent.records import Budget, Measurement, Status
from agent.sandbox import RUN_DIR, Finished, Job, Limits, Mount, Sandbox, clean_text, remove
from agent.task import Task, TaskError

CODE, DATA, COMPILED = "/code", "/data", "/compiled"
# 200 points of ten numbers are 55 kB; a proposal may add losses, and its points, to the curve
RESULT_BYTES = 262_144
RESULT_KEYS: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "reason": str,
    "steps": int,
    "train_seconds": float,
    "setup_seconds": float,
    "peak_memory_bytes": int,
    "metrics": dict,
    "curve": list,
    "commit": (str, NoneType),
    "package": str,
}
# file -> bytes: of what a run leaves, what stays for people once it is judged
KEPT = {"result.json": 2**20, "config.yaml": 2**20, "train.log": 2**24}
KILLED: Mapping[str, tuple[Status, str]] = {
    "wall": ("timeout", "was still running at the wall limit and was killed"),
    "memory": ("out_of_memory", "used more memory than the sandbox allows and was killed"),
    "disk": ("crashed", "wrote more than the sandbox allows and was killed"),
    "log": ("crashed", "printed more than the sandbox allows and was killed"),
    "cpu": ("crashed", "used more CPU time than the sandbox allows and was killed"),
    "stop": ("interrupted", "the study was stopped"),
}


@dataclass(frozen=True)
class Sealed:
    """One fold: the folder that a run is shown, and the key that stays on the host."""

    folder: Path
    key: Path


@dataclass(frozen=True)
class Run:
    """How one training run ended. `measurement` is there when it was completed and could be scored."""

    status: Status
    seconds: float
    measurement: Measurement | None = None
    train_seconds: float = 0.0
    reason: str = ""
    log_tail: str = ""
    curve: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Runner:
    """Starts the task's command in a sandbox under the budget, and scores what it leaves behind.

    environment: all that the run sees of it (threads, offline switches). now: wall clock in seconds.
    notice: told what people should know of a run, though it is no part of its outcome.
    compiled: a folder of compiled code that the host has made, for the task's key (agent.compiled).
    keep: what of a run's directory stays besides KEPT, whatever its kind and size, for a caller who removes it.

    A run keeps its training clock itself. One that says it trained for longer than its seconds * wall_factor
    is a timeout, without a score; one whose code lies about it can train until the wall limit, which is less
    than seconds * wall_factor + setup_seconds. Both are charged for every second that the host measured.
    """

    task: Task
    sandbox: Sandbox
    limits: Callable[[float], Limits]
    budget: Budget
    sealed: Mapping[int, Sealed]
    environment: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    notice: Callable[[str], None] = lambda text: None
    compiled: Path | None = None
    keep: Collection[str] = ()

    @property
    def seconds(self) -> float:
        """Of training, for one run: the folds share a trial's."""
        return self.budget.seconds / len(self.task.folds)

    def run(
        self,
        code: Path,
        arguments: Sequence[str],
        *,
        seed: int,
        fold: int,
        folder: Path,
        stop: threading.Event | None = None,
    ) -> Run:
        """One fold with one seed, in `folder` (made anew). `code` is a workspace of the task.

        Raises SandboxUnavailable, TaskError; everything that the run itself does wrong is an outcome.
        """
        began = self.now()
        remove(folder)
        run_dir = folder / "run"
        run_dir.mkdir(parents=True)
        own = self.task.run_arguments(
            run_dir=RUN_DIR, seed=seed, fold=fold, seconds=self.seconds, sealed=DATA
        )
        mounts = [Mount(code, CODE), Mount(self.sealed[fold].folder, DATA)]
        if self.compiled is not None and self.task.compiled is not None:
            mounts.append(Mount(self.compiled, COMPILED))
            own = (*own, f"{self.task.compiled.key}={COMPILED}")
        job = Job(
            command=[*self._command(), *arguments, *own],
            run_dir=run_dir,
            mounts=mounts,
            masked=[f"{CODE}/.git", *self._masked(code)],
            environment=self.environment,
            limits=self.limits(self.seconds * self.budget.wall_factor + self.budget.setup_seconds),
            log_path=folder / "log.txt",
            preload=self.task.preload,
        )
        finished = self.sandbox.run(job, stop)
        if finished.cold:
            self.notice(f"a run was started cold: {finished.cold}")
        run = self._outcome(finished, run_dir, code, seed, fold, began)
        _clear(run_dir, self.keep)
        return run

    def _command(self) -> list[str]:
        """The task's command, with this interpreter and with paths inside the sandbox."""
        program, *rest = self.task.command
        words = [sys.executable if program == "python" else program]
        return words + [f"{CODE}/{word}" if (self.task.root / word).is_file() else word for word in rest]

    def _masked(self, code: Path) -> list[str]:
        """Paths inside. Raises TaskError for a pattern without any: the run would see what it is not to see."""
        found = {glob: list(code.glob(glob)) for glob in self.task.masked}
        if empty := [glob for glob, paths in found.items() if not paths]:
            raise TaskError(
                f"task {self.task.name}: masked: {empty[0]} names nothing in {code}; mend or remove it"
            )
        return [f"{CODE}/{path.relative_to(code)}" for paths in found.values() for path in paths]

    def _outcome(
        self, finished: Finished, run_dir: Path, code: Path, seed: int, fold: int, began: float
    ) -> Run:
        """What the evidence says, the strongest first: what killed it, what it claims, what can be scored."""

        def used() -> float:
            return self.now() - began - finished.waited

        def ended(status: Status, reason: str, **more: Any) -> Run:
            return Run(status, used(), reason=reason, log_tail=finished.log_tail, **more)

        if finished.killed_by is not None:
            return ended(*KILLED[finished.killed_by])
        try:
            with open_run_dir(run_dir) as claims:
                result = claims.read_json("result.json", RESULT_KEYS, cap=RESULT_BYTES)
                # a run cannot have trained longer than it ran
                train_seconds = min(max(result["train_seconds"], 0.0), finished.seconds)
                known = {"curve": _points(result["curve"]), "train_seconds": train_seconds}
                reason = clean_text(result["reason"][:500])
                if result["status"] in ("diverged", "out_of_memory"):
                    return ended(result["status"], reason, **known)
                if result["status"] != "completed" or finished.returncode != 0:
                    return ended("crashed", reason or _exit(finished), **known)
                if problem := self._wrong_code(result["package"], code):
                    return ended("crashed", problem, **known)
                if train_seconds > (most := self.seconds * self.budget.wall_factor):
                    reason = f"trained for {train_seconds:.1f} s; more than {most:.1f} s buys no score"
                    return ended("timeout", reason, **known)
                embeddings = claims.read_embeddings()
        except ClaimError as error:
            reason = _exit(finished) if finished.returncode else f"left no usable result: {error}"
            return ended("crashed", reason)
        try:
            metrics = self.task.function("judge")(embeddings, self.sealed[fold].key)
        except ValueError as error:
            return ended("crashed", f"cannot be scored: {error}", **known)
        if self.task.metric not in metrics:
            raise TaskError(
                f"task {self.task.name}: the judge gives {sorted(metrics)}, not metric={self.task.metric}"
            )
        measurement = Measurement(
            seed=seed,
            fold=fold,
            score=metrics[self.task.metric],
            metrics=metrics,
            train_seconds=train_seconds,
            charged_seconds=used(),
            peak_memory_bytes=finished.peak_memory_bytes,
        )
        return ended("completed", "", measurement=measurement, **known)

    def _wrong_code(self, claimed: str, code: Path) -> str:
        """Why the run did not run the workspace's package; empty if it did."""
        inside = f"{self.task.package.path}/{self.task.package.name}"
        if claimed in (f"{CODE}/{inside}", str(code / inside)):
            return ""
        shown = clean_text(claimed[:200])
        return f"ran {self.task.package.name} from {shown}, not from the workspace: nothing was measured"


def _clear(run_dir: Path, keep: Collection[str]) -> None:
    """Leaves what is KEPT and `keep`: a thousand runs may each leave embeddings, scored by now, as large as a disk."""
    with os.scandir(run_dir) as entries:
        for entry in entries:
            if entry.name in keep:
                continue
            plain = entry.is_file(follow_symlinks=False)
            if not plain or entry.stat(follow_symlinks=False).st_size > KEPT.get(entry.name, -1):
                remove(Path(entry.path))


def _exit(finished: Finished) -> str:
    """The log's last line that says something, behind the exit code."""
    lines = [line.strip() for line in finished.log_tail.splitlines() if line.strip()]
    return f"exit code {finished.returncode}: {lines[-1][:400] if lines else 'no output'}"


def _points(curve: list[Any]) -> tuple[dict[str, float], ...]:
    """The curve's points, as far as they are mappings of finite numbers; a claim, shown and never scored."""
    return tuple(
        {clean_text(key[:40]): float(value) for key, value in point.items() if _number(value)}
        for point in curve[:200]
        if isinstance(point, dict)
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
