"""The researcher's chair: what a conversation needs, in one place. A purpose goes in, an ending comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Literal

from agent.desk import Desk
from agent.records import Proposal, Trial
from agent.researcher.arm import Arm
from agent.researcher.calling import Line, Switchboard
from agent.researcher.exchange import Ending, Exchange
from agent.researcher.memory import Memory
from agent.researcher.program import Phase, Program
from agent.researcher.prompt import Prompts
from agent.researcher.settings import LLMSettings
from agent.researcher.toolbox import Toolbox


class Chair:
    """One study's desk, arm, model and memory."""

    def __init__(self, desk: Desk, arm: Arm, settings: LLMSettings, switchboard: Switchboard) -> None:
        self.desk, self.arm, self.settings = desk, arm, settings
        self.memory = Memory(desk.folder)
        self.prompts = Prompts(desk, arm, settings, self.memory)
        self.switchboard = switchboard
        # advisors talk at the same time, but the desk has one workspace
        self._one_at_a_time = threading.RLock()

    def converse(
        self,
        program: Program,
        phase: Phase,
        history: Sequence[Trial],
        *,
        purpose: str,
        goal: Literal["propose_trial", "revise_plan"],
        task: str,
        extra: str = "",
        shown: Sequence[Trial] | None = None,
        finish: Callable[[Proposal], Proposal] = lambda proposal: proposal,
        count: int = 1,
    ) -> Ending:
        """One conversation about the next trial, or the next `count`. `shown` is the history as the prompt has
        it, if not all; `finish` completes a proposal before the lab checks it."""
        with self._one_at_a_time:
            prompt = self.prompts.write(program, phase, history, task, extra, shown)
        toolbox = Toolbox(
            self.desk,
            self.arm,
            self.memory,
            program,
            phase,
            history,
            goal,
            finish,
            self._one_at_a_time,
            count,
        )
        line = Line(self.switchboard, prompt, self.desk.next_trial, purpose)
        return Exchange(line, prompt, toolbox).run()
