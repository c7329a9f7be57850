"""A study goes in, how its recipe came to be comes out: the kept trials, what each changed, and the diffs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from agent.records import Edit, Trial, Value
from agent.records import lineage as lineage_to
from agent.report.campaign import Study


def lineage(study: Study) -> list[Trial]:
    """From the reference to the recipe: each was compared with the one before it. Empty without a reference."""
    return lineage_to(study.winner, study.trials)


def changes(trial: Trial, before: Trial, reference: Mapping[str, Value], short: bool = False) -> list[str]:
    """`key: old → new` for each override that differs from the trial before, and `edits path` for edits.

    reference: its values by key, where known. short: the key's last part only.
    """
    found = []
    for key in sorted({*trial.overrides, *before.overrides}):
        old = before.overrides.get(key, reference.get(key))
        new = trial.overrides.get(key, reference.get(key))
        if old != new:
            name = ".".join(key.split(".")[-2:]) if short else key
            came = "" if key not in before.overrides and key not in reference else f"{_show(old)} → "
            found.append(
                f"{name} {came}{_show(new)}" if short else f"{name}: {came or 'reference → '}{_show(new)}"
            )
    paths = sorted({edit.path for edit in trial.proposal.edits})
    return found + [f"edits {path.rsplit('/', 1)[-1] if short else path}" for path in paths]


def diff(edit: Edit) -> str:
    """An edit as a unified diff of the lines it replaces."""
    lines = difflib.unified_diff(
        edit.old.splitlines(), edit.new.splitlines(), edit.path, edit.path, lineterm="", n=3
    )
    return "\n".join(lines)


def _show(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
