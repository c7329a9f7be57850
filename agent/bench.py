"""The study's workspace and a candidate's edits go in; the code that a run needs stands there when it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.records import Edit
from agent.workspace import Workspace


@dataclass
class Bench:
    """The workspace as the experiment sees it: the candidate's edits applied, or the recipe as it is."""

    workspace: Workspace
    edits: Sequence[Edit] = ()

    @property
    def path(self) -> Path:
        return self.workspace.path

    def candidate(self) -> None:
        self.workspace.revert()
        if self.edits:
            self.workspace.apply(self.edits)

    def recipe(self) -> None:
        self.workspace.revert()
