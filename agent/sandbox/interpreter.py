"""Leaves: the folders outside /usr that the running Python needs, so that a sandbox can show them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.sandbox.base import SandboxUnavailable

# expanduser gives "~" for a user without a home, where Path.home() raises
_TOO_MUCH = tuple(map(Path, (os.path.expanduser("~"), "/home", "/root", "/etc", "/var", "/tmp", "/opt")))  # noqa: PTH111


def interpreter_folders() -> tuple[Path, ...]:
    """The virtual environment, the installation behind it and what links lead to; outer folders first.

    Raises SandboxUnavailable when a folder would show far more than an interpreter (/, /home, /root, …).
    """
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    real = Path(os.path.realpath(sys.executable))
    if not any(real.is_relative_to(folder) for folder in found):
        found.append(real.parent.parent)
    outside = sorted({folder for folder in found if not folder.is_relative_to("/usr")})
    for folder in outside:
        if len(folder.parts) < 2 or folder in _TOO_MUCH:
            raise SandboxUnavailable(
                f"Python's prefix is {folder}, and mounting that would show everything in it",
                "run from a virtual environment in a folder of its own (python -m venv .venv)",
            )
    return tuple(outside)


def require_readable(folders: tuple[Path, ...]) -> None:
    """Raise SandboxUnavailable, naming the closed folder, when this user cannot read one of `folders`."""
    for folder in folders:
        for step in (*reversed(folder.parents), folder):
            if not os.access(step, os.X_OK):
                raise SandboxUnavailable(
                    f"Python's folder {folder} lies below {step}, which user {os.geteuid()} cannot enter",
                    "install Python and the virtual environment where this user can read them (for example "
                    "/usr or /opt, or this user's own home), or run as root",
                )
