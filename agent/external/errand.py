"""A client's request goes to a process of its own; what became of it is read back from files.

The process stands alone (its own session, no pipes, its parent gone), so that a client that disconnects, or kills
the server and all its children, ends no trial. Everything passes through runs/<study>/requests/<id>/: request.json,
worker (which process it is), log.txt and answer.json, each written whole.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.codec import from_json, loads, to_json
from agent.external.chair import Client
from agent.ledger import Owner

LAB = Path(__file__).resolve().parents[2]
LOG_CHARS = 2000
START_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """What a process is to do: bring the study in order; if something is `asked`, decide on it and run it.

    given: the input of propose_trial, as it came. usage: what the client says that its own model used; empty
    where it does not say.
    """

    root: str
    words: tuple[str, ...]
    study: str
    client: Client
    route: str
    asked: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    take_over: bool = False


@dataclass(frozen=True)
class Reply:
    """How the process ended. trial: the number of the one it ran. fault: it did not do what was asked."""

    text: str = ""
    fault: bool = False
    trial: int | None = None


@dataclass(frozen=True)
class Errand:
    """A request under way."""

    folder: Path
    launcher: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path, request: Request) -> Errand:
        """`folder`: runs/<study>/."""
        own = folder / "requests" / uuid.uuid4().hex[:12]
        own.mkdir(parents=True)
        write(own / "request.json", to_json(request))
        with (own / "log.txt").open("wb") as log:
            launcher = subprocess.Popen(
                [sys.executable, "-m", "agent.external.worker", str(own)],
                cwd=LAB,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
            )
        return cls(own, launcher)

    def peek(self) -> Reply | None:
        """The reply, or None while the process is at work."""
        self.launcher.poll()  # leaves no zombie
        alive = self._alive()
        if (self.folder / "answer.json").is_file():
            return from_json(Reply, read(self.folder / "answer.json"))
        return None if alive else Reply(self._died(), fault=True)

    def _alive(self) -> bool:
        return self.launcher.returncode in (None, 0) and _pending(self.folder)

    def _died(self) -> str:
        log = (self.folder / "log.txt").read_text("utf-8", "replace")[-LOG_CHARS:].strip()
        return (
            "the process that ran this was killed; what it used is charged, nothing else is lost. Call resume_study "
            f"to bring the study in order, then propose again\n{log}".strip()
        )


def at_work(folder: Path) -> bool:
    """Whether a process is at work on a request of the study in `folder`, be it this server's or another's."""
    return any(
        _pending(own) for own in (folder / "requests").glob("*/") if not (own / "answer.json").is_file()
    )


def _pending(own: Path) -> bool:
    worker = own / "worker"
    if worker.is_file():
        return Owner.parse(worker.read_text("utf-8")).alive() is not False
    # the interpreter starts, or never did
    return own.is_dir() and time.time() - own.stat().st_mtime < START_SECONDS


def write(path: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False), "utf-8")
    part.replace(path)


def read(path: Path) -> Any:
    """Raises RecordError."""
    return loads(path.read_text("utf-8"))
