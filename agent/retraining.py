"""A recipe of an ended study goes in; it is trained again, on other seeds, data or code, and judged on the host.

Confirmation and ablation stand on this. What they measure is no part of the search, and charged apart from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from agent.checkout import require_accepted
from agent.codec import from_json, to_json
from agent.compiled import compiled_for
from agent.composition import composed, reference_leaves
from agent.git import commit_files, common_dir
from agent.ledger import LedgerError, Owner, StudyLedger
from agent.records import Charges, Measurement, Trial, Value
from agent.runner import Run, Runner, Sealed
from agent.sandbox import Limits, Sandbox
from agent.study import require_hidden, run_environment, seal
from agent.task import Task
from agent.validation import validate

Measured = dict[tuple[int, int], Measurement]


class RetrainingError(RuntimeError):
    """These studies cannot be confirmed or taken apart like this; the message says why and what to do."""


class Stopped(RuntimeError):
    """Ctrl-C: what was measured is in the ledger, and the same command goes on from there."""


@dataclass
class Retraining:
    """Where recipes are trained again. root: the checkout. runs: a folder for each study. vault: sealed data."""

    task: Task
    sandbox: Sandbox
    limits: Callable[[float], Limits]
    environment: Mapping[str, str]
    runs: Path
    vault: Path
    stop: threading.Event = field(default_factory=threading.Event)
    lost: str = field(default="", init=False)

    @contextmanager
    def held(self, ledgers: Sequence[StudyLedger]) -> Iterator[None]:
        """The studies are ours in the `with` block, and no loop's. Raises LedgerError."""
        owner = str(Owner.here())
        with ExitStack() as stack:
            for ledger in ledgers:
                stack.enter_context(ledger.held(owner, self._lose))
            yield

    def _lose(self, why: str) -> None:
        """Another machine may have taken a study over: nothing more is written."""
        self.lost = why
        self.stop.set()

    def of(self, ledger: StudyLedger) -> Bench:
        """The same for one study, on the folds it was searched on. Raises RetrainingError, CheckoutChanged."""
        reference = ledger.reference()
        if reference is None or reference.outcome is None:
            raise RetrainingError(f"study {ledger.name} has no reference yet: run it first")
        if ledger.spec.task != self.task.name:
            raise RetrainingError(
                f"study {ledger.name} is of task {ledger.spec.task}: task={ledger.spec.task}"
            )
        base = ledger.spec.details.get("base")
        if base is not None and tuple(base) != self.task.base:
            raise RetrainingError(
                f"study {ledger.name} started from {' '.join(base)}, not {' '.join(self.task.base)}: set task.base"
            )
        folds = tuple(dict.fromkeys(item.fold for item in reference.outcome.measurements))
        task = replace(self.task, folds=folds, early_folds=min(self.task.early_folds, len(folds)))
        bench = Bench(self, ledger, task, reference)
        # on the reference's configs, which no proposal edits
        tree, recipe = task.at(bench.code(reference.commit)), ledger.lineage()[-1]
        require_accepted(ledger, tree, self.task.root, [{}, recipe.overrides])
        return bench


@dataclass
class Bench:
    """One study's recipes, to be trained again."""

    room: Retraining
    ledger: StudyLedger
    task: Task
    reference: Trial
    _sealed: Mapping[int, Sealed] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.room.runs / self.ledger.name

    def log(self, event: str, **data: Any) -> None:
        """Appends an event to the study. Raises LedgerError if it is no longer held."""
        if self.room.lost:
            raise LedgerError(self.room.lost)
        self.ledger.log(event, **data)

    def code(self, commit: str) -> Path:
        """The files of a commit, without git's own; made once, whole or not at all."""
        target = self.folder / "code" / commit[:16]
        return commit_files(common_dir(self.room.task.root), commit, target)

    def arguments(self, code: Path, overrides: Mapping[str, Value], factor: float = 1.0) -> tuple[str, ...]:
        """The command line of a recipe under `factor` times the budget. Raises Rejected."""
        task = self.task.at(code)
        longer = {
            key: round(factor * int(overrides.get(key, reference_leaves(task)[key]) or 0))
            for key in task.longer
        }
        return validate(task, overrides, longer if factor != 1 else {}).arguments

    def train(
        self,
        code: Path,
        arguments: tuple[str, ...],
        seed: int,
        fold: int,
        name: str,
        factor: float = 1.0,
        sealed: Sealed | None = None,
    ) -> Run:
        """One run, in runs/<study>/<name>, under `factor` times the search budget; `sealed`: not a fold's data.

        Raises Stopped; LedgerError where a study is no longer held.
        """
        if not self._sealed and sealed is None:
            self._sealed = seal(self.task.at(self.code(self.reference.commit)), self.room.vault)
        budget = self.ledger.spec.budget
        runner = Runner(
            task=self.task.at(code),
            sandbox=self.room.sandbox,
            limits=self.room.limits,
            budget=replace(budget, seconds=budget.seconds * factor),
            sealed=self._sealed if sealed is None else {fold: sealed},
            environment=self.room.environment,
            notice=lambda text: self.log("notice", text=text),
        )
        # the test set is shown to the run that is to read it, and to none before
        found = None if sealed else compiled_for(runner, lambda: self.reference.commit, self.room.vault)
        runner = replace(runner, compiled=found.folder if found else None)
        folder = self.folder / name
        run = runner.run(code, arguments, seed=seed, fold=fold, folder=folder, stop=self.room.stop)
        if run.status == "interrupted":
            self.log("retraining_stopped", name=name, cost=charge(run))
            raise Stopped("stopped; the same command goes on from here")
        return run

    def sealed_test(self) -> Sealed:
        """The final training's data: everything to learn from, the test set to embed."""
        task = self.task.at(self.code(self.reference.commit))
        self.room.vault.mkdir(parents=True, exist_ok=True)
        folder, key = task.function("seal_test")(composed(task), self.room.vault)
        return Sealed(Path(folder).resolve(), Path(key).resolve())


def open_retraining(config: DictConfig, root: Path, stack: ExitStack) -> Retraining:
    """From the settings of a sweep. What must be given up at the end is put on `stack`.

    Raises SandboxUnavailable, TaskError.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    sandbox: Sandbox = instantiate(config.sandbox.backend)
    sandbox.check()
    stack.callback(sandbox.close)
    runs, vault = root / plain["runs"], root / plain["vault"]
    require_hidden(sandbox, vault, runs)
    task = Task.from_mapping(plain["task"], root, where="task")
    environment = run_environment(plain["executor"]["threads"])
    if task.preload:
        # a cold start takes from the seconds of a short budget: search and confirmation must start alike
        sandbox.prepare(task.preload, environment)
    return Retraining(
        task=task,
        sandbox=sandbox,
        limits=lambda wall_seconds: Limits(wall_seconds=wall_seconds, **plain["sandbox"]["limits"]),
        environment=environment,
        runs=runs,
        vault=vault,
    )


def confirmed(ledger: StudyLedger, trial: int, factor: float) -> Measured:
    """(seed, fold) -> what confirmation has measured of a trial, under `factor` times the search budget."""
    found = (e for e in ledger.events() if e["event"] == "confirmed" and e["trial"] == trial)
    return read_measurements(
        item for e in found if e["budget_factor"] == factor for item in e["measurements"]
    )


def read_measurements(items: Iterable[Any]) -> Measured:
    """Measurements as events hold them, by seed and fold; the first of each."""
    measured: Measured = {}
    for data in items:
        item = from_json(Measurement, data)
        measured.setdefault((item.seed, item.fold), item)
    return measured


def charge(run: Run) -> Charges:
    """What one run costs."""
    return Charges(run.seconds, run.train_seconds, 0.0, 1)


def failure(run: Run, seed: int, fold: int) -> dict[str, Any]:
    """A run that gave no score, as events hold it."""
    return {"seed": seed, "fold": fold, "status": run.status, "reason": run.reason}


def as_json(run: Run) -> list[Any]:
    """The run's measurement, if it has one, as events hold it."""
    return [] if run.measurement is None else [to_json(run.measurement)]
