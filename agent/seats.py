"""A study's recipe and a candidate's edits go in; code stands in a worktree of its own, beside other trials' code."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from agent.edits import edited
from agent.git import Git, admin_dir
from agent.records import Edit
from agent.workspace import Workspace

# git reads every worktree's files while it adds one, and stumbles over another that is being added
_adding = threading.Lock()


class Seat:
    """A worktree on no branch, at runs/<study>/seats/<number>, for one trial at a time. See `Workplace`."""

    def __init__(self, workspace: Workspace, number: int) -> None:
        self.path: Path = workspace.path.parent / "seats" / str(number)
        self._workspace = workspace
        self._git: Git | None = None
        self._commit = ""
        self._edits: Sequence[Edit] = ()

    def place(self, commit: str, edits: Sequence[Edit]) -> Seat:
        """From now on the recipe is `commit`, and the candidate is the recipe with these edits."""
        if self._git is None:
            with _adding:
                self._git = _added(self._workspace.repository, self.path, commit)
        self._commit, self._edits = commit, edits
        return self

    def candidate(self) -> None:
        """The files with the edits. Raises EditError where one does not apply."""
        self.recipe()
        for path, content in edited(self.path, self._edits, self._workspace.task.editable).items():
            (self.path / path).write_bytes(content)

    def recipe(self) -> None:
        """The files exactly as the recipe has them, with nothing beside them."""
        assert self._git is not None
        self._git("reset", "--hard", "--quiet", self._commit)
        self._git("clean", "-ffdxq")

    def remove(self) -> None:
        """Gives the worktree up."""
        if self._git is not None:
            _removed(self._workspace.repository, self.path)
            self._git = None


def _added(repository: Git, path: Path, commit: str) -> Git:
    """Git for a worktree at `path`, made anew at `commit`, on no branch."""
    for last in (False, False, True):
        _removed(repository, path)
        # another study may be adding one to the same repository
        repository("worktree", "add", "--quiet", "--detach", str(path), commit, check=last)
        if (path / ".git").is_file():
            break
    return Git(repository.common, path, admin_dir(repository.common, path), repository.keep)


def _removed(repository: Git, path: Path) -> None:
    """No worktree at `path`, whatever a killed process has left of one."""
    admin = admin_dir(repository.common, path)
    shutil.rmtree(path, ignore_errors=True)
    if admin is not None:
        shutil.rmtree(admin)
