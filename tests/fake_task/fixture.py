"""The toy task for tests: as it lies here, or as a git repository of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.git import Git
from agent.space import Space
from agent.task import Task

HERE = Path(__file__).resolve().parent


def toy_task(root: Path = HERE) -> Task:
    return Task.load(HERE / "task.yaml", root)


def toy_space(root: Path = HERE) -> Space:
    return Space.load(HERE / "space.yaml", toy_task(root))


def toy_repository(folder: Path) -> Path:
    """A git repository that holds the toy alone, one commit on branch main."""
    for part in ("src", "configs"):
        shutil.copytree(HERE / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "train.py", folder)
    (folder / ".gitignore").write_text("runs/\n__pycache__/\n")
    git = Git(folder / ".git", folder, folder / ".git")
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "-m", "The toy")
    return folder
