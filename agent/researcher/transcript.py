"""Prompts and replies go in; runs/<study>/<trial>/*.jsonl comes out for people to read, without secrets."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.researcher.hygiene import Scrubber


class Transcript:
    """One conversation: <purpose>.jsonl, one line a request or reply. A repeated round appends to the first.

    A conversation sends its beginning again with every call; it is stored once, then only what was added.
    """

    def __init__(self, folder: Path, purpose: str, scrubber: Scrubber) -> None:
        self.path = folder / f"{purpose}.jsonl"
        self._scrubber = scrubber
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """One line. Numbers that JSON has no word for are written as text."""
        entry = self._scrubber.json({"kind": kind, **content})
        line = json.dumps(sendable(entry), ensure_ascii=False)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def sendable(value: Any, depth: int = 0) -> Any:
    """JSON that any parser reads: no infinities, no half characters, no numbers or nests beyond reason."""
    if depth > 40:
        return "…"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float) and not abs(value) < 1e300:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and not abs(value) < 2**63:
        return "a number of many digits"
    if isinstance(value, Mapping):
        return {sendable(str(key)): sendable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sendable(item, depth + 1) for item in value]
    return value
