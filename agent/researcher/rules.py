"""A proposal and the history go in; the reason why the study's rules forbid it comes out, or None.

These are the rules of the researcher's chair: phase, space, category. Whether a proposal can run at all is
the desk's to say.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.records import Proposal, Trial
from agent.researcher.arm import Arm
from agent.researcher.names import outside
from agent.researcher.program import Phase, Program
from agent.searchers.base import Space

# refusals after which a trial is lost, and charged
TRIES = 3


def forbidden(
    proposal: Proposal, history: Sequence[Trial], arm: Arm, program: Program, phase: Phase, space: Space
) -> str | None:
    """The first rule that is broken, as advice to the model."""
    if not proposal.overrides and not proposal.edits:
        return "the proposal changes nothing: give at least one override" + (" or edit" if arm.edits else "")
    if not arm.whole_config and (reason := outside(space, proposal.overrides, arm.names)):
        return reason
    if arm.phases and (reason := _phase(proposal, phase)):
        return reason
    if arm.phases and barred_category(history, program.most_in_a_row) == proposal.category:
        return (
            f"the last {program.most_in_a_row} trials or more were all of category {proposal.category!r} and none "
            "was kept; choose another category"
        )
    return None


def _phase(proposal: Proposal, phase: Phase) -> str | None:
    if proposal.overrides and not phase.overrides:
        return f"phase {phase.name!r} allows no overrides; propose code edits"
    if proposal.edits and not phase.edits:
        return f"phase {phase.name!r} allows no code edits; propose overrides"
    changes = len(proposal.overrides) + bool(proposal.edits)
    if changes > phase.max_changes:
        most = phase.max_changes
        return f"{changes} changes; phase {phase.name!r} allows {most} in one trial (all edits are one)"
    return None


def barred_category(history: Sequence[Trial], most: int) -> str | None:
    """The category of which there have been `most` trials in a row without a keep; None if there is none."""
    latest = history[-most:]
    categories = {trial.proposal.category for trial in latest}
    kept = any(trial.verdict and trial.verdict.decision in ("kept", "reference") for trial in latest)
    return categories.pop() if len(latest) == most and len(categories) == 1 and not kept else None


def proposed(history: Sequence[Trial]) -> int:
    """How many of the budget's trials are used: the reference is nobody's proposal."""
    return sum(1 for trial in history if trial.verdict is None or trial.verdict.decision != "reference")


def trials_without_keep(history: Sequence[Trial]) -> int:
    """How many trials have ended since the last keep (or the reference)."""
    count = 0
    for trial in reversed(history):
        if trial.verdict and trial.verdict.decision in ("kept", "reference"):
            break
        count += trial.outcome is not None
    return count
