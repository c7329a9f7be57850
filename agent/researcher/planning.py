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
from agent.researcher.chair import Chair
from agent.researcher.exchange import Ending, GaveUp
from agent.researcher.hygiene import as_data
from agent.researcher.memory import Plan
from agent.researcher.program import Phase, Program
from agent.researcher.rules import next_number, trials_without_keep
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
        self.number = next_number(history)

    def make(self, reason: str) -> None:
        """Write the plan. If the model fails at it, the old one stays, and the next try is at the next
        reason.
        """
        advisors = self.chair.settings.advisors
        ending = self._merged(advisors) if advisors > 1 else self._call("plan", role.PLAN)
        memory = self.chair.memory
        if isinstance(ending, Planned):
            memory.write_plan(self.number, self.phase.name, reason, ending.ideas)
            self.chair.desk.log("planned", trial=self.number, reason=reason, ideas=len(ending.ideas))
        else:
            old, said = memory.plan(), ending.reason if isinstance(ending, GaveUp) else "no plan"
            memory.keep_plan(
                Plan(self.number, self.phase.name, f"failed: {said[:300]}", old.text if old else "")
            )
            self.chair.desk.log("planning failed", trial=self.number, reason=reason, why=said)

    def _merged(self, count: int) -> Ending:
        chosen = list(islice(cycle(role.ADVISORS.items()), count))
        names = [
            name if place < len(role.ADVISORS) else f"{name} {place}"
            for place, (name, _) in enumerate(chosen)
        ]
        with ThreadPoolExecutor(count, thread_name_prefix="advisor") as pool:
            calls = [
                pool.submit(self._call, f"plan-{name.replace(' ', '-')}", role.PLAN, said)
                for name, (_, said) in zip(names, chosen, strict=True)
            ]
            endings = [call.result() for call in calls]
        lists = {
            name: ending.ideas
            for name, ending in zip(names, endings, strict=True)
            if isinstance(ending, Planned)
        }
        if not lists:
            return endings[0]
        texts = ["\n".join(f"- {idea.line()}" for idea in ideas) for ideas in lists.values()]
        extra = "\n\n".join(
            as_data(f"advice on {name}", text, 8000) for name, text in zip(lists, texts, strict=True)
        )
        return self._call("plan-merge", f"{role.MERGE}\n\n{extra}")

    def _call(self, purpose: str, task: str, extra: str = "") -> Ending:
        return self.chair.converse(
            self.program,
            self.phase,
            self.history,
            purpose=purpose,
            goal="revise_plan",
            task=task,
            extra=extra,
        )
