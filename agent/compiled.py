"""A runner of a task that compiles goes in; a folder of compiled code that all its runs may read comes out.

Who reads compiled code executes it. So what a run compiles ends with it, and what all runs read was compiled by the
study's unpatched reference: once for each machine, number of threads and version of code and torch, in the sandbox as
any run. The host takes it out, keeps its hash, and mounts it read-only. It is set-up, the same for every searcher:
charged to no trial, its seconds in the ledger.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.executors.shipping import digest, files
from agent.git import Git, commit_files, common_dir
from agent.records import Budget
from agent.runner import Runner
from agent.sandbox import RUN_DIR

# for the one run that fills it, whatever a trial may take
PATIENCE = Budget(trials=1, seconds=1800.0, setup_seconds=1800.0)
PACKAGES = ("torch", "triton")


class CompiledError(RuntimeError):
    """Compiled code could not be prepared, or is not what it was; the message says what to do."""


@dataclass(frozen=True)
class Compiled:
    """`folder` is what runs are shown; `facts` what the ledger is told: its hash, seconds, bytes, what it holds for."""

    folder: Path
    facts: Mapping[str, Any]


def compiled_for(runner: Runner, reference: Callable[[], str], vault: Path) -> Compiled | None:
    """Compiled code for `runner`'s runs, filled under `vault` unless it is there; `reference`: its commit.

    None where the task's base does not ask for it, or where nothing would keep a run from writing to it
    (sandbox=none). Raises CompiledError.
    """
    task = runner.task
    if task.compiled is None or task.compiled.when not in task.base or runner.sandbox.name == "none":
        return None
    commit = reference()
    holds_for = _holds_for(runner, commit)
    name = hashlib.sha256(json.dumps(holds_for, sort_keys=True).encode()).hexdigest()[:16]
    place = vault / "compiled" / name
    folder, record = place / "files", place / "record.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_suffix(".lock")):
        if not record.is_file():
            print("compiling the reference once, for all runs on this machine", file=sys.stderr)
            seconds = _fill(runner, commit, place)
            print(f"that took {seconds:.0f} s, which are set-up and no trial's", file=sys.stderr)
            facts = {"sha256": digest(folder), "seconds": seconds, "holds_for": holds_for}
            unfinished = record.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(facts, indent=2))
            unfinished.rename(record)
    facts = json.loads(record.read_text())
    if digest(folder) != facts["sha256"]:
        raise CompiledError(
            f"{folder} is not what the reference compiled (record.json beside it): delete {place}"
        )
    return Compiled(folder.resolve(), facts)


def _fill(runner: Runner, commit: str, place: Path) -> float:
    """Makes `place`/files with one run of the reference; the seconds that it took."""
    task, compiled = runner.task, runner.task.compiled
    assert compiled is not None
    shutil.rmtree(place, ignore_errors=True)
    code = commit_files(common_dir(task.root), commit, place / "code")
    run = replace(runner, budget=PATIENCE, compiled=None).run(
        code,
        [*task.base, *compiled.fill, f"{compiled.key}={RUN_DIR}/compiled"],
        seed=0,
        fold=min(runner.sealed),
        folder=place / "fill",
    )
    if run.status != "completed":
        raise CompiledError(
            f"{compiled.when} in task.base: the run that compiles the reference has {run.status}: {run.reason} "
            f"(log: {place / 'fill' / 'log.txt'})"
        )
    _take(place / "fill" / "run" / "compiled", place / "files")
    for done in (code, place / "fill"):
        shutil.rmtree(done)
    return run.seconds


def _take(source: Path, target: Path) -> None:
    """Copies regular files, and nothing else that a run may have left. Raises CompiledError where there is none."""
    target.mkdir()
    found = files(source)
    for name, file in found.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / name)
    if not found:
        raise CompiledError(f"the run that compiles the reference left nothing in {source}")


def _holds_for(runner: Runner, commit: str) -> dict[str, Any]:
    """What compiled code depends on, threads and the processor's instructions among it."""
    task, git = runner.task, Git(common_dir(runner.task.root))
    trees = [git("rev-parse", f"{commit}:{path}") for path in (task.package.path, task.config_path)]
    return {
        "code": trees,
        "arguments": [*task.base, *((*task.compiled.fill, task.compiled.key) if task.compiled else ())],
        "packages": {name: _version(name) for name in PACKAGES},
        "python": sys.version,
        "system": [platform.platform(), _processor()],
        "cards": [runner.sandbox.gpus(), _cards()],
        "environment": dict(runner.environment),
    }


def _processor() -> str:
    """Its name and its instructions."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _cards() -> list[str]:
    """NVIDIA's cards and driver, as the driver tells."""
    driver = Path("/proc/driver/nvidia")
    told = [*sorted(driver.glob("gpus/*/information")), *driver.glob("version")]
    texts = [line for file in told for line in file.read_text(errors="replace").splitlines()]
    return [line for line in texts if line.startswith(("Model", "NVRM"))]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One study at a time; the kernel lets go of the lock when its holder dies."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
