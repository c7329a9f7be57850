"""Folders of finished W&B runs go in; they are uploaded within a time limit, and what was not is said.

`wandb sync` waits for ever on an address that does not answer, so it runs as a process that can be killed.
"""

from __future__ import annotations

import netrc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.wandb_runs import COMPLETE


def wandb_mode() -> str:
    """WANDB_MODE when set, else online with a key in the environment or in ~/.netrc, else offline."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _key_in_netrc() else "offline"


def _key_in_netrc() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def complete(folder: Path) -> list[Path]:
    """All runs of a study that were written whole, oldest first. folder: runs/<study>."""
    return sorted(path.parent for path in (folder / "wandb").glob(f"offline-run-*/{COMPLETE}"))


def uploaded(run: Path) -> bool:
    """Whether W&B has marked the run as uploaded."""
    return any(run.glob("run-*.wandb.synced"))


@dataclass
class Upload:
    """One `wandb sync` under way. `seconds` is its limit."""

    runs: Sequence[Path]
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    deadline: float

    @classmethod
    def start(cls, runs: Sequence[Path], seconds: float) -> Upload:
        """Begin to upload `runs` (at least one); never asks for anything."""
        output = tempfile.TemporaryFile()  # noqa: SIM115  (read when the process has ended)
        resolved = [run.resolve() for run in runs]
        process = subprocess.Popen(
            # -P: a folder named wandb where the user stands is not the package
            [sys.executable, "-P", "-m", "wandb", "sync", *map(str, resolved)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # its own log goes beside the runs
            env={**os.environ, "WANDB_MODE": "online", "WANDB_DIR": str(resolved[0].parents[1])},
        )
        return cls(resolved, process, output, time.monotonic() + seconds)

    def running(self) -> bool:
        """Whether it still works; what is past its limit is killed."""
        if self.process.poll() is None and time.monotonic() >= self.deadline:
            self.kill()
        return self.process.poll() is None

    def wait(self) -> None:
        """Return when it has ended or was killed at its limit."""
        try:
            self.process.wait(max(self.deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and what it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()

    def missing(self) -> list[Path]:
        """The runs that are not uploaded, after the end."""
        return [run for run in self.runs if not uploaded(run)]

    def problem(self) -> str:
        """Why not all was uploaded, in a line; empty if all was."""
        if not self.missing():
            return ""
        if self.process.returncode == -signal.SIGKILL:
            return "the server did not take the runs within the time limit"
        self.output.seek(0)
        lines = [
            line.strip() for line in self.output.read().decode(errors="replace").splitlines() if line.strip()
        ]
        return lines[-1][:300] if lines else f"wandb sync ended with exit code {self.process.returncode}"
