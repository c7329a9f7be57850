"""A visit to a study goes in; what a client is told comes out, as text and as JSON values.

The texts are the built-in researcher's own prompt, cut where its parts change at different times.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.codec import to_json
from agent.external.chair import Chair
from agent.external.visit import Visit
from agent.ledger import StudyLedger
from agent.records import Trial
from agent.researcher.history import details, number
from agent.researcher.memory import Memory
from agent.researcher.program import Phase, Program, program_path, read_program
from agent.researcher.prompt import Prompt, Prompts
from agent.researcher.rules import proposed
from agent.researcher.settings import LLMSettings
from agent.searchers.external import ARM

if TYPE_CHECKING:
    from agent.report import Campaign

Told = tuple[str, bool, dict[str, Any] | None]
DOLLARS = {
    "unknown": "What your own model costs is unknown to the lab: the ledger says so, not 0. "
    "propose_trial takes it as `usage`.",
    "as claimed": "What your own model costs is kept as you claim it.",
}


def program(visit: Visit) -> Told:
    """Role, program, task, space and code."""
    prompt = _prompt(visit)
    blocks = [block["text"] for block in (*prompt.system, prompt.opening[0])]
    return "\n\n".join(blocks), False, None


def history(visit: Visit) -> Told:
    """The table, and every trial's record."""
    prompt = _prompt(visit)
    text = "\n".join(block["text"] for block in prompt.opening[1:-1])
    return text, False, {"study": visit.study, "trials": to_json(visit.ledger.trials())}


def status(visit: Visit) -> Told:
    """Recipe, curves, memory, budget and what is under way."""
    data = standing(visit)
    if visit.ledger.best() is None:
        return data["under_way"] or "the reference has not run; resume_study runs it", False, data
    parts = [f"# Study {visit.study}", _prompt(visit).opening[-1]["text"]]
    if data["under_way"]:
        parts.append(f"Under way: {data['under_way']}. Wait for it with status (wait_seconds).")
    if data["over"]:
        parts.append(f"The study is over: {data['over']}.")
    return "\n\n".join(parts), False, data


def ended(visit: Visit, which: int) -> Told:
    """A trial that has just ended, and where the study stands after it."""
    trial, data = trial_of(visit, which), standing(visit)
    verdict = trial.verdict.decision if trial.verdict else ""
    best = data["recipe"]
    left = f"{data['trials_left']} trials are left" + (f"; {data['over']}" if data["over"] else "")
    text = (
        f"trial {trial.number} ended: {trial.outcome.status if trial.outcome else ''}, {verdict}\n{details(trial)}\n"
        f"The recipe is trial {best['trial']}, score {number(best['score'])}. {left}."
    )
    return text, False, {"trial": to_json(trial), **data}


def report(visit: Visit) -> Told:
    """The report's summary in Markdown."""
    from agent.report.summary import summary  # a second of imports that only a report needs

    return summary(_campaign(visit)), False, None


def report_page(visit: Visit) -> str:
    """The report as a self-contained page."""
    from agent.report.page import page

    return page(_campaign(visit), f"made {datetime.now():%Y-%m-%d %H:%M}")


def trial_of(visit: Visit, which: int) -> Trial:
    """Raises ValueError where there is no such trial."""
    for trial in visit.ledger.trials():
        if trial.number == which:
            return trial
    raise ValueError(f"there is no trial {which}; history has their numbers")


def standing(visit: Visit) -> dict[str, Any]:
    """Where the study stands, as JSON values."""
    best, spent, trials = visit.ledger.best(), visit.spent(), visit.history()
    phase, held = _phase(visit, program_of(visit)), Chair(visit.ledger, lambda: 0.0).holding()
    score = best.outcome.score if best and best.outcome else None
    return {
        "study": visit.study,
        "held_by": held.told() if held else None,
        "trials_left": visit.budget.trials - proposed(trials),
        "spent": to_json(spent),
        "dollars": dollars(visit.ledger),
        "phase": {"name": phase.name, "allows": phase.permissions()},
        "recipe": {"trial": best.number, "score": score, "overrides": to_json(best.overrides)}
        if best
        else None,
        "under_way": under_way(visit.ledger),
        "over": _over(visit),
    }


def dollars(ledger: StudyLedger) -> str:
    """unknown, or as claimed where the client said of every trial what it cost."""
    asked = [trial.proposal for trial in ledger.trials() if trial.proposal.by]
    return "as claimed" if asked and all(proposal.dollars_known for proposal in asked) else "unknown"


def under_way(ledger: StudyLedger) -> str:
    """What a study is at, in a line; empty if it is at nothing."""
    running = [trial for trial in ledger.trials() if trial.outcome is None]
    if not running:
        return ""
    trial = running[-1]
    phase = str(ledger.progress(trial.number).get("phase", "started"))
    what = "the reference" if trial.proposal.route == "reference" else "trial"
    return f"{what} {trial.number}: {phase}, {trial.charges.seconds:.0f} s charged so far"


def program_of(visit: Visit) -> Program:
    """program.md as it is now. Raises ProgramError."""
    return read_program(program_path(visit.program))


def _over(visit: Visit) -> str:
    """Why the study has ended, if it has."""
    life = [event for event in visit.ledger.events() if event["event"] in ("ended", "resumed")]
    return str(life[-1]["reason"]) if life and life[-1]["event"] == "ended" else ""


def _phase(visit: Visit, program: Program) -> Phase:
    return program.phase(proposed(visit.history()), visit.budget.trials)


def _prompt(visit: Visit) -> Prompt:
    """What the built-in researcher would be told now."""
    current = program_of(visit)
    prompts = Prompts(visit, ARM, LLMSettings.from_mapping(visit.llm), Memory(visit.folder))
    extra = DOLLARS[dollars(visit.ledger)]
    return prompts.write(current, _phase(visit, current), visit.history(), "Decide on the next trial.", extra)


def _campaign(visit: Visit) -> Campaign:
    from agent.report import load

    return load(visit.ledgers, [visit.study], visit.scale, visit.metric)
