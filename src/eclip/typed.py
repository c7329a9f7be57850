"""Plain values and a dataclass of annotations go in; the dataclass comes out, or a ConfigError that names the key.

Annotations are what `typing` has (Literal, unions, lists, dataclasses), and `Annotated[float, Range(0, 1)]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal


class ConfigError(ValueError):
    """One setting is wrong; the message names the key, the value and what is allowed."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included unless `open_low`."""

    low: float
    high: float
    open_low: bool = False

    def __str__(self) -> str:
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"

    def holds(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high


def section(kind: type, values: Any, prefix: str = "") -> Any:
    """`values` as a `kind`. prefix: where it stands in the config, with its dot. Raises ConfigError."""
    where = prefix.rstrip(".") or "the config"
    if not isinstance(values, dict):
        raise ConfigError(f"{where}={_show(values)}: expected a section with keys, not a value")
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else "allowed: " + ", ".join(sorted(fields))
            raise ConfigError(f"{prefix}{key}={_show(values[key])}: unknown key; {hint}")
    for name, item in fields.items():
        if name not in values and item.default is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{name} is missing; give it a value")
    return kind(**{name: _value(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return section(typing.cast(type, hint), value, key + ".")
    accepted, result = _accepts(hint, value)
    if not accepted:
        raise ConfigError(f"{key}={_show(value)}: expected {_describe(hint)}")
    return result


def _accepts(hint: Any, value: Any) -> tuple[bool, Any]:
    """(whether the value fits the annotation, the value converted)."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True, value
    if origin in (types.UnionType, typing.Union):
        for option in typing.get_args(hint):
            accepted, result = _accepts(option, value)
            if accepted:
                return True, result
        return False, None
    if origin is Annotated:
        base, bounds = typing.get_args(hint)
        accepted, result = _accepts(base, value)
        return accepted and bounds.holds(result), result
    if origin is Literal:
        return value in typing.get_args(hint) and not isinstance(value, bool), value
    if origin is list:
        (inner,) = typing.get_args(hint)
        results = [_accepts(inner, item) for item in value] if isinstance(value, list) else [(False, None)]
        return all(fit for fit, _ in results), [item for _, item in results]
    if hint is types.NoneType:
        return value is None, None
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return fits, float(value) if fits else None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if origin is Annotated:
        base, bounds = typing.get_args(hint)
        return f"{'a whole number' if base is int else 'a number'} in {bounds}"
    if origin is Literal:
        options = [str(option) for option in typing.get_args(hint)]
        return options[0] if len(options) == 1 else "one of " + ", ".join(options)
    if origin is list:
        return f"a list, each {_describe(typing.get_args(hint)[0])}"
    names = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}
    return "null" if hint is types.NoneType else names.get(hint, str(hint))


def _show(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
