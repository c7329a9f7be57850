"""configs/space/*.yaml goes in, a Space comes out: which keys a sampler varies, how, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from agent.composition import reference_leaves
from agent.records import Value
from agent.task import Task

FIELDS = {
    "float": ({"low", "high"}, {"log", "step", "when"}),
    "int": ({"low", "high"}, {"log", "step", "when"}),
    "categorical": ({"choices"}, {"when"}),
}


class SpaceError(ValueError):
    """The space file is wrong; the message names the file, the key and what is expected."""


@dataclass(frozen=True)
class Condition:
    """The knob matters only while `key` has `value`."""

    key: str
    value: Value


@dataclass(frozen=True)
class Space:
    """Hydra key -> distribution; condition, where there is one; value in the reference."""

    distributions: Mapping[str, BaseDistribution]
    conditions: Mapping[str, Condition]
    defaults: Mapping[str, Value]

    @classmethod
    def load(cls, path: Path, task: Task) -> Space:
        """Reads a space file and checks it against the task's reference. Raises SpaceError."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SpaceError(f"{path}: cannot be read as YAML: {error}") from error
        return cls.from_mapping(values, task, where=str(path))

    @classmethod
    def from_mapping(cls, values: Any, task: Task, where: str = "space") -> Space:
        """The same from a composed config's `space` group, as plain containers. Raises SpaceError."""
        if not isinstance(values, Mapping) or not values:
            raise SpaceError(f"{where}: expected `key: {{type: …}}` lines, got {values!r}")
        reference = reference_leaves(task)
        distributions = {str(key): _distribution(knob, f"{where}: {key}") for key, knob in values.items()}
        conditions = {key: _condition(knob, where, key) for key, knob in values.items() if "when" in knob}
        space = cls(distributions, conditions, {key: reference.get(key) for key in distributions})
        for key in distributions:
            space._fits(key, task, reference, where)
        return space

    def _fits(self, key: str, task: Task, reference: Mapping[str, Any], where: str) -> None:
        """The knob exists, may be set, and the reference lies within it: samplers are told the reference."""
        if key not in reference:
            raise SpaceError(f"{where}: {key} is no key of the task's config")
        if pattern := task.lock_on(key):
            raise SpaceError(f"{where}: {key} is locked by the task ({pattern})")
        if problem := self.outside(key, reference[key]):
            raise SpaceError(f"{where}: {key}: the reference's value is outside: {problem}")
        if condition := self.conditions.get(key):
            parent = self.distributions.get(condition.key)
            if parent is None or condition.key in self.conditions:
                raise SpaceError(
                    f"{where}: {key}: when: {condition.key} must be an unconditional knob itself"
                )
            if self.outside(condition.key, condition.value):
                raise SpaceError(f"{where}: {key}: when: {condition.key} never is {condition.value!r}")

    def outside(self, key: str, value: Any) -> str | None:
        """Why `value` is not in the knob's range, or None. Steps bind samplers only."""
        distribution = self.distributions[key]
        if isinstance(distribution, CategoricalDistribution):
            same = [choice for choice in distribution.choices if choice == value and _alike(choice, value)]
            return None if same else f"{value!r} is not one of {', '.join(map(str, distribution.choices))}"
        whole = isinstance(distribution, IntDistribution)
        if isinstance(value, bool) or not isinstance(value, int | float) or (whole and value != int(value)):
            return f"{value!r} is not a {'whole ' if whole else ''}number"
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        if not distribution.low <= value <= distribution.high:
            return f"{value:g} is not in [{distribution.low:g}, {distribution.high:g}]"
        return None


def _distribution(knob: Any, where: str) -> BaseDistribution:
    kind = knob.get("type") if isinstance(knob, Mapping) else None
    if kind not in FIELDS:
        raise SpaceError(f"{where}: type={kind!r}; expected one of {', '.join(FIELDS)}")
    needed, optional = FIELDS[kind]
    given = set(knob) - {"type"}
    if not needed <= given or not given <= needed | optional:
        raise SpaceError(f"{where}: a {kind} needs {sorted(needed)} and may have {sorted(optional)}")
    try:
        if kind == "categorical":
            return CategoricalDistribution(tuple(knob["choices"]))
        make = IntDistribution if kind == "int" else FloatDistribution
        options = {name: knob[name] for name in ("log", "step") if name in knob}
        return make(knob["low"], knob["high"], **options)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{where}: {error}") from error


def _condition(knob: Mapping[str, Any], where: str, key: str) -> Condition:
    when = knob["when"]
    if not isinstance(when, Mapping) or len(when) != 1:
        raise SpaceError(f"{where}: {key}: when={when!r}; expected one `key: value`")
    [(parent, value)] = when.items()
    return Condition(str(parent), value)


def _alike(first: Any, second: Any) -> bool:
    """True == 1 in Python; not here."""
    return isinstance(first, bool) == isinstance(second, bool)
