"""A study's edits and kept recipes go in, a git branch `lab/<study>` comes out, in a worktree of its own.

The branch's head is always the recipe; between trials the worktree is exactly that. The user's checkout,
index, stash, HEAD and other branches are never written. Each step is either done or repaired by `open`
after kill -9 at
any moment: the branch moves in one atomic update, everything else is rebuilt from it. One process at a
time holds a study's workspace, by a file lock that its git commands inherit, so that a killed study's
last git command ends before the next one begins.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from agent.edits import edited
from agent.git import Git, GitError, admin_dir, checked_out, common_dir
from agent.recipe_file import recipe_text
from agent.records import Edit, Value
from agent.task import Task

STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", re.ASCII)
LOCK_SECONDS = 20.0


class WorkspaceError(RuntimeError):
    """The workspace cannot be made or opened; the message says what to do."""


class Workspace:
    """Use `create` for a new study, `open` for one that has a branch; then as a context manager, or `close`.

    path: the worktree. branch: lab/<study>. task: the task with the worktree as its root.
    """

    def __init__(self, task: Task, study: str, root: Path, lock: int) -> None:
        self.study, self.branch = study, f"lab/{study}"
        self.path = root.resolve() / study / "workspace"
        self.task = task.at(self.path)
        self._lock = lock
        self._repo = Git(common_dir(task.root), keep=lock)
        self._touched: set[str] = set()
        self._editable: list[str] | None = None

    @classmethod
    def create(cls, task: Task, study: str, root: Path, base: str = "") -> Workspace:
        """A new branch at commit `base`, or at what is checked out at `task.root`. Raises WorkspaceError."""
        self = cls(task, study, root, _locked(root, study))
        try:
            if self.head():
                raise WorkspaceError(
                    f"branch {self.branch} exists: resume the study, take another name, or delete the branch"
                )
            base = base or checked_out(task.root)
            commit = self._repo("rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}")
            self._rebuild(commit)
        except BaseException:
            self.close()
            raise
        return self

    @classmethod
    def open(cls, task: Task, study: str, root: Path) -> Workspace:
        """The study's workspace as its branch has it; whatever a killed process left is removed."""
        self = cls(task, study, root, _locked(root, study))
        try:
            commit = self.head()
            if not commit:
                raise WorkspaceError(f"there is no branch {self.branch}; start the study anew")
            self._require_free()
            self._remove_stale_locks()
            if self._admin() is None or not self._usable():
                self._rebuild(commit)
            self.revert()
        except BaseException:
            self.close()
            raise
        return self

    @staticmethod
    def exists(task: Task, study: str) -> bool:
        """Whether the study has a branch. Raises WorkspaceError for what cannot be a study's name."""
        check_name(study)
        ref = f"refs/heads/lab/{study}"
        return bool(Git(common_dir(task.root))("rev-parse", "--verify", "--quiet", ref, check=False))

    def head(self) -> str:
        """The branch's commit: the recipe; empty if there is no branch."""
        return self._repo("rev-parse", "--verify", "--quiet", f"refs/heads/{self.branch}", check=False)

    def apply(self, edits: Sequence[Edit]) -> None:
        """Writes the edits into the worktree, all or none. Raises EditError with a reason."""
        for path, content in edited(self.path, edits, self.task.editable).items():
            self._touched.add(path)
            (self.path / path).write_bytes(content)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Whole new contents of editable files. Raises WorkspaceError for any other path."""
        for path, content in files.items():
            if not self.task.editable.holds(path):
                raise WorkspaceError(f"{path} is not editable")
            self._touched.add(path)
            (self.path / path).write_bytes(content)

    def remove_worktree(self) -> None:
        """The branch stays, and `open` makes the worktree anew."""
        if self._admin() is not None:
            self._discard()

    def commit(self, message: str, recipe: Mapping[str, Value]) -> str:
        """Makes the worktree, with `recipe` as all its overrides, the branch's head. Returns the commit."""
        parent = self.head()
        target = self.path / self.task.recipe.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(recipe_text(self.task, recipe), encoding="utf-8")
        git = self._git()
        git("add", "--force", "--", self.task.recipe.file, *sorted(self._touched))
        tree = git("write-tree")
        commit = git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message)
        git("update-ref", "-m", "lab: keep", f"refs/heads/{self.branch}", commit, parent)
        self.revert()
        return commit

    def revert(self) -> None:
        """Leaves the worktree exactly as the branch's head, with nothing beside it."""
        git = self._git()
        assert git.admin is not None
        head = git.admin / "HEAD"
        if not head.is_file() or head.read_bytes() != f"ref: refs/heads/{self.branch}\n".encode():
            git("symbolic-ref", "HEAD", f"refs/heads/{self.branch}")
        # in full: a tag may have the branch's name, and would come first
        git("reset", "--hard", "--quiet", f"refs/heads/{self.branch}")
        git("clean", "-ffdxq")
        self._touched.clear()

    def code_hash(self) -> str:
        """Identity of the code as it stands: the editable files; nothing else can differ within a study."""
        digest = hashlib.sha256()
        for path in self.editable_files():
            content = (self.path / path).read_bytes()
            digest.update(f"{path} {hashlib.sha256(content).hexdigest()}\n".encode())
        return digest.hexdigest()

    def editable_files(self) -> list[str]:
        """Paths that a proposal may edit, relative to the worktree; the same throughout a study."""
        if self._editable is None:
            tracked = self._git()("ls-files", "-z").split("\0")
            self._editable = sorted(path for path in tracked if path and self.task.editable.holds(path))
        return self._editable

    def diff(self) -> str:
        """What `apply` changed since the branch's head, as a unified diff."""
        return self._git()("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")

    def log(self) -> list[dict[str, str]]:
        """The branch's commits by the lab, newest first: `commit`, `subject` and the Lab-… trailers."""
        raw = self._repo(
            "log", "--format=%H%x1f%s%x1f%(trailers:only,unfold)%x1e", f"refs/heads/{self.branch}"
        )
        entries = []
        for record in filter(None, (part.strip("\n") for part in raw.split("\x1e"))):
            commit, subject, trailers = record.split("\x1f")
            pairs = (line.partition(": ") for line in trailers.splitlines())
            found = {key: value for key, _, value in pairs if key.startswith("Lab-")}
            if found.get("Lab-Study") == self.study:
                entries.append({"commit": commit, "subject": subject, **found})
        return entries

    @property
    def repository(self) -> Git:
        """Git for the repository as a whole; its commands hold the study's lock."""
        return self._repo

    def close(self) -> None:
        """Lets another process open the study; the worktree stays, and holds the branch."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes, and gives the branch back to its user: git checks out a branch in one worktree only."""
        try:
            if self._lock >= 0:
                self.remove_worktree()
        finally:
            self.close()

    def _git(self) -> Git:
        admin = self._admin()
        if admin is None:
            raise WorkspaceError(f"{self.path} is no longer a worktree; resume the study to rebuild it")
        return Git(self._repo.common, self.path, admin, self._lock)

    def _admin(self) -> Path | None:
        return admin_dir(self._repo.common, self.path)

    def _require_free(self) -> None:
        """A commit would move the branch under a person who has checked it out."""
        for entry in self._repo("worktree", "list", "--porcelain").split("\n\n"):
            lines = entry.splitlines()
            where = lines[0].removeprefix("worktree ") if lines else ""
            # one that is gone is what a killed study left before its checkout was moved
            elsewhere = where != str(self.path) and Path(where).exists()
            if f"branch refs/heads/{self.branch}" in lines and elsewhere:
                raise WorkspaceError(
                    f"branch {self.branch} is checked out in {where}, and the study would commit to it: "
                    f"git -C {where} checkout - (or another branch), then resume"
                )

    def _usable(self) -> bool:
        """The worktree is there and git can read it."""
        if not (self.path / ".git").is_file():
            return False
        try:
            self._git()("ls-files", "--error-unmatch", "--", ".")
        except (GitError, OSError):
            return False
        return True

    def _rebuild(self, commit: str) -> None:
        """A fresh worktree at `commit`; the branch comes last, so that a study exists whole or not at all."""
        self._remove_stale_locks()
        self._discard()
        self._repo("worktree", "add", "--quiet", "--detach", str(self.path), commit)
        if not self.head():
            self._repo("update-ref", f"refs/heads/{self.branch}", commit, "0" * len(commit))
        self.revert()

    def _discard(self) -> None:
        """Removes what is left of a worktree of ours; refuses a folder that never was one."""
        admin = self._admin()
        if self.path.exists() and admin is None and not _abandoned(self.path):
            raise WorkspaceError(f"{self.path} holds something that is no worktree; move it away")
        shutil.rmtree(self.path, ignore_errors=True)
        if admin is not None:
            shutil.rmtree(admin)

    def _remove_stale_locks(self) -> None:
        """Lock files of killed git commands; ours alone, since we hold the study's lock."""
        admin = self._admin()
        locks = [self._repo.common / "refs" / "heads" / "lab" / f"{self.study}.lock"]
        locks += [admin / name for name in ("index.lock", "HEAD.lock")] if admin else []
        for lock in locks:
            lock.unlink(missing_ok=True)


def check_name(study: str) -> None:
    """It becomes a folder, a branch and a name in the ledger. Raises WorkspaceError."""
    if not STUDY.fullmatch(study) or len(study) > 80 or study.endswith(".lock"):
        raise WorkspaceError(
            f"study {study!r}: expected a short name of letters, digits, -, _ and single dots"
        )


def _locked(root: Path, study: str) -> int:
    """An exclusive lock on the study; waits for a killed study's last git command."""
    check_name(study)
    folder = root / study
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "workspace.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise WorkspaceError(f"study {study} is in use by another process") from None
            time.sleep(0.02)


def _abandoned(path: Path) -> bool:
    """An empty folder, or one that git had begun to make a worktree of."""
    return path.is_dir() and (not any(path.iterdir()) or (path / ".git").is_file())
