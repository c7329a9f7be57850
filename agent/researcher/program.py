"""agent/program.md goes in; its text and the phases that the lab enforces come out, or a ProgramError.

The file holds one ```yaml block with the keys of `Program` below; all the rest is prose for the researcher.
It is read again before every round, so a person can steer a study that runs.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def program_path(name: str) -> Path:
    """`searcher.program`, relative to the checkout."""
    return Path(__file__).resolve().parents[2] / name


class ProgramError(ValueError):
    """The program is wrong; the message names file, key, value and what is expected."""


@dataclass(frozen=True)
class Phase:
    """A share of the budget's trials and what it allows.

    max_changes counts changed keys, and all edits of a proposal as one.
    """

    name: str
    share: float
    overrides: bool
    edits: bool
    max_changes: int
    web_search: bool

    def permissions(self) -> str:
        """One line for the prompt."""
        allowed = [
            "config overrides" if self.overrides else "no config overrides",
            "code edits" if self.edits else "no code edits",
            "web search" if self.web_search else "no web search",
        ]
        most = (
            "one change a trial" if self.max_changes == 1 else f"at most {self.max_changes} changes a trial"
        )
        return f"{', '.join(allowed)}; {most} (all code edits together count as one change)"


@dataclass(frozen=True)
class Program:
    """The parsed file. `conclude_after` is the share of the trials after which the study may be ended early.

    plateau: trials without a keep after which a new plan is made.
    most_in_a_row: trials of one category in a row without a keep; the next must be of another.
    """

    text: str
    phases: tuple[Phase, ...]
    categories: tuple[str, ...]
    most_in_a_row: int
    plateau: int
    conclude_after: float

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def phase(self, number: int, trials: int) -> Phase:
        """The phase of trial `number` (from 0) in a study of `trials` trials."""
        # the middle of the trial's own slice, so that rounding favours no phase
        used, end = (number + 0.5) / trials, 0.0
        for phase in self.phases:
            end += phase.share
            if used < end:
                return phase
        return self.phases[-1]


class ProgramFile:
    """The program as it is now. A person may break it while a study runs: then the last good one still holds,
    and `notice` hears why, once for every broken version. At the start a broken one is an error.
    """

    def __init__(self, path: Path, notice: Callable[[str, str], None]) -> None:
        self._path, self._notice = path, notice
        self._program = read_program(path)
        self._told = ""
        notice("program", self._program.digest)

    def current(self) -> Program:
        try:
            program = read_program(self._path)
        except ProgramError as error:
            self._tell("program refused, the last good one holds", str(error))
            return self._program
        if program.digest != self._program.digest:
            self._tell("program changed", program.digest)
        self._program = program
        return program

    def _tell(self, event: str, what: str) -> None:
        if what != self._told:
            self._notice(event, what)
        self._told = what


def read_program(path: Path) -> Program:
    """Raises ProgramError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProgramError(f"{path}: cannot be read: {error}") from error
    return parse_program(text, str(path))


def parse_program(text: str, where: str = "program") -> Program:
    """The same from the file's text. Raises ProgramError."""
    blocks = list(BLOCK.finditer(text))
    if len(blocks) != 1:
        raise ProgramError(f"{where}: {len(blocks)} yaml blocks; expected exactly one, with the phases")
    # line numbers of YAML's errors then are those of the file
    padding = "\n" * text[: blocks[0].start(1)].count("\n")
    try:
        values = yaml.safe_load(padding + blocks[0].group(1))
    except yaml.YAMLError as error:
        raise ProgramError(f"{where}: the yaml block cannot be read: {error}") from error
    values = _keys(values, ("conclude_after", "plateau", "most_in_a_row", "categories", "phases"), where)
    return Program(
        text=text,
        phases=_phases(values["phases"], where),
        categories=_categories(values["categories"], where),
        most_in_a_row=_whole(values, "most_in_a_row", where),
        plateau=_whole(values, "plateau", where),
        conclude_after=_share(values, "conclude_after", where),
    )


def _phases(values: Any, where: str) -> tuple[Phase, ...]:
    if not isinstance(values, list) or not values:
        raise ProgramError(f"{where}: phases={values!r}: expected a list of phases")
    phases = tuple(_phase(value, f"{where}: phases[{index}]") for index, value in enumerate(values))
    if len({phase.name for phase in phases}) < len(phases):
        raise ProgramError(f"{where}: two phases have the same name")
    total = sum(phase.share for phase in phases)
    if abs(total - 1) > 1e-6:
        raise ProgramError(f"{where}: the phases' shares sum to {total:g}; expected 1")
    return phases


def _phase(values: Any, where: str) -> Phase:
    names = tuple(Phase.__dataclass_fields__)
    values = _keys(values, names, where)
    for name in ("overrides", "edits", "web_search"):
        if not isinstance(values[name], bool):
            raise ProgramError(f"{where}: {name}={values[name]!r}: expected true or false")
    if not isinstance(values["name"], str) or not values["name"].strip():
        raise ProgramError(f"{where}: name={values['name']!r}: expected text")
    if not (values["overrides"] or values["edits"]):
        raise ProgramError(f"{where}: neither overrides nor edits are allowed: nothing could be tried")
    _whole(values, "max_changes", where)
    return Phase(**{**values, "share": _share(values, "share", where)})


def _keys(values: Any, names: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ProgramError(f"{where}: expected a mapping with {', '.join(names)}; got {values!r}")
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(names)}"
            raise ProgramError(f"{where}: unknown key {key!r}; {hint}")
    if missing := [name for name in names if name not in values]:
        raise ProgramError(f"{where}: {missing[0]} is missing")
    return values


def _categories(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(v, str) and v for v in values):
        raise ProgramError(f"{where}: categories={values!r}: expected a list of at least two names")
    return tuple(values)


def _whole(values: Mapping[str, Any], key: str, where: str) -> int:
    value = values[key]
    if type(value) is not int or value < 1:
        raise ProgramError(f"{where}: {key}={value!r}: expected a whole number from 1")
    return value


def _share(values: Mapping[str, Any], key: str, where: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ProgramError(f"{where}: {key}={value!r}: expected a share in (0, 1]")
    return float(value)
