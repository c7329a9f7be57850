"""A mapping of a task file goes in, values of the expected types come out; or TaskError: where, what, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, cast


class TaskError(ValueError):
    """The task file is wrong; the message names the file, the key and what is expected."""


class Reader:
    """Typed access to one mapping of the file; every error says where, what and what is expected."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise TaskError(f"{where}: expected a mapping, got {values!r}")
        self.values, self.where = values, where

    def error(self, key: str, expected: str) -> TaskError:
        given = f"{key}={self.values[key]!r}" if key in self.values else f"{key} is missing"
        return TaskError(f"{self.where}: {given}; expected {expected}")

    def refuse_unknown(self, expected: Iterable[str]) -> None:
        for key in self.values:
            if key not in expected:
                raise TaskError(f"{self.where}: unknown key {key!r}; allowed: {', '.join(expected)}")

    def text(self, key: str, pattern: re.Pattern[str] | None = None, relative: bool = False) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value or (pattern and not pattern.fullmatch(value)):
            raise self.error(key, f"text like {pattern.pattern}" if pattern else "text")
        if relative and not _inside(value):
            raise self.error(key, "a path inside the workspace")
        return value

    def texts(
        self, key: str, least: int = 0, pattern: re.Pattern[str] | None = None, relative: bool = False
    ) -> tuple[str, ...]:
        value = self.values.get(key)
        if not isinstance(value, list | tuple) or len(value) < least:
            raise self.error(key, f"a list of at least {least} texts")
        for item in value:
            if not isinstance(item, str) or not item or (pattern and not pattern.fullmatch(item)):
                raise self.error(
                    key, f"a list of texts like {pattern.pattern}" if pattern else "a list of texts"
                )
            if relative and not _inside(item):
                raise self.error(key, "paths inside the workspace")
        return tuple(value)

    def assignments(self, key: str) -> tuple[str, ...]:
        """A mapping of config keys or groups to values, as `key=value`."""
        value = self.values.get(key)
        plain = isinstance(value, Mapping) and all(
            isinstance(item, bool | int | float | str) for item in value.values()
        )
        if not isinstance(value, Mapping) or not plain:
            raise self.error(key, "a mapping of config keys or groups to plain values")
        return tuple(f"{name}={item}" for name, item in value.items())

    def number(self, key: str, low: int) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.error(key, f"a whole number of at least {low}")
        return value

    def folds(self) -> tuple[int, ...]:
        value = self.values.get("folds")
        whole = isinstance(value, list | tuple) and all(type(fold) is int and fold >= 0 for fold in value)
        if not whole or not value or len(set(value)) != len(value):
            raise self.error("folds", "a list of distinct whole numbers from 0")
        return tuple(value)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        if self.values.get(key) not in allowed:
            raise self.error(key, "one of " + ", ".join(allowed))
        return cast(str, self.values[key])

    def section(self, key: str) -> Reader:
        if not isinstance(self.values.get(key), Mapping):
            raise self.error(key, "a section")
        return Reader(self.values[key], f"{self.where}: {key}")


def _inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\\" not in path
