"""A kept trial goes in, its commit message comes out: `git log lab/<study>` reads as the research log."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping

from agent.records import Outcome, Trial, Value, Verdict

WIDTH = 72
UNCHANGED = "as in the reference"


def commit_message(
    study: str,
    trial: Trial,
    before: Trial,
    defaults: Mapping[str, Value],
) -> str:
    """The message of `trial`, which replaces the recipe `before`.

    defaults: the reference's values, for keys that the recipe before did not set. Text written by a searcher
    is wrapped into a paragraph of its own, so that it can neither end the message nor pose as a trailer.
    """
    changed = changes(trial, before, defaults)
    files = sorted({edit.path for edit in trial.proposal.edits})
    what = "; ".join([*changed, *(f"edit {path}" for path in files)]) or "no change"
    parts = [textwrap.shorten(f"trial {trial.number}: {_score(trial)}, {what}", 100, placeholder=" …")]
    if trial.proposal.hypothesis:
        parts.append(_paragraph(f"Hypothesis: {trial.proposal.hypothesis}"))
    parts.append("\n".join(_figures(trial, before, changed, files)))
    parts.append("\n".join(_trailers(study, trial)))
    return "\n\n".join(parts) + "\n"


def changes(trial: Trial, before: Trial, defaults: Mapping[str, Value]) -> list[str]:
    """`key: old -> new` for every override that differs from the recipe before."""
    keys = sorted({*trial.overrides, *before.overrides})
    # of a key outside the space the reference's value is not known here
    before_all = {**dict.fromkeys(keys, UNCHANGED), **defaults, **before.overrides}
    after_all = {**dict.fromkeys(keys, UNCHANGED), **defaults, **trial.overrides}
    values = ((key, before_all[key], after_all[key]) for key in keys)
    return [f"{key}: {_show(old)} -> {_show(new)}" for key, old, new in values if old != new]


def _figures(trial: Trial, before: Trial, changed: list[str], files: list[str]) -> list[str]:
    outcome, verdict = _judged(trial)
    lines = [f"score    {_score(trial)} (before: {_score(before)}, trial {before.number})"]
    by_seed: dict[int, list[str]] = defaultdict(list)
    for item in sorted(outcome.measurements, key=lambda item: (item.seed, item.fold)):
        by_seed[item.seed].append(f"{item.score:.6g}")
    lines += [f"folds    {' '.join(scores)} (seed {seed})" for seed, scores in by_seed.items()]
    if verdict.delta is not None:
        lines.append(f"delta    {verdict.delta:+.4g} on the same seeds and folds")
    if verdict.probability is not None:
        lines.append(f"P(gain)  {verdict.probability:.3f}")
    lines += [f"changed  {line}" for line in changed]
    return lines + [f"edited   {path}" for path in files]


def _trailers(study: str, trial: Trial) -> list[str]:
    _, verdict = _judged(trial)
    values = {
        "Study": study,
        "Trial": trial.number,
        "Score": _score(trial),
        "Probability": "" if verdict.probability is None else f"{verdict.probability:.4f}",
        "Searcher": trial.proposal.searcher,
        "Category": trial.proposal.category,
        "Seconds": f"{trial.charges.seconds:.0f}",
    }
    return [f"Lab-{key}: {_plain(str(value))}" for key, value in values.items() if str(value)]


def _judged(trial: Trial) -> tuple[Outcome, Verdict]:
    if trial.outcome is None or trial.verdict is None:
        raise ValueError(f"trial {trial.number} has no outcome or no verdict yet: nothing to write about")
    return trial.outcome, trial.verdict


def _score(trial: Trial) -> str:
    return "none" if trial.outcome is None or trial.outcome.score is None else f"{trial.outcome.score:.6g}"


def _show(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """One line without control characters."""
    return " ".join(re.sub(r"[^\x20-\x7e\u00a0-\u200a\u2010-\u2027\u2030-\ud7ff]", " ", text).split())


def _paragraph(text: str) -> str:
    return textwrap.fill(_plain(text)[:2000], WIDTH, break_on_hyphens=False)
