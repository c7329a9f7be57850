"""What the lab offers a searcher that needs more than numbers: the Desk. Proposals go in; facts come out.

The LLM searchers reach the study through this alone. They hold no ledger, no workspace and no sandbox, and
what a desk does not offer, no reply of a model can reach.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from agent.records import Budget, Charges, Proposal, Trial
from agent.searchers.base import Space


@dataclass(frozen=True)
class TaskView:
    """The task as a searcher sees it.

    editable: files that a proposal may edit, relative to the workspace.
    readable: further files that may be read.
    locked: patterns of keys that no proposal may set.
    description: a few sentences of prose; may be empty.
    """

    name: str
    metric: str
    direction: Literal["minimize", "maximize"]
    editable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()
    description: str = ""


class Desk(Protocol):
    """One study, seen from the searcher's chair.

    `folder` is runs/<study>/: inbox.md, plan.md, scratchpad.md.
    """

    @property
    def study(self) -> str: ...

    @property
    def folder(self) -> Path: ...

    @property
    def task(self) -> TaskView: ...

    @property
    def budget(self) -> Budget: ...

    @property
    def space(self) -> Space: ...

    @property
    def stop(self) -> threading.Event:
        """Set when the study is to stop: whatever waits gives up at once."""

    @property
    def next_trial(self) -> int:
        """The number that the next trial will have: interrupted ones had numbers, too."""

    def history(self) -> Sequence[Trial]:
        """Every trial so far but interrupted ones, the reference first, in order of number."""

    def recipe(self) -> Trial:
        """The best so far; the reference before anything was kept."""

    def spent(self) -> Charges:
        """Everything charged to the study so far, `charge` included."""

    def read_file(self, path: str) -> str:
        """An editable or readable file of the study's workspace. Raises ValueError with a reason."""

    def check(self, proposal: Proposal, beside: Sequence[Proposal] = ()) -> str | None:
        """Why the lab would reject the proposal, or None. Costs nothing.

        `beside`: others that are to run at the same time; the same experiment twice is refused here, too.
        """

    def try_out(self, proposal: Proposal) -> str | None:
        """Imports and one small step in the sandbox, at most 20 s and its start: the traceback's end, or None if it
        works. Raises SearcherUnavailable when it was stopped.
        """

    def log(self, event: str, **data: object) -> None:
        """Append an event (plain JSON values) to the study."""

    def charge(self, usd: float, seconds: float) -> None:
        """Add what a call cost to the trial that is being asked for."""

    def trial_folder(self, number: int) -> Path:
        """runs/<study>/<trial>/, for prompts and replies."""
