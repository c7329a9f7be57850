"""Keys and values of the space go in, the names that the model sees come out, and back again.

The blind arm sees `p01=c2` instead of `loss.name=siglip`: what is left of a researcher without prior
knowledge. Numbers stay numbers. The mapping follows from the keys alone, so it is the same after a resume,
and it is ordered by a hash, so the alphabet tells nothing either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from agent.records import Value
from agent.researcher.hygiene import one_line
from agent.searchers.base import Space


class Names:
    """The real names."""

    neutral = False

    def key(self, key: str) -> str:
        return key

    def value(self, key: str, value: Value) -> Value:
        return value

    def real(self, key: str, value: Value) -> tuple[str, Value]:
        """What the model wrote, as the lab calls it. Raises ValueError with the model's own names."""
        return key, value


class NeutralNames(Names):
    """p01, p02, … for keys; c1, c2, … for choices that are words or truth values."""

    neutral = True

    def __init__(self, space: Space) -> None:
        keys = sorted(space.distributions, key=_scramble)
        self._shown = {key: f"p{place:02d}" for place, key in enumerate(keys, 1)}
        self._keys = {shown: key for key, shown in self._shown.items()}
        self._choices = {key: _choices(space.distributions[key]) for key in keys}

    def key(self, key: str) -> str:
        return self._shown.get(key, "p00")

    def value(self, key: str, value: Value) -> Value:
        for shown, choice in self._choices.get(key, {}).items():
            if type(choice) is type(value) and choice == value:
                return shown
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if key in self._shown and number else "hidden"

    def real(self, key: str, value: Value) -> tuple[str, Value]:
        if key not in self._keys:
            raise ValueError(
                f"{one_line(key, 40)!r} is no parameter; there are p01 to p{len(self._keys):02d}"
            )
        name = self._keys[key]
        choices = self._choices[name]
        if choices and value not in choices:
            raise ValueError(f"{key}: the choices are {', '.join(choices)}")
        return name, choices[str(value)] if choices else value


PLAIN = Names()


def space_table(space: Space, names: Names = PLAIN) -> str:
    """One line a knob: name, range or choices, the reference's value, and when it matters."""
    lines = []
    for key in sorted(space.distributions, key=names.key):
        default = names.value(key, space.defaults[key])
        line = f"{names.key(key)}: {_range(key, space.distributions[key], names)}; reference {default}"
        condition = space.conditions.get(key)
        if condition is not None:
            line += (
                f"; matters only if {names.key(condition.key)}={names.value(condition.key, condition.value)}"
            )
        lines.append(line)
    return "\n".join(lines)


def outside(space: Space, overrides: Mapping[str, Value], names: Names = PLAIN) -> str | None:
    """Why the overrides are no point of the space, or None."""
    for key, value in overrides.items():
        if key not in space.distributions:
            return f"{one_line(key, 80)}: only the parameters of the space may be set"
        if not _within(space.distributions[key], value):
            shown = one_line(str(names.value(key, value)), 60)
            return f"{names.key(key)}={shown}: not in {_range(key, space.distributions[key], names)}"
    return None


def _within(distribution: BaseDistribution, value: Value) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(type(choice) is type(value) and choice == value for choice in distribution.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    whole = isinstance(distribution, FloatDistribution) or value == int(value)
    return distribution.low <= value <= distribution.high and whole


def _range(key: str, distribution: BaseDistribution, names: Names) -> str:
    if isinstance(distribution, CategoricalDistribution):
        shown = [str(names.value(key, choice)) for choice in distribution.choices]
        return "one of " + ", ".join(sorted(shown) if names.neutral else shown)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = "whole number" if isinstance(distribution, IntDistribution) else "number"
    return f"{kind} in [{distribution.low:g}, {distribution.high:g}]" + (", log scale" * distribution.log)


def _choices(distribution: BaseDistribution) -> dict[str, Value]:
    if not isinstance(distribution, CategoricalDistribution):
        return {}
    named = [choice for choice in distribution.choices if isinstance(choice, str | bool) or choice is None]
    if not named:
        return {str(choice): choice for choice in distribution.choices}
    return {
        f"c{place}": choice for place, choice in enumerate(sorted(distribution.choices, key=_scramble), 1)
    }


def _scramble(name: object) -> str:
    return hashlib.sha256(f"kento {name!r}".encode()).hexdigest()
