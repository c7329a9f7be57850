"""Studies go in, their sections of the page come out: stairs, lineage with diffs, and every trial.

Long texts are cut so that the page stays under its size, however long the logs are; what is cut says so.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from agent.records import Trial
from agent.report.campaign import Campaign, Curve, Study
from agent.report.figures.staircase import staircase
from agent.report.figures.style import THEMES, for_page
from agent.report.lineage import changes, diff, lineage
from agent.report.text import line, lines, tail
from agent.report.words import count, duration
from agent.trial_table import figure

# characters of logs, diffs and hypotheses on the whole page, shared equally among those there are
MOST_TEXT = 1_500_000
MOST_OF_ONE = 6_000


def studies(campaign: Campaign, overlay: bool) -> list[dict[str, Any]]:
    """One section a study."""
    most = _allowance(campaign)
    return [_study(campaign, study, f"stairs-{n}", overlay, most) for n, study in enumerate(campaign.studies)]


def _allowance(campaign: Campaign) -> int:
    """Characters for one text."""
    trials = [trial for study in campaign.studies for trial in study.trials]
    count = sum(bool(t.outcome and t.outcome.log_tail) + len(t.proposal.edits) for t in trials)
    return min(MOST_OF_ONE, MOST_TEXT // max(count, 1))


def _study(campaign: Campaign, study: Study, salt: str, overlay: bool, most: int) -> dict[str, Any]:
    figure = staircase(campaign, study, THEMES["page"], overlay)
    chain = lineage(study)
    steps = [_step(study, a, b, most) for a, b in zip([None, *chain], chain, strict=False)]
    by_number = {trial.number: trial for trial in study.trials}
    spec = study.spec
    about = f"{spec.searcher}, searcher seed {spec.searcher_seed}, {len(study.proposals)} trials, "
    about += (
        f"{duration(study.charges.seconds)} charged, sandbox {spec.sandbox or 'not named'}, {study.state}"
    )
    return {
        "name": study.name,
        "about": about,
        "svg": Markup(for_page(figure, salt, study.name)) if figure else "",
        "lineage": steps if len(steps) > 1 else [],
        "has_diffs": any(step["diffs"] for step in steps),
        "trials": [_trial(study, trial, by_number, most) for trial in study.trials],
    }


def _step(study: Study, before: Trial | None, trial: Trial, most: int) -> dict[str, Any]:
    what = "the reference" if before is None else "; ".join(_changes(study, trial, before)) or "no change"
    return {
        "number": trial.number,
        "score": _score(trial),
        "change": _relative(trial, before),
        "what": line(what, most),
        "hypothesis": line(trial.proposal.hypothesis, most),
        "diffs": _diffs(trial, most),
    }


def _trial(study: Study, trial: Trial, by_number: dict[int, Trial], most: int) -> dict[str, Any]:
    verdict, outcome = trial.verdict, trial.outcome
    before = by_number.get(verdict.compared_with) if verdict and verdict.compared_with is not None else None
    reference = trial.proposal.route == "reference"
    what = "the reference" if reference else "; ".join(_proposed(trial))
    return {
        "number": trial.number,
        "status": _status(trial),
        "kind": _kind(trial),
        "score": _score(trial),
        "what": line(what, 300),
        "curve": _path(study.curves.get(trial.number, ())),
        "facts": [(name, line(text, most)) for name, text in _facts(trial, before) if text],
        "diffs": _diffs(trial, most),
        "log": tail(outcome.log_tail, most) if outcome else "",
    }


def _status(trial: Trial) -> str:
    if trial.outcome is None:
        return "running"
    if trial.outcome.status != "completed":
        return trial.outcome.status.replace("_", " ")
    return trial.verdict.decision if trial.verdict else "completed"


def _kind(trial: Trial) -> str:
    status = _status(trial)
    if status in ("kept", "reference"):
        return " kept"
    return "" if status in ("reverted", "running", "completed") else " failed"


def _proposed(trial: Trial) -> list[str]:
    said = [
        f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in sorted(trial.proposal.overrides.items())
    ]
    return said + [f"edits {path}" for path in sorted({edit.path for edit in trial.proposal.edits})]


def _facts(trial: Trial, before: Trial | None) -> list[tuple[str, str]]:
    proposal, outcome, verdict = trial.proposal, trial.outcome, trial.verdict
    facts = [
        ("hypothesis", proposal.hypothesis),
        ("expected", proposal.expected_effect),
        ("proposed", "; ".join(_proposed(trial))),
        ("origin", ", ".join(filter(None, (proposal.category, proposal.phase, _route(trial))))),
    ]
    if outcome:
        facts.append(("outcome", ": ".join(filter(None, (outcome.status.replace("_", " "), outcome.reason)))))
        facts.append(
            (
                "measured",
                ", ".join(f"{m.score:.5g} (seed {m.seed}, fold {m.fold})" for m in outcome.measurements),
            )
        )
    if verdict:
        said = [verdict.reason]
        if verdict.probability is not None and "P(gain)" not in verdict.reason:
            said.append(f"probability of a gain {verdict.probability:.2f}")
        said += (
            [f"{verdict.delta:+.4g} against trial {before.number}"]
            if verdict.delta is not None and before
            else []
        )
        facts.append(("decision", ", ".join(filter(None, [verdict.decision, *said]))))
    cost = f"{duration(trial.charges.seconds)}, {count(trial.charges.runs, 'run', 'runs')}"
    dollars = f", ${trial.charges.usd:.3f}" if trial.charges.usd else ""
    known = "" if trial.proposal.dollars_known else ", dollars unknown"
    return [*facts, ("charged", cost + dollars + known)]


def _route(trial: Trial) -> str:
    return f"by {trial.proposal.route}" if trial.proposal.route not in ("", "reference") else ""


def _changes(study: Study, trial: Trial, before: Trial) -> list[str]:
    return changes(trial, before, study.spec.details.get("reference", {}))


def _diffs(trial: Trial, most: int) -> list[list[tuple[str, str]]]:
    """Each edit's lines with their CSS class."""
    found = []
    for edit in trial.proposal.edits:
        text = lines(diff(edit), most)
        found.append([(_line_kind(one), one) for one in text.split("\n")])
    return found


def _line_kind(text: str) -> str:
    if text.startswith(("+++", "---")):
        return ""
    return "add" if text.startswith("+") else "remove" if text.startswith("-") else ""


def _path(curve: Curve) -> str:
    """A polyline in a box of 120 by 26, y downwards."""
    if len(curve) < 2:
        return ""
    steps, losses = [step for step, _ in curve], [loss for _, loss in curve]
    width, low, high = (steps[-1] - steps[0]) or 1.0, min(losses), max(losses)
    height = (high - low) or 1.0
    points = (
        f"{120 * (step - steps[0]) / width:.0f} {2 + 22 * (high - loss) / height:.0f}" for step, loss in curve
    )
    return "M" + "L".join(points)


def _score(trial: Trial) -> str:
    return figure(trial.outcome.score if trial.outcome else None, 5)


def _relative(trial: Trial, before: Trial | None) -> str:
    scores = [t.outcome.score for t in (trial, before) if t and t.outcome]
    if len(scores) < 2 or not scores[0] or not scores[1]:
        return ""
    return f"{100 * (scores[0] / scores[1] - 1):+.1f} %".replace("-", "−")
