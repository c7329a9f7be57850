"""Trials go in; the history table, learning curves and single trials come out as compact text.

The table is lossless in what was tried and what came of it, one row a trial, and a row never changes once
it is written: so the prompt's beginning stays the same, and cached, from round to round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise

from agent.records import Edit, Trial, Value
from agent.researcher.hygiene import as_data, one_line, own_frames, unmarked
from agent.researcher.names import PLAIN, Names

HEADER = "number | category | change | score | delta | P(gain) | verdict | note"
LEGEND = (
    "Score: the mean over folds, and over seeds where it was run again. delta: against the recipe of that time, "
    "on the same folds and seeds; P(gain): how probable it is that the change really gains. A trial that was "
    "stopped after its first fold was clearly behind there: its score is that fold's alone."
)
# without a word that tells what the black box is
NEUTRAL_LEGEND = (
    "delta: against the best point of that time; P(gain): how probable it is that the change really gains. A trial "
    "that was measured in part was clearly behind."
)
ROWS_A_BLOCK = 10
CURVE_POINTS, MOST_CURVES = 10, 12
LOG_CHARS = 3_000
# of a trial's details, what its edits may fill; each alone is cut, so that no mark of data is
EDIT_CHARS = 6_000
# a completed trial's change was checked against the config and is shown whole; a rejected one's may be
# anything
REJECTED_CHARS = 300


def table(trials: Sequence[Trial], names: Names = PLAIN) -> list[str]:
    """The table in blocks of ten rows, so that all but the last block never change."""
    rows = [row(trial, names) for trial in trials if trial.outcome is not None]
    starts = range(0, len(rows), ROWS_A_BLOCK)
    return ["\n".join(rows[start : start + ROWS_A_BLOCK]) for start in starts]


def row(trial: Trial, names: Names = PLAIN) -> str:
    """One trial, as HEADER says. Empty fields are what does not apply."""
    outcome, verdict = trial.outcome, trial.verdict
    assert outcome is not None
    probability = "" if verdict is None or verdict.probability is None else f"{verdict.probability:.2f}"
    fields = [
        str(trial.number),
        one_line(trial.proposal.category, 30),
        change(trial, names),
        number(outcome.score),
        "" if verdict is None or verdict.delta is None else f"{verdict.delta:+.4g}",
        probability,
        verdict.decision if verdict else "",
        _note(trial, names),
    ]
    return " | ".join(fields)


def running(trials: Sequence[Trial], names: Names = PLAIN) -> str:
    """The trials that have begun and not ended, a line each; empty if there are none."""
    lines = [
        f"{trial.number} | {one_line(trial.proposal.category, 30)} | {change(trial, names)} | "
        f"{one_line(trial.proposal.hypothesis, 300)}"
        for trial in trials
        if trial.outcome is None
    ]
    return "\n".join(["number | category | change | hypothesis", *lines]) if lines else ""


def change(trial: Trial, names: Names = PLAIN) -> str:
    """What the proposal changed, on its base."""
    proposal = trial.proposal
    parts = [
        f"{names.key(key)}={value_text(names.value(key, value))}" for key, value in proposal.overrides.items()
    ]
    parts += [_edit(edit) for edit in proposal.edits]
    text = unmarked(" ".join(", ".join(parts).replace("|", "/").split()))
    completed = trial.outcome is not None and trial.outcome.status == "completed"
    return text if completed else one_line(text, REJECTED_CHARS)


def value_text(value: Value) -> str:
    """A plain value, exactly; numbers in their shortest form."""
    return json.dumps(value) if isinstance(value, str) else repr(value) if value is not None else "null"


def number(value: float | None, digits: int = 6) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def curves(trial: Trial, points: int = CURVE_POINTS) -> str:
    """The learning curves of one run (one fold): for each quantity its values at equal distances, three digits
    each, and how long it took.

    Of a trial that ended well its first run is shown, of another one the last, which went wrong.
    """
    if trial.outcome is None or not trial.outcome.curve:
        return ""
    runs = _runs(trial.outcome.curve)
    rows = runs[0] if trial.outcome.status == "completed" else runs[-1]
    steps = sorted({round(index * (len(rows) - 1) / max(points - 1, 1)) for index in range(points)})
    chosen = [rows[step] for step in steps]
    # a run names its own quantities, as many as it likes
    names = [name for name in rows[-1] if name not in ("seconds", "fold")][:MOST_CURVES]
    lines = [f"  {name}: " + " ".join(number(_get(row, name), 3) or "-" for row in chosen) for name in names]
    seconds = _get(rows[-1], "seconds")
    took = "" if seconds is None else f", {seconds:.3g} s"
    return "\n".join([f"trial {trial.number}, score {number(trial.outcome.score) or 'none'}{took}", *lines])


def spread(trial: Trial, names: Names = PLAIN) -> str:
    """The measured scores seed by seed, fold by fold: how much they vary without any change."""
    if trial.outcome is None:
        return ""
    if names.neutral:
        return " ".join(number(item.score, 4) for item in trial.outcome.measurements)
    seeds = dict.fromkeys(item.seed for item in trial.outcome.measurements)
    folds = {
        seed: " ".join(number(item.score, 4) for item in trial.outcome.measurements if item.seed == seed)
        for seed in seeds
    }
    return "; ".join(f"seed {seed}: {scores}" for seed, scores in folds.items())


def _runs(rows: Sequence[Mapping[str, float]]) -> list[list[Mapping[str, float]]]:
    """A trial's curve holds its runs one after the other: another fold, or steps that begin again."""
    runs = [[rows[0]]]
    for before, row in pairwise(rows):
        again = _get(row, "fold") != _get(before, "fold")
        if again or (_get(row, "step") or 0) < (_get(before, "step") or 0):
            runs.append([])
        runs[-1].append(row)
    return runs


def details(trial: Trial, names: Names = PLAIN) -> str:
    """Everything about one trial, for look_up_trial; under neutral names what can be said with them."""
    proposal, outcome, verdict = trial.proposal, trial.outcome, trial.verdict
    if names.neutral:
        return f"{HEADER}\n{row(trial, names) if outcome else 'still running'}\n{_hypothesis(trial)}"
    lines = [
        f"trial {trial.number}, phase {proposal.phase or '-'}, by {proposal.searcher} {proposal.route}"
        + (f" ({one_line(proposal.by, 120)})" if proposal.by else ""),
        _hypothesis(trial),
        f"change: {change(trial)}",
        "all overrides: " + ", ".join(f"{key}={value_text(value)}" for key, value in trial.overrides.items()),
        f"charged: {trial.charges.seconds:.0f} s, "
        + (f"{trial.charges.usd:.4f} dollars" if proposal.dollars_known else "dollars unknown"),
    ]
    if verdict:
        lines.append(
            f"verdict: {verdict.decision}, delta {number(verdict.delta)}, "
            f"P(gain) {number(verdict.probability, 3)}, against trial {verdict.compared_with}, "
            f"{verdict.reruns} re-runs. {one_line(verdict.reason, 500)}"
        )
    if outcome:
        lines.append(
            f"outcome: {outcome.status}, score {number(outcome.score)}. {one_line(outcome.reason, 1000)}"
        )
        lines += [
            f"  seed {run.seed}, fold {run.fold}: {number(run.score)}; {_metrics(run.metrics)}"
            for run in outcome.measurements
        ]
    most = EDIT_CHARS // max(len(proposal.edits), 1)
    shown = [*lines, curves(trial, 20)] + [patch(edit, most) for edit in proposal.edits]
    if outcome and outcome.log_tail:
        log = own_frames(outcome.log_tail)
        shown.append(as_data(f"end of the log of trial {trial.number}", log, LOG_CHARS))
    return "\n".join(part for part in shown if part)


def _note(trial: Trial, names: Names) -> str:
    outcome = trial.outcome
    assert outcome is not None
    if outcome.status == "completed":
        early = "measured in part" if names.neutral else "stopped after its first fold"
        return early if outcome.stopped_early else ""
    reason = one_line(outcome.reason, 160)
    return f"{outcome.status}: {reason}" if reason and not names.neutral else outcome.status


def _hypothesis(trial: Trial) -> str:
    said = trial.proposal
    return f"hypothesis: {one_line(said.hypothesis, 2000)}\nexpected: {one_line(said.expected_effect, 1000)}"


def _edit(edit: Edit) -> str:
    added, removed = edit.new.count("\n") + 1, edit.old.count("\n") + 1
    return f"edit {one_line(edit.path, 120)} (+{added} -{removed} lines)"


def patch(edit: Edit, most: int) -> str:
    """The edit itself, of which the table has the size alone."""
    text = f"--- old\n{edit.old}\n+++ new\n{edit.new}"
    return as_data(f"edit of {one_line(edit.path, 120)}", text, most)


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{one_line(name, 40)} {number(value, 4)}" for name, value in list(metrics.items())[:12])


def _get(row: Mapping[str, float], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None
