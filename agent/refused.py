"""Hydra's refusal of a command's words goes in, one line comes out: what was given, and what there is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hydra.errors import OverrideParseException

CHOICE = re.compile(r"Could not find '([^']+)'\s+Available options in '[^']+':\n((?:\t\S+\n?)+)")
KEY = re.compile(r"(?:Could not override|Key) '([^']+)'")
FULL_KEY = re.compile(r"full_key: (\S+)")


def explained(error: BaseException, known: Callable[[], Iterable[str]]) -> str:
    """One line for one of Hydra's refusals. known: every key and group of the config; asked for a key that is not."""
    said = f"{error}\n{error.__cause__ or ''}"
    if found := CHOICE.search(said):
        group, _, choice = found.group(1).rpartition("/")
        choices = [word for word in found.group(2).split() if not word.startswith("_")]
        return f"{group}={choice}: {_near(choice, choices)}there are {', '.join(choices)}"
    if found := KEY.search(said):
        full = FULL_KEY.search(said)
        key = full.group(1) if full else found.group(1)
        return f"{key}: unknown key; {_near(key, known()) or '--cfg job shows all of them'}".strip()
    text = str(error.__cause__ or error).split("Config search path")[0].split("See https://")[0]
    given = f"{error.override}: " if isinstance(error, OverrideParseException) else ""
    return given + " ".join(text.split())


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a plain config, sections among them, dotted."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from keys_of(value, f"{prefix}{key}.")


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}? " if near else ""
