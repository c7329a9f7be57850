"""configs/task/*.yaml goes in, a Task comes out: what may vary, what may not, and which host code judges it.

The lab knows a task through this file alone. Dotted names (`package.module:function`) are imported only when
`Task.function` is called, so that nothing here depends on the task's packages.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from agent.sandbox import Preload
from agent.task_reader import Reader, TaskError

Direction = Literal["minimize", "maximize"]
Scale = Literal["log", "linear"]
ROLES = ("check", "judge", "seal", "seal_test")
RUN_FIELDS = ("run_dir", "seed", "fold", "seconds", "sealed")
DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
OVERRIDE = re.compile(r"([A-Za-z_][\w./@-]*)=(.*)")


@dataclass(frozen=True)
class Editable:
    """Files that a proposal may edit: globs (`**` crosses folders), exceptions, and size caps in bytes."""

    files: tuple[str, ...]
    excepted: tuple[str, ...] = ()
    most_edits: int = 20
    most_edit_bytes: int = 32_768
    most_file_bytes: int = 131_072

    def holds(self, path: str) -> bool:
        return _matches(path, self.files) and not _matches(path, self.excepted)


@dataclass(frozen=True)
class Recipe:
    """The config file (`# @package _global_`) that a kept trial writes, and the override that selects it."""

    file: str
    select: str


@dataclass(frozen=True)
class Package:
    """A run must prove that `name` was imported from `path` in the workspace."""

    name: str
    path: str


@dataclass(frozen=True)
class Compiled:
    """Runs whose base holds the override `when` are given a folder of compiled code in `key` (agent.compiled).

    fill: overrides of the reference's run that fills the folder, long enough to compile all that a run will.
    """

    when: str
    key: str
    fill: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A Hydra program as the lab sees it.

    root: folder that the other paths are relative to (the checkout, or a study's workspace: see `at`).
    base: overrides that make the reference; every run gets them first.
    arguments: what the runner adds to a run; `{run_dir} {seed} {fold} {seconds} {sealed}` are filled in.
    scale: on which scale equal changes count equally; "log" where noise grows with the score's level.
    folds: a trial's runs, one fold each; after `early_folds` of them a hopeless trial may be stopped.
    locked: patterns of keys that no proposal may set; keys that `arguments` set are locked too.
    groups: config groups that a proposal may choose from, with the choices; all others are locked.
    readable: further files that a searcher may read.
    try_out: overrides of the short run that checks edits before the budget is spent on them.
    masked: paths hidden from a sandboxed run, though the workspace holds them.
    check(config): raises ValueError with the key, the value and what is allowed.
    seal(config, folds, out_root): [(fold, folder to mount, key that stays on the host)]; called again with
    the same `out_root` it gives what is there.
    seal_test(config, out_root): (folder to mount, key) of the final training: everything to learn from, the
    test set to embed; called again it gives what is there.
    judge(embeddings, key): metrics, `metric` among them; raises ValueError with a reason.
    compiled: what runs compile, and may read from a folder that the host has made.
    preload: what a run's process may have imported before the task's program begins: libraries, nothing of the task's.
    longer: keys of whole numbers (steps, say) that are multiplied where a recipe gets a multiple of the budget.
    """

    root: Path
    name: str
    command: tuple[str, ...]
    config_path: str
    config_name: str
    base: tuple[str, ...]
    metric: str
    direction: Direction
    scale: Scale
    folds: tuple[int, ...]
    early_folds: int
    arguments: tuple[str, ...]
    editable: Editable
    locked: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    masked: tuple[str, ...]
    readable: tuple[str, ...]
    try_out: tuple[str, ...]
    recipe: Recipe
    package: Package
    check: str
    judge: str
    seal: str
    seal_test: str
    longer: tuple[str, ...]
    preload: Preload | None
    compiled: Compiled | None

    @classmethod
    def load(cls, path: Path, root: Path) -> Task:
        """Reads a task file. Raises TaskError."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TaskError(f"{path}: cannot be read as YAML: {error}") from error
        return cls.from_mapping(values, root, where=str(path))

    @classmethod
    def from_mapping(cls, values: Any, root: Path, where: str = "task") -> Task:
        """The same from a composed config's `task` group, as plain containers. Raises TaskError."""
        reader = Reader(values, where)
        expected = [item.name for item in fields(cls) if item.name != "root"]
        reader.refuse_unknown(expected)
        task = cls(
            root=root.resolve(),
            command=reader.texts("command", least=1),
            base=reader.assignments("base"),
            arguments=reader.texts("arguments", pattern=OVERRIDE),
            locked=reader.texts("locked"),
            masked=reader.texts("masked", relative=True),
            longer=reader.texts("longer"),
            readable=reader.texts("readable", relative=True),
            try_out=reader.texts("try_out", pattern=OVERRIDE),
            folds=reader.folds(),
            early_folds=reader.number("early_folds", 0),
            direction=cast(Direction, reader.choice("direction", get_args(Direction))),
            scale=cast(Scale, reader.choice("scale", get_args(Scale))),
            editable=_editable(reader.section("editable")),
            groups=_groups(reader.section("groups")),
            recipe=_recipe(reader.section("recipe")),
            preload=_preload(reader.section("preload")) if reader.values.get("preload") is not None else None,
            compiled=_compiled(reader.section("compiled"))
            if reader.values.get("compiled") is not None
            else None,
            package=_package(reader.section("package")),
            **{name: reader.text(name, pattern=DOTTED) for name in ROLES},
            **{name: reader.text(name) for name in ("name", "config_path", "config_name", "metric")},
        )
        task._together(where)
        return task

    def _together(self, where: str) -> None:
        try:
            self.run_arguments(run_dir="r", seed=0, fold=0, seconds=1.0, sealed="s")
        except (KeyError, IndexError, ValueError) as error:
            raise TaskError(
                f"{where}: arguments: only {_braced(RUN_FIELDS)} can be filled in: {error}"
            ) from None
        if self.editable.holds(self.recipe.file):
            raise TaskError(f"{where}: recipe.file={self.recipe.file}: must not be editable")
        for module in self.preload.modules if self.preload else ():
            if module.partition(".")[0] == self.package.name:
                raise TaskError(
                    f"{where}: preload.modules: {module} is the task's own, which proposals may edit"
                )
        if self.early_folds > len(self.folds):
            raise TaskError(f"{where}: early_folds={self.early_folds}: there are {len(self.folds)} folds")

    @property
    def config_dir(self) -> Path:
        return self.root / self.config_path

    def at(self, root: Path) -> Task:
        """The same task with another tree (a study's workspace) as its root."""
        return replace(self, root=root.resolve())

    def run_arguments(self, **values: Any) -> tuple[str, ...]:
        """The runner's own overrides of one run; needs every one of RUN_FIELDS."""
        return tuple(argument.format(**values) for argument in self.arguments)

    @property
    def run_keys(self) -> tuple[str, ...]:
        """Keys that the runner sets: never a proposal's, and no part of a configuration's identity."""
        return tuple(argument.partition("=")[0] for argument in self.arguments)

    def lock_on(self, key: str) -> str | None:
        """The pattern that locks `key`, or None."""
        machine = (self.compiled.key, self.compiled.when.partition("=")[0]) if self.compiled else ()
        for pattern in (*self.locked, *self.run_keys, *machine):
            if fnmatchcase(key, pattern) or key.startswith(pattern + "."):
                return pattern
        return None

    def function(self, role: Literal["check", "judge", "seal", "seal_test"]) -> Callable[..., Any]:
        """Imports the task's host function. Raises TaskError if it is not there."""
        dotted: str = getattr(self, role)
        module, _, name = dotted.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise TaskError(f"task {self.name}: {role}={dotted}: {error}") from error
        return cast(Callable[..., Any], found)


def _editable(reader: Reader) -> Editable:
    caps = ("most_edits", "most_edit_bytes", "most_file_bytes")
    reader.refuse_unknown(("files", "except", *caps))
    files, excepted = reader.texts("files", relative=True), reader.texts("except", relative=True)
    return Editable(files, excepted, **{cap: reader.number(cap, 1) for cap in caps})


def _groups(reader: Reader) -> dict[str, tuple[str, ...]]:
    return {key: reader.texts(key, least=1) for key in reader.values}


def _recipe(reader: Reader) -> Recipe:
    reader.refuse_unknown(("file", "select"))
    return Recipe(reader.text("file", relative=True), reader.text("select", pattern=OVERRIDE))


def _preload(reader: Reader) -> Preload:
    reader.refuse_unknown(("modules", "hidden"))
    return Preload(reader.texts("modules", pattern=MODULE), reader.texts("hidden", pattern=MODULE))


def _compiled(reader: Reader) -> Compiled:
    reader.refuse_unknown(("when", "key", "fill"))
    when, key = reader.text("when", pattern=OVERRIDE), reader.text("key")
    return Compiled(when, key, reader.texts("fill", pattern=OVERRIDE))


def _package(reader: Reader) -> Package:
    reader.refuse_unknown(("name", "path"))
    return Package(reader.text("name"), reader.text("path", relative=True))


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(re.fullmatch(_pattern(glob), path) for glob in globs)


def _pattern(glob: str) -> str:
    """`**/` is any number of folders, `*` and `?` stay within one name."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    wild = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(part, re.escape(part)) for part in parts)


def _braced(names: Iterable[str]) -> str:
    return " ".join(f"{{{name}}}" for name in names)
