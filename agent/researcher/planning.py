"""The history goes in; plan.md comes out: a ranked list of hypotheses, made when it is time for a new one.

With `llm.advisors` of 2 or more, as many calls with different roles write a list each, at the same time,
and a last call merges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

from agent.records import Trial
from agent.researcher import role
from agent.researcher.calling import BudgetReached
from agent.researcher.chair import Chair
from agent.researcher.exchange import GaveUp
from agent.researcher.hygiene import as_data
from agent.researcher.memory import Plan
from agent.researcher.program import Phase, Program
from agent.researcher.rules import trials_without_keep
from agent.researcher.toolbox import Planned


def reason_to_plan(
    plan: Plan | None, number: int, phase: str, program: Program, history: Sequence[Trial]
) -> str:
    """Why a plan is due before trial `number`; empty if none is. `phase` is empty where phases do not bind."""
    if plan is None:
        return "start"
    if phase and plan.phase != phase:
        return f"phase {phase} begins"
    idle = trials_without_keep(history)
    if idle >= program.plateau and number - plan.trial >= program.plateau:
        return f"{idle} trials without a keep"
    return ""


class Planning:
    """One planning, by one call or by several advisors. Costs dollars, no trial."""

    def __init__(self, chair: Chair, program: Program, phase: Phase, history: Sequence[Trial]) -> None:
        self.chair, self.program, self.phase, self.history = chair, program, phase, history
        self.number = chair.desk.next_trial

    def make(self, reason: str) -> None:
        """Write the plan. If that fails, the old one stays, and the next try is at the next reason.

        Raises LLMUnavailable and LLMRefused; dollars that do not suffice for planning may do for a trial.
        """
        advisors, memory, desk = self.chair.settings.advisors, self.chair.memory, self.chair.desk
        ending = self._merged(advisors) if advisors > 1 else self._call("plan", role.PLAN)
        if isinstance(ending, Planned):
            memory.write_plan(self.number, self.phase.name, reason, ending.ideas)
            desk.log("planned", trial=self.number, reason=reason, ideas=len(ending.ideas))
            return
        old, said = memory.plan(), ending.reason
        memory.keep_plan(Plan(self.number, self.phase.name, f"failed: {said[:300]}", old.text if old else ""))
        desk.log("planning failed", trial=self.number, reason=reason, why=said)

    def _merged(self, count: int) -> Planned | GaveUp:
        advisors = list(islice(cycle(role.ADVISORS.items()), count))
        purposes = [f"plan-{place}-{name.replace(' ', '-')}" for place, (name, _) in enumerate(advisors, 1)]
        with ThreadPoolExecutor(count, thread_name_prefix="advisor") as pool:
            calls = [
                pool.submit(self._call, purpose, f"{said} {role.PLAN}")
                for purpose, (_, said) in zip(purposes, advisors, strict=True)
            ]
            endings = [call.result() for call in calls]
        lists = [
            as_data(f"advice on {name}", "\n".join(f"- {idea.line()}" for idea in ending.ideas), 8000)
            for (name, _), ending in zip(advisors, endings, strict=True)
            if isinstance(ending, Planned)
        ]
        return self._call("plan-merge", role.MERGE, "\n\n".join(lists)) if lists else endings[0]

    def _call(self, purpose: str, task: str, extra: str = "") -> Planned | GaveUp:
        try:
            ending = self.chair.converse(
                self.program,
                self.phase,
                self.history,
                purpose=purpose,
                goal="revise_plan",
                task=task,
                extra=extra,
            )
        except BudgetReached as limit:
            return GaveUp(str(limit))
        return ending if isinstance(ending, Planned | GaveUp) else GaveUp("it ended without a plan")
