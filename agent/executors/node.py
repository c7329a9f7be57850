"""A run that was sent here goes in; it runs in this machine's sandbox, and what it left goes back as bytes."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from agent.claims import EMBEDDINGS_BYTES, ClaimError, open_run_dir
from agent.executors.shipping import Parcel, cached, digest
from agent.runner import KEPT
from agent.sandbox import Finished, Job, Mount, Sandbox, SandboxUnavailable, remove

# of a run directory, what the contract names; the host checks it as it checks any run's
TAKEN = {**KEPT, "embeddings.safetensors": EMBEDDINGS_BYTES}

_passed: set[tuple[type[Sandbox], tuple[int, ...]]] = set()


@dataclass(frozen=True)
class Errand:
    """A call of Sandbox.run, to be made elsewhere.

    job: its folders are the sender's, and its mounts travel as parcels, each with its place inside. python: the
    sender's interpreter; lab: its lab's code.
    """

    sandbox: Sandbox
    job: Job
    mounts: Sequence[tuple[Parcel, str]]
    python: str
    lab: str
    cache: str


@dataclass(frozen=True)
class Answer:
    """What came of it. seconds: from the start of the sandbox to its end; refused: why nothing ran, and the fix."""

    node: str
    finished: Finished | None = None
    seconds: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)
    log: bytes = b""
    refused: tuple[str, str] | None = None


def carry_out(errand: Errand, get: Callable[[Any], Any], cards: Sequence[int]) -> Answer:
    """Makes the run on this machine, on these of its GPUs. Raises ShippingError."""
    node = socket.gethostname()
    if refused := _refusal(errand, cards):
        return Answer(node, refused=refused)
    store = Path(errand.cache).expanduser()
    mounts = tuple(Mount(cached(store, parcel, get), target) for parcel, target in errand.mounts)
    (store / "runs").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=store / "runs"))
    try:
        run_dir, log = folder / "run", folder / "log.txt"
        run_dir.mkdir()
        words = [sys.executable if word == errand.python else word for word in errand.job.command]
        job = replace(errand.job, command=words, run_dir=run_dir, log_path=log, mounts=mounts)
        began = time.monotonic()
        finished = errand.sandbox.with_gpus(cards).run(job)
        return Answer(node, finished, time.monotonic() - began, _left(run_dir), log.read_bytes())
    except SandboxUnavailable as error:
        return Answer(node, refused=(error.cause, error.fix))
    finally:
        remove(folder)


def _refusal(errand: Errand, cards: Sequence[int]) -> tuple[str, str] | None:
    """Why nothing of the sender's may run here: another lab, or no sandbox."""
    if lab_code() != errand.lab:
        return "it has another version of the lab", "install the same commit there: pip install -e '.[ray]'"
    try:
        _check(errand.sandbox, tuple(cards))
    except SandboxUnavailable as error:
        return error.cause, error.fix
    return None


def _check(sandbox: Sandbox, cards: tuple[int, ...]) -> None:
    """Once a process and choice of GPUs: what may run here does not change while it does."""
    if (type(sandbox), cards) not in _passed:
        sandbox.with_gpus(cards).check()
        _passed.add((type(sandbox), cards))


@cache
def lab_code() -> str:
    """The identity of the lab's own code on this machine."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "agent")
        here = Path(__file__).resolve().parents[1]
        shutil.copytree(here, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        return digest(copy)


def _left(run_dir: Path) -> dict[str, bytes]:
    found = {}
    with open_run_dir(run_dir) as claims:
        for name, cap in TAKEN.items():
            try:
                found[name] = claims.read_bytes(name, cap)
            except ClaimError:
                continue  # not there, or not what may be there: for the host it is missing
    return found
