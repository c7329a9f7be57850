"""An LLM in the searcher's chair: the history enters, one bounded conversation later a proposal leaves.

Three arms of one comparison: `claude` (settings and code), `claude_config` (settings only, in the samplers'
own space), `claude_blind` (as claude_config, under neutral names, without program or code). A searcher
object holds nothing that matters: what a round needs is in the ledger's history and in the files of
runs/<study>/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agent.desk import Desk
from agent.records import Proposal, Trial
from agent.researcher import role, rounds
from agent.researcher.arm import Arm
from agent.researcher.calling import Switchboard
from agent.researcher.chair import Chair
from agent.researcher.hygiene import Scrubber
from agent.researcher.names import PLAIN, NeutralNames
from agent.researcher.program import ProgramFile, program_path
from agent.researcher.settings import LLMSettings
from agent.searchers.base import Direction, Searcher, Space

ArmName = Literal["claude", "claude_config", "claude_blind"]


class Claude(Searcher):
    """ask() raises LLMUnavailable (pause, then ask again) and LLMRefused (stop; the study can be resumed)."""

    def __init__(self, chair: Chair, program: ProgramFile) -> None:
        self.name = chair.arm.name
        self.chair = chair
        self.program = program

    def ask(self, history: Sequence[Trial]) -> Proposal | None:
        """One round. None when the dollars are used up or the researcher concluded (the log says which)."""
        return next(iter(self.ask_many(history, 1)), None)

    def ask_many(self, history: Sequence[Trial], count: int) -> list[Proposal]:
        """One round for up to `count` distinct trials that will run side by side; it may give fewer.

        Each is checked as one alone is. Empty when the dollars are used up or the researcher concluded.
        """
        return rounds.play(self.chair, self.program.current(), history, count)

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: the next round reads the history."""


def claude(
    *,
    space: Space,
    seed: int,
    desk: Desk,
    arm: ArmName,
    program: str,
    llm: Mapping[str, Any],
    direction: Direction = "minimize",
    **edges: Any,
) -> Claude:
    """`llm`: the composed group configs/llm. `program`: path of program.md. The API has no seed: unused.

    Raises SettingsError, ProgramError, and LLMRefused where a key is needed and none is set.
    """
    settings = LLMSettings.from_mapping(llm)
    return Claude(seat(desk, _arm(arm, space), settings, **edges), program_file(desk, program))


def program_file(desk: Desk, path: str) -> ProgramFile:
    """The program at `path`, relative to the checkout; the study's log hears of its changes."""
    return ProgramFile(program_path(path), lambda event, what: desk.log(event, what=what))


def seat(
    desk: Desk,
    arm: Arm,
    settings: LLMSettings,
    *,
    environment: Mapping[str, str] = os.environ,
    **edges: Any,
) -> Chair:
    """A chair with a line to the model. `edges`: clock and sleep, for tests."""
    key, scrubber = environment.get(settings.key_env), Scrubber.of_environment(environment)
    return Chair(desk, arm, settings, Switchboard(settings, key, desk, scrubber, **edges))


def _arm(name: ArmName, space: Space) -> Arm:
    if name == "claude":
        return Arm(name, role.ROLE, True, True, code=True, knowledge=True, phases=True, names=PLAIN)
    if name == "claude_config":
        return Arm(name, role.ROLE, False, False, code=True, knowledge=True, phases=False, names=PLAIN)
    if name == "claude_blind":
        names = NeutralNames(space)
        return Arm(
            name, role.BLIND_ROLE, False, False, code=False, knowledge=False, phases=False, names=names
        )
    raise ValueError(f"searcher.arm={name!r}: expected claude, claude_config or claude_blind")
