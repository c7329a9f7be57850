"""A searcher's overrides go in; what will run comes out, checked against the composed config, or Rejected.

An override is a plain value for a key that the composed config has. Nothing of Hydra's override language
passes, so what was checked is what runs.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.composition import CompositionError, config_hash, laid_over, leaves, reference_leaves
from agent.records import Value
from agent.space import Space
from agent.task import Task

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
TEXT = re.compile(r"[A-Za-z0-9_./:@ -]*", re.ASCII)
LONGEST_KEY, LONGEST_TEXT, MOST_OVERRIDES, LARGEST_INT = 120, 200, 100, 2**53
FORMS = (
    (r"^\+", "`+key` adds keys; a proposal sets existing keys only"),
    (r"^~", "`~key` deletes keys; a proposal sets existing keys only"),
    (r"@", "`@` moves config groups; a proposal sets existing keys only"),
    (r"=", "a key must not contain `=`; give key and value apart"),
    (r"\s", "a key has no white space"),
    (r"\$\{", "a key has no interpolation"),
    (r"[,\[\]{}()]", "a key has no list or sweep syntax"),
)


class Rejected(ValueError):
    """A proposal that will not run; the message is a reason that a searcher can learn from."""


@dataclass(frozen=True)
class Validated:
    """What will run.

    overrides: the complete ones over the reference (base plus proposal), values converted to the key's
    type.
    arguments: the command line after `python train.py`, without the runner's own arguments.
    config_hash: identity of the composed config, training seed and run folder apart.
    config: every leaf of the composed config, interpolations resolved.
    """

    overrides: Mapping[str, Value]
    arguments: tuple[str, ...]
    config_hash: str
    config: Mapping[str, Any]

    def fingerprint(self, code_hash: str) -> str:
        """Two trials with the same fingerprint are the same experiment."""
        return hashlib.sha256(f"{self.config_hash} {code_hash}".encode()).hexdigest()[:32]


def validate(
    task: Task, base: Mapping[str, Value], overrides: Mapping[str, Value], space: Space | None = None
) -> Validated:
    """Checks `overrides` laid over `base` (the recipe's, or none for the reference). Raises Rejected.

    With a `space`, its ranges bind for the keys it holds; the task's own check has the last word.
    """
    if not isinstance(overrides, Mapping) or len(overrides) > MOST_OVERRIDES:
        raise Rejected(f"overrides must be a mapping of at most {MOST_OVERRIDES} keys")
    reference = reference_leaves(task)
    checked = {key: _checked(task, reference, key, value, space) for key, value in overrides.items()}
    full = {**base, **checked}
    return _compose(task, full)


def _compose(task: Task, full: Mapping[str, Value]) -> Validated:
    arguments = tuple(f"{key}={quoted(value)}" for key, value in sorted(full.items()))
    try:
        config = laid_over(task, arguments)
        flat = leaves(config)
        _same(task, full, flat)
        task.function("check")(config)
    except CompositionError as error:
        raise Rejected(f"the config does not compose: {error}") from error
    except ValueError as error:
        raise Rejected(str(error)) from error
    return Validated(dict(full), (*task.base, *arguments), config_hash(task, flat), flat)


def _same(task: Task, full: Mapping[str, Value], flat: Mapping[str, Any]) -> None:
    """What Hydra composed is what was asked for."""
    for key, value in full.items():
        if key not in task.groups and (key not in flat or flat[key] != value):
            raise Rejected(f"{key}={value!r} was composed as {flat.get(key)!r}")


def _checked(task: Task, reference: Mapping[str, Any], key: Any, value: Any, space: Space | None) -> Value:
    name = _key(key)
    if name in task.groups:
        if value not in task.groups[name]:
            raise Rejected(f"{name}={value!r}: expected one of {', '.join(task.groups[name])}")
        return str(value)
    if pattern := task.lock_on(name):
        raise Rejected(f"{name} is locked (by {pattern!r}): it is the same for every trial")
    _known(task, reference, name)
    converted = _typed(name, value, reference[name], space)
    if space is not None and name in space.distributions and (problem := space.outside(name, converted)):
        raise Rejected(f"{name}: {problem}")
    return converted


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise Rejected(f"key {key!r} must be text")
    shown = ascii(key[:LONGEST_KEY])
    for pattern, reason in FORMS:
        if re.search(pattern, key):
            raise Rejected(f"key {shown}: {reason}")
    if len(key) > LONGEST_KEY or not KEY.fullmatch(key):
        raise Rejected(
            f"key {shown}: expected dotted names of plain letters, digits and _, like optimizer.lr"
        )
    return key


def _known(task: Task, reference: Mapping[str, Any], key: str) -> None:
    if key in reference:
        return
    free = [leaf for leaf in reference if not task.lock_on(leaf)]
    if any(leaf.startswith(key + ".") for leaf in reference):
        inside = [leaf for leaf in free if leaf.startswith(key + ".")]
        raise Rejected(f"{key} is a section, not a value; set one of {', '.join(inside[:20])}")
    last = key.rsplit(".", 1)[-1]
    near = [leaf for leaf in free if leaf.rsplit(".", 1)[-1] == last]
    near = near or difflib.get_close_matches(key, free, n=3)
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"keys are {', '.join(free[:40])}"
    raise Rejected(f"unknown key {key}; {hint}")


def _typed(key: str, value: Any, default: Any, space: Space | None) -> Value:
    """The value in the key's type. A whole number may stand for a float; the task's check knows the rest."""
    if isinstance(value, list | tuple | dict | set):
        raise Rejected(f"{key}: a list or mapping; an override is one plain value")
    if isinstance(default, list):
        raise Rejected(f"{key} holds a list, which a proposal cannot set")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise Rejected(f"{key}: {type(value).__name__} is not a plain value")
    if isinstance(value, str):
        _text(key, value)
    if default is None:
        return _finite(key, value) if _numeric(value) else value
    kind = "true or false" if isinstance(default, bool) else "a number" if _numeric(default) else "text"
    fits = {
        "true or false": isinstance(value, bool),
        "a number": _numeric(value),
        "text": isinstance(value, str),
    }
    if not fits[kind]:
        raise Rejected(f"{key}={value!r}: expected {kind}, like {default!r}")
    return _number(key, value, default, space) if kind == "a number" else value


def _number(key: str, value: Any, default: Any, space: Space | None) -> Value:
    number = _finite(key, value)
    declared = type(space.distributions[key]).__name__ if space and key in space.distributions else ""
    if declared == "FloatDistribution" or (not declared and isinstance(default, float)):
        return float(number)
    return int(number) if number == int(number) else number


def _finite(key: str, value: Any) -> int | float:
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise Rejected(f"{key}: the number is too large")
    if not math.isfinite(value):
        raise Rejected(f"{key}={value}: expected a finite number")
    return value


def _text(key: str, value: str) -> None:
    shown = ascii(value[:60])
    if re.search(r"\$\{", value):
        raise Rejected(f"{key}={shown}: interpolations are not allowed; give the value")
    if re.search(r"^(choice|range|interval|glob|sort|shuffle|tag|extend_list)\(|,", value):
        raise Rejected(f"{key}={shown}: sweep syntax is not allowed; a proposal is one configuration")
    if re.search(r"[\[\]{}]", value):
        raise Rejected(
            f"{key}={shown}: list and mapping syntax are not allowed; an override is one plain value"
        )
    if len(value) > LONGEST_TEXT or not TEXT.fullmatch(value):
        raise Rejected(
            f"{key}={shown}: text may hold {LONGEST_TEXT} plain letters, digits and _ . / : @ - space"
        )


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def quoted(value: Value) -> str:
    """A plain value in Hydra's override grammar, so that it parses to exactly itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else f"'{value}'"
