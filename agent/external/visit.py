"""A study's settings go in; a desk comes out that reads the study without holding it, beside a trial that runs.

The workspace is taken for the moment of a check alone. Files are read from the study's branch, where the recipe
stands whatever the worktree holds just now.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agent.desk import TaskView
from agent.external.chair import running
from agent.git import Git, common_dir
from agent.ledger import Ledger, StudyLedger
from agent.records import Budget, Charges, Proposal, Trial
from agent.space import Space
from agent.study import open_study
from agent.task import Scale, Task
from agent.workdesk import LONGEST_FILE


@dataclass(frozen=True)
class Visit:
    """Implements agent.desk.Desk for everything but running trials. root: the checkout."""

    config: DictConfig
    root: Path
    ledgers: Ledger
    name: str

    @cached_property
    def ledger(self) -> StudyLedger:
        return self.ledgers.study(self.name)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        plain: Any = OmegaConf.to_container(self.config, resolve=True)
        return plain

    @cached_property
    def _task(self) -> Task:
        return Task.from_mapping(self._plain["task"], self.root, where="task")

    @cached_property
    def space(self) -> Space:
        return Space.from_mapping(self._plain["space"], self._task)

    @property
    def study(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return self.root / self._plain["runs"] / self.study

    @property
    def program(self) -> str:
        """The path of program.md, relative to the checkout of the lab."""
        return str(self._plain["searcher"]["program"])

    @property
    def llm(self) -> dict[str, Any]:
        """The composed llm group: how long a prompt may be."""
        llm: dict[str, Any] = self._plain["llm"]
        return llm

    @property
    def scale(self) -> Scale:
        return self._task.scale

    @property
    def metric(self) -> str:
        """As the report has it."""
        return self._task.metric.replace("_", " ")

    @property
    def budget(self) -> Budget:
        return self.ledger.spec.budget

    @property
    def task(self) -> TaskView:
        task = self._task
        tracked = self._git("ls-tree", "-r", "-z", "--name-only", self._branch).split("\0")
        return TaskView(
            name=task.name,
            metric=task.metric,
            direction=task.direction,
            editable=tuple(sorted(path for path in tracked if path and task.editable.holds(path))),
            readable=tuple(path for path in task.readable if path in tracked),
            locked=(*task.locked, *task.run_keys),
            description=self._plain["task_description"],
        )

    @property
    def next_trial(self) -> int:
        return len(self.ledger.trials())

    def history(self) -> Sequence[Trial]:
        return self.ledger.history()

    def recipe(self) -> Trial:
        best = self.ledger.best()
        if best is None:
            raise ValueError("the reference has not run yet: call resume_study, which runs it")
        return best

    def spent(self) -> Charges:
        return self.ledger.spent()

    def read_file(self, path: str) -> str:
        view = self.task
        if path not in (*view.editable, *view.readable):
            there = ", ".join((*view.editable, *view.readable))
            raise ValueError(f"{path} is neither editable nor readable; there are: {there}")
        text = self._git("show", f"{self._branch}:{path}")
        if len(text) > LONGEST_FILE:
            raise ValueError(f"{path} has {len(text)} characters; files of up to {LONGEST_FILE} are shown")
        return text

    @cached_property
    def stop(self) -> threading.Event:
        """Never set: a visitor waits for nothing."""
        return threading.Event()

    def check(self, proposal: Proposal, beside: Sequence[Proposal] = ()) -> str | None:
        if running(self.ledger):
            raise ValueError("a trial is under way; check again when status says that it has ended")
        # nothing is run, so nothing is prepared for it
        config = OmegaConf.create(self._plain | {"task": self._plain["task"] | {"preload": None}})
        with ExitStack() as stack:
            desk = open_study(config, self.root, stack).desk
            assert desk is not None  # an external study's searcher works at one
            return desk.check(proposal, beside)

    def try_out(self, proposal: Proposal) -> str | None:
        """A visitor runs nothing: the code is tried out when the trial is proposed."""
        return None

    def log(self, event: str, **data: object) -> None:
        self.ledger.log(event, **data)

    def charge(self, usd: float, seconds: float) -> None:
        """Costs nothing: what a proposal costs is charged by the process that runs it."""

    def trial_folder(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    @property
    def _branch(self) -> str:
        return f"refs/heads/lab/{self.study}"

    @cached_property
    def _git(self) -> Git:
        return Git(common_dir(self.root))
