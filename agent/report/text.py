"""Texts that programs wrote go in, printable ones of bounded length come out."""

from __future__ import annotations

import re

# escape sequences of terminals, control characters, and what reverses the direction of writing
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def line(text: str, most: int = 300) -> str:
    """One line; the end is cut."""
    return _cut(CONTROL.sub("", " ".join(CONTROL.sub(" ", text).split())), most)


def lines(text: str, most: int) -> str:
    """Several lines; the end is cut."""
    return _cut(CONTROL.sub("", text), most)


def tail(text: str, most: int) -> str:
    """Several lines; the beginning is cut."""
    shown = CONTROL.sub("", text)
    return shown if len(shown) <= most else f"({len(shown) - most} characters before) …{shown[-most:]}"


def _cut(shown: str, most: int) -> str:
    return shown if len(shown) <= most else f"{shown[:most]}… ({len(shown) - most} characters more)"
