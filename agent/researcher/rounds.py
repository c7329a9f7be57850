"""A round: the history goes in; its proposals come out, usually one; none when the study is to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.records import Proposal, Trial
from agent.researcher import role
from agent.researcher.calling import BudgetReached
from agent.researcher.chair import Chair
from agent.researcher.exchange import Ending, GaveUp
from agent.researcher.planning import Planning, reason_to_plan
from agent.researcher.program import Phase, Program
from agent.researcher.rules import proposed
from agent.researcher.toolbox import Concluded, Proposed

# trials that one conversation may propose; a lab with more places to fill asks again
MOST_TOGETHER = 8


def play(chair: Chair, program: Program, history: Sequence[Trial], count: int = 1) -> list[Proposal]:
    """Plan if a plan is due, then ask for the next trial, or for up to `count` that will run side by side.

    Raises LLMUnavailable (pause and call again: the round is repeated) and LLMRefused (stop).
    """
    number = chair.desk.next_trial
    phase, together = _phase(program, proposed(history), chair.desk.budget.trials, min(count, MOST_TOGETHER))
    binding = phase.name if chair.arm.phases else ""
    try:
        reason = reason_to_plan(chair.memory.plan(), number, binding, program, history)
        if reason:
            Planning(chair, program, phase, history).make(reason)
        ending = chair.converse(
            program,
            phase,
            history,
            purpose="round",
            goal="propose_trial",
            task=role.PROPOSE if together == 1 else role.PROPOSE_MANY.format(count=together),
            count=together,
        )
    except BudgetReached as limit:
        chair.desk.log("budget of dollars reached", trial=number, reason=str(limit))
        return []
    return proposals_of(ending, chair, number)


def _phase(program: Program, used: int, trials: int, count: int) -> tuple[Phase, int]:
    """The phase of the next trial, and how many of the next `count` are in it."""
    phase = program.phase(used, trials)
    together = 1
    while together < count and program.phase(used + together, trials) == phase:
        together += 1
    return phase, together


def proposals_of(ending: Ending, chair: Chair, number: int) -> list[Proposal]:
    """The trials that a conversation ended in. A failed one is a trial, too: rejected, with every reason."""
    if isinstance(ending, Concluded):
        chair.desk.log("concluded", trial=number, reason=ending.reason)
        return []
    if isinstance(ending, Proposed):
        found = ending.proposals
    else:
        assert isinstance(ending, GaveUp)  # a conversation for a proposal makes no plan
        found = (*ending.accepted, replace(ending.attempt or Proposal(), invalid=ending.reason))
    return [replace(proposal, searcher=chair.arm.name, route="llm") for proposal in found]
