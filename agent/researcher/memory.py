"""What outlives a round: scratchpad.md, plan.md, inbox.md in runs/<study>/ go in and out, small and whole.

Nothing else does. Each round is a fresh conversation, so a killed one loses only itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.researcher.hygiene import clean

SCRATCHPAD_CHARS = 6000
INBOX_CHARS = 8000
PLAN_CHARS = 8000


@dataclass(frozen=True)
class Idea:
    """One entry of the plan."""

    hypothesis: str
    category: str
    expected_gain: str
    cost: str

    def line(self) -> str:
        return f"[{self.category}] {self.hypothesis} (expected gain: {self.expected_gain}; cost: {self.cost})"


@dataclass(frozen=True)
class Plan:
    """`trial` and `phase`: when the planning call made it.

    `text`: the ranked list, as a person may edit it.
    """

    trial: int
    phase: str
    reason: str
    text: str


class Memory:
    """The three files of one study. People may edit each of them between rounds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scratchpad(self) -> str:
        return _read(self.folder / "scratchpad.md", SCRATCHPAD_CHARS)

    def write_scratchpad(self, text: str) -> None:
        """Raises ValueError if it is too long: the writer, not the file, decides what goes."""
        if len(text) > SCRATCHPAD_CHARS:
            raise ValueError(f"{len(text)} characters; the scratchpad holds {SCRATCHPAD_CHARS}: shorten it")
        _write(self.folder / "scratchpad.md", clean(text, SCRATCHPAD_CHARS))

    def inbox(self) -> str:
        """What a person wants the researcher to know. It stays until the person takes it out."""
        return _read(self.folder / "inbox.md", INBOX_CHARS)

    def plan(self) -> Plan | None:
        """None before the first plan, or if the head of the file was damaged: then one is made anew."""
        text = _read(self.folder / "plan.md", PLAN_CHARS + 1000) + "\n"
        _, _, rest = text.partition("---\n")
        head, mark, body = rest.partition("\n---\n")
        try:
            values: Any = yaml.safe_load(head) if mark else None
            return Plan(int(values["trial"]), str(values["phase"]), str(values["reason"]), body.strip())
        except (yaml.YAMLError, TypeError, KeyError, ValueError):
            return None

    def write_plan(self, trial: int, phase: str, reason: str, ideas: Sequence[Idea]) -> None:
        """A planning call's result; `ideas` in the order in which they are to be tried."""
        self.keep_plan(Plan(trial, phase, reason, ranked(ideas)))

    def revise_plan(self, ideas: Sequence[Idea]) -> None:
        """New ideas under the head of the plan that there is: when it was made stays as it was."""
        text, old = ranked(ideas), self.plan()
        if old is None:
            raise ValueError("there is no plan yet to revise; propose a trial")
        self.keep_plan(Plan(old.trial, old.phase, old.reason, text))

    def keep_plan(self, plan: Plan) -> None:
        head = {"trial": plan.trial, "phase": plan.phase, "reason": plan.reason}
        _write(self.folder / "plan.md", f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{plan.text}\n")


def ranked(ideas: Sequence[Idea]) -> str:
    """The plan's text. Raises ValueError if it is too long to be shown in every round."""
    text = clean("\n".join(f"{place}. {idea.line()}" for place, idea in enumerate(ideas, 1)), 10**6)
    if len(text) > PLAN_CHARS:
        raise ValueError(f"{len(text)} characters; the plan holds {PLAN_CHARS}: shorten it")
    return text


def _read(path: Path, most: int) -> str:
    # a person's file: any bytes, any size, or none
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return clean(file.read(4 * most).decode("utf-8", "replace"), most).strip()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
