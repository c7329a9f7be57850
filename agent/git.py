"""Git commands go in, their output comes out: one repository, one worktree, an environment of our own.

No hooks, no user or system configuration, no signing, no line-ending conversion, no file-system monitor,
no background maintenance, and none of the caller's GIT_* variables: what a study commits depends on
nothing else. The worktree's own `.git` file is never trusted; its administrative folder is named
explicitly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.attributesFile": os.devnull,
    "core.quotePath": "false",
    "core.sparseCheckout": "false",
    "core.untrackedCache": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "advice.detachedHead": "false",
    "user.name": "kento lab",
    "user.email": "lab@kento.invalid",
    # the person who started the study chose this repository, whoever owns its files
    "safe.directory": "*",
}
SECONDS = 120


class GitError(RuntimeError):
    """A git command failed; the message holds the command and git's own words."""


class Git:
    """Runs git for one repository, or for one `worktree` with `admin`, its administrative folder.

    keep: a descriptor (the study's lock) that the commands inherit; -1 is none.
    """

    def __init__(self, common: Path, worktree: Path | None = None, admin: Path | None = None, keep: int = -1):
        self.common, self.worktree, self.admin, self.keep = common, worktree, admin, keep

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output, stripped of its last newline. Raises GitError."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.worktree or self.common,
            env=self._environment(),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=SECONDS,
            pass_fds=() if self.keep < 0 else (self.keep,),
            check=False,
        )
        if done.returncode and check:
            raise GitError(f"git {' '.join(arguments[:4])}: {done.stderr.strip() or done.returncode}")
        return done.stdout.removesuffix("\n")

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_DIR": str(self.admin or self.common),
            **_settings(SETTINGS),
        }
        if self.worktree is not None and self.admin is not None:
            environment["GIT_WORK_TREE"] = str(self.worktree)
        return environment


def _settings(settings: Mapping[str, str]) -> dict[str, str]:
    pairs = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return pairs


def admin_dir(common: Path, worktree: Path) -> Path | None:
    """The repository's folder about a worktree, found by the path it records; None if there is none."""
    for record in sorted((common / "worktrees").glob("*/gitdir")):
        try:
            text = record.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # another worktree is removed just now
            continue
        if text.strip() == str(worktree / ".git"):
            return record.parent
    return None


def common_dir(repo: Path) -> Path:
    """The repository's own folder (`.git`), also where `repo` is itself a worktree. Raises GitError."""
    return Path(_standing_in(repo, "rev-parse", "--path-format=absolute", "--git-common-dir"))


def checked_out(repo: Path) -> str:
    """The commit that is checked out in `repo`, one of the repository's worktrees. Raises GitError."""
    return _standing_in(repo, "rev-parse", "--verify", "HEAD^{commit}")


def is_changed(repo: Path) -> bool:
    """Whether tracked files in `repo` differ from what is checked out there. Raises GitError."""
    return bool(_standing_in(repo, "status", "--porcelain", "--untracked-files=no"))


def _standing_in(repo: Path, *arguments: str) -> str:
    """As a person who stands there would call git, but for the environment."""
    environment = Git(repo)._environment()
    del environment["GIT_DIR"]
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=repo,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise GitError(f"git {' '.join(arguments)} in {repo}: {done.stderr.strip()}")
    return done.stdout.removesuffix("\n")


def commit_files(common: Path, commit: str, target: Path) -> Path:
    """The files of a commit at `target`, without git's own; made once, whole or not at all."""
    if not target.is_dir():
        unfinished = target.with_name(f"{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        archive = unfinished.with_suffix(".tar")
        Git(common)("archive", "--output", str(archive), commit)
        with tarfile.open(archive) as tar:
            tar.extractall(unfinished, filter="data")
        archive.unlink()
        (unfinished / ".git").mkdir()  # the runner hides what it finds there
        unfinished.rename(target)
    return target
