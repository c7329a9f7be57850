"""What sets the LLM searchers apart from each other: an Arm, built from configs/searcher/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from agent.desk import Desk
from agent.researcher.names import Names
from agent.researcher.program import Phase, Program

BLIND_CATEGORIES = ("explore", "refine")


@dataclass(frozen=True)
class Arm:
    """One kind of researcher.

    role: its standing instructions.
    edits: may change code. whole_config: may set every key that is not locked, not just those of the space.
    code: sees the task's code and may read files. knowledge: is shown the program and the task's description.
    phases: the program's permissions bind (without them, overrides are always allowed, one or several).
    """

    name: str
    role: str
    edits: bool
    whole_config: bool
    code: bool
    knowledge: bool
    phases: bool
    names: Names

    def categories(self, program: Program) -> tuple[str, ...]:
        return program.categories if self.knowledge else BLIND_CATEGORIES


def allowed(arm: Arm, phase: Phase, desk: Desk) -> str:
    """What this round may propose, in a sentence for the prompt."""
    if arm.phases:
        return f"{phase.permissions()}."
    count = len(desk.space.distributions)
    said = f"only the {count} parameters above, within their ranges; one or several at once."
    return f"{said} The program's phases do not bind in this study." if arm.knowledge else said
