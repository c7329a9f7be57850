"""A recipe's kept trials and the changes to leave out go in; the recipe without them comes out: settings and files.

A setting goes back to what it was before the change. An edit is taken back as `git revert` would, by a three-way
merge of the file; where later edits build on it, that is a conflict, and the change cannot be left out alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.composition import reference_leaves
from agent.records import Trial, Value
from agent.retraining import Bench
from agent.task import Task


class Unremovable(RuntimeError):
    """The change cannot be left out; the message says why."""


@dataclass(frozen=True)
class Change:
    """Something that a recipe changed: keys with the values before, and the kept trials whose edits belong to it.

    trial: the last one that had a part in it.
    """

    trial: int
    before: tuple[tuple[str, Value], ...]
    edited: tuple[str, ...] = ()
    edits_of: tuple[int, ...] = ()
    superseded: tuple[str, ...] = ()

    def __str__(self) -> str:
        edited = [f"{path} (trial {self.trial})" for path in self.edited]
        return ", ".join([*(key for key, _ in self.before), *self.superseded, *edited])


@dataclass(frozen=True)
class Removal:
    """A recipe without some changes. files: path -> content, where it differs from the winner's commit.

    name: a folder's, and the removal's identity in the ledger.
    """

    name: str
    commit: str
    overrides: Mapping[str, Value]
    files: Mapping[str, bytes]

    def arguments(self, bench: Bench) -> tuple[str, ...]:
        """Its command line. Raises Rejected."""
        return bench.arguments(self.code(bench), self.overrides)

    def code(self, bench: Bench) -> Path:
        """Its files, in a folder of their own."""
        whole = bench.code(self.commit)
        if not self.files:
            return whole
        target = bench.folder / "code" / self.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(whole, target, ignore=shutil.ignore_patterns("__pycache__"))
        for path, content in self.files.items():
            (target / path).write_bytes(content)
        return target


def changes_of(steps: Sequence[Trial], by: str, task: Task) -> list[Change]:
    """What the recipe's kept trials changed, in order. `steps`: the lineage, reference first.

    by "trial": one change for each kept trial. by "key": one for each key that differs from the reference in
    the end, whoever changed it, and one for each trial with edits.
    """
    defaults = reference_leaves(task)
    if by == "trial":
        return [_of_trial(number, steps, defaults) for number in range(1, len(steps))]
    start, end = steps[0].overrides, steps[-1].overrides
    found = []
    for key in sorted({*start, *end}):
        before = start.get(key, defaults.get(key))
        if end.get(key, defaults.get(key)) != before:
            last = next(s.number for s in steps if s.overrides.get(key) == end.get(key))
            found.append(Change(last, ((key, before),)))
    edited = [step for step in steps[1:] if step.proposal.edits]
    return found + [Change(s.number, (), _paths(s), (s.number,)) for s in edited]


def _of_trial(index: int, steps: Sequence[Trial], defaults: Mapping[str, Value]) -> Change:
    """Keys that a later trial has changed again are superseded: the final recipe holds nothing of this step."""
    step, before = steps[index], steps[index - 1].overrides
    reset: list[tuple[str, Value]] = []
    superseded: list[tuple[str, Value]] = []
    for key in sorted({*step.overrides, *before}):
        old, new = before.get(key, defaults.get(key)), step.overrides.get(key, defaults.get(key))
        if old != new:
            final = all(s.overrides.get(key, defaults.get(key)) == new for s in steps[index:])
            (reset if final else superseded).append((key, old))
    edits_of = (step.number,) if step.proposal.edits else ()
    return Change(step.number, tuple(reset), _paths(step), edits_of, tuple(key for key, _ in superseded))


def _paths(trial: Trial) -> tuple[str, ...]:
    return tuple(sorted({edit.path for edit in trial.proposal.edits}))


def removed(changes: Iterable[Change], bench: Bench, steps: Sequence[Trial]) -> Removal:
    """The winner's recipe without these changes, the latest taken back first. Raises Unremovable."""
    changes = sorted(changes, key=lambda change: change.trial, reverse=True)
    winner, defaults = steps[-1], reference_leaves(bench.task)
    overrides, files = dict(winner.overrides), dict[str, bytes]()
    for change in changes:
        if not change.before and not change.edits_of:
            raise Unremovable(
                f"later trials changed {', '.join(change.superseded)} again: nothing of it is left"
            )
        for key, value in change.before:
            overrides[key] = value
            if value == defaults.get(key) and key not in steps[0].overrides:
                del overrides[key]
        for number in change.edits_of:
            files |= _taken_back(number, steps, bench, files)
    trials = "-".join(f"{change.trial:04d}" for change in changes)
    return Removal(f"without{trials[:60]}-{_digest(overrides, files)}", winner.commit, overrides, files)


def _digest(overrides: Mapping[str, Value], files: Mapping[str, bytes]) -> str:
    """Identity of what is left: the same reduced recipe is measured once, however it came about."""
    contents = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    text = json.dumps([dict(overrides), contents], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _taken_back(
    number: int, steps: Sequence[Trial], bench: Bench, files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The files that a trial edited, as they would be without its commit."""
    index = next(i for i, step in enumerate(steps) if step.number == number)
    now, with_it, without = (bench.code(steps[i].commit) for i in (-1, index, index - 1))
    found = {}
    for path in _paths(steps[index]):
        current = files[path] if path in files else (now / path).read_bytes()
        base, other = (with_it / path).read_bytes(), (without / path).read_bytes()
        found[path] = merged(current, base, other, f"{path}: later trials edited the same lines as {number}")
    return found


def merged(current: bytes, base: bytes, other: bytes, conflict: str) -> bytes:
    """`current` with what leads from `base` to `other`. Raises Unremovable(conflict)."""
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / name for name in ("current", "base", "other")]
        for name, content in zip(names, (current, base, other), strict=True):
            name.write_bytes(content)
        done = subprocess.run(
            ["git", "merge-file", "-p", *map(str, names)], capture_output=True, cwd=folder, check=False
        )
    if done.returncode:
        raise Unremovable(conflict)
    return done.stdout
