"""A trial's place in Optuna: records enter, attributes of an Optuna trial leave (and the reverse)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial

from agent.codec import from_json, to_json
from agent.ledger.curve import PackedCurve, pack
from agent.records import Charges, Measurement, Proposal, Trial, Value


def opening(proposal: Proposal, overrides: Mapping[str, Value], owner: str) -> dict[str, Any]:
    """The attributes a trial is born with. What follows `overrides` is for people who read the dashboard."""
    edits = json.dumps(to_json(proposal.edits), sort_keys=True).encode()
    return {
        "owner": owner,
        "proposal": to_json(proposal),
        "overrides": to_json(overrides),
        "searcher": proposal.searcher,
        "route": proposal.route,
        "by": proposal.by,
        "category": proposal.category,
        "hypothesis": proposal.hypothesis,
        "edits_sha256": hashlib.sha256(edits).hexdigest() if proposal.edits else "",
    }


def closing(trial: Trial) -> dict[str, Any]:
    """The attributes written at a trial's end, "result" last: once that is there, the trial has ended."""
    assert trial.outcome is not None
    parts = ("overrides", "outcome", "verdict", "charges", "commit")
    return {
        "status": trial.outcome.status,
        "verdict": trial.verdict.decision if trial.verdict else "",
        "result": {name: value for name, value in packed(trial).items() if name in parts},
    }


def packed(trial: Trial) -> dict[str, Any]:
    """A trial's JSON with its curve packed."""
    if trial.outcome is None or not trial.outcome.curve:
        return dict(to_json(trial))
    bare = replace(trial, outcome=replace(trial.outcome, curve=()))
    data: dict[str, Any] = to_json(bare)
    data["outcome"]["curve"] = pack(trial.outcome.curve)
    return data


def unpacked(data: Mapping[str, Any]) -> Trial:
    """The reverse of `packed`; the curve stays packed until it is looked at."""
    outcome = data.get("outcome") or {}
    if not isinstance(curve := outcome.get("curve"), Mapping):
        return from_json(Trial, data)
    bare = from_json(Trial, {**data, "outcome": {k: v for k, v in outcome.items() if k != "curve"}})
    assert bare.outcome is not None
    return replace(bare, outcome=replace(bare.outcome, curve=PackedCurve(curve)))


def record(frozen: FrozenTrial) -> Trial:
    """The full record of an Optuna trial; what was noted so far if it has not ended."""
    attributes = frozen.user_attrs
    data = {
        "number": frozen.number,
        "proposal": attributes["proposal"],
        "overrides": attributes["overrides"],
        "charges": attributes.get("progress", {}).get("charges", {}),
        **attributes.get("result", {}),
    }
    return unpacked(data)


def merged(
    progress: Mapping[str, Any], charges: Charges | None, measurement: Measurement | None, where: str
) -> dict[str, Any]:
    """Progress with new charges (not less than before) and one measurement (one for each seed and fold)."""
    result = dict(progress)
    if charges is not None:
        require_monotone(charged(progress), charges, where)
        result["charges"] = to_json(charges)
    if measurement is not None:
        run = (measurement.seed, measurement.fold)
        others = [m for m in result.get("measurements", []) if (m["seed"], m["fold"]) != run]
        result["measurements"] = [*others, to_json(measurement)]
    return result


def charged(progress: Mapping[str, Any]) -> Charges:
    """The charges noted so far."""
    return from_json(Charges, progress.get("charges", {}))


def measured(progress: Mapping[str, Any]) -> tuple[Measurement, ...]:
    """The measurements noted so far."""
    return tuple(from_json(Measurement, m) for m in progress.get("measurements", []))


def unnoted(progress: Mapping[str, Any], seen: float | None) -> float:
    """Seconds that a trial under way used after its last note, until its loop was `seen` alive."""
    if seen is None or "at" not in progress or progress.get("waits"):
        return 0.0
    return max(seen - float(progress["at"]), 0.0)


def reruns(progress: Mapping[str, Any]) -> list[tuple[int, list[Measurement]]]:
    """(recipe, its measurements) for each recipe that the trial has measured again."""
    noted = progress.get("of_recipe", [])
    # earlier ledgers hold one recipe, not a list of them
    entries = [noted] if isinstance(noted, Mapping) else noted
    return [(e["number"], [from_json(Measurement, item) for item in e["measurements"]]) for e in entries]


def require_monotone(before: Charges, now: Charges, where: str) -> None:
    """Raise ValueError where a charge would fall: what was used stays charged."""
    for name in ("seconds", "train_seconds", "usd", "runs"):
        was, becomes = getattr(before, name), getattr(now, name)
        # written so that NaN is refused too
        if not becomes >= was:
            raise ValueError(f"{where}: charges.{name} would fall from {was} to {becomes}; they are totals")
