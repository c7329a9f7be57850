"""A round: the history goes in; a proposal comes out, or None when the study is to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.records import Proposal, Trial
from agent.researcher import role
from agent.researcher.calling import BudgetReached
from agent.researcher.chair import Chair
from agent.researcher.exchange import Ending
from agent.researcher.planning import Planning, reason_to_plan
from agent.researcher.program import Program
from agent.researcher.rules import next_number, proposed
from agent.researcher.toolbox import Concluded, Proposed


def play(chair: Chair, program: Program, history: Sequence[Trial]) -> Proposal | None:
    """Plan if a plan is due, then ask for the next trial.

    Raises LLMUnavailable (pause and call again: the round is repeated) and LLMRefused (stop).
    """
    number = next_number(history)
    phase = program.phase(proposed(history), chair.desk.budget.trials)
    binding = phase.name if chair.arm.phases else ""
    try:
        reason = reason_to_plan(chair.memory.plan(), number, binding, program, history)
        if reason:
            Planning(chair, program, phase, history).make(reason)
        ending = chair.converse(
            program, phase, history, purpose="round", goal="propose_trial", task=role.PROPOSE
        )
    except BudgetReached as limit:
        chair.desk.log("budget of dollars reached", trial=number, reason=str(limit))
        return None
    return proposal_of(ending, chair, number)


def proposal_of(ending: Ending, chair: Chair, number: int) -> Proposal | None:
    """The trial that a conversation ended in. A failed one is a trial, too: rejected, with every reason."""
    if isinstance(ending, Concluded):
        chair.desk.log("concluded", trial=number, reason=ending.reason)
        return None
    if isinstance(ending, Proposed):
        return replace(ending.proposal, searcher=chair.arm.name, route="llm")
    attempt = getattr(ending, "attempt", None) or Proposal()
    reason = getattr(ending, "reason", "the conversation ended without a proposal")
    return replace(attempt, searcher=chair.arm.name, route="llm", invalid=reason)
