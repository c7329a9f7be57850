"""Trials of one recipe go in; they run side by side, and their verdicts come out, at most one kept at a time.

When several would be kept, the best becomes the recipe, and the others are measured again on top of it, charged
to them: every kept commit was measured on the code and recipe that it is committed on. A trial whose
configuration and code are the same on top of the new recipe (a sampler's, which sets every knob) keeps its
measurements and is only compared anew. One that can no longer be laid over it is reverted with that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.bench import Bench
from agent.experiment import Record, Workplace
from agent.measured import measured
from agent.records import Outcome, Trial

if TYPE_CHECKING:
    from agent.loop import Loop


@dataclass(frozen=True)
class Candidate:
    """A trial that is in the ledger and may run. `on`: the recipe that it is measured again on, if it is."""

    trial: Trial
    arguments: Sequence[str]
    fingerprint: str
    record: Record
    on: int | None = None


def run_side_by_side(loop: Loop, candidates: Sequence[Candidate], recipe: Trial) -> list[Trial]:
    """Every candidate's trial, ended. All of them were checked against `recipe`."""
    ended: list[Trial] = []
    kept: list[Candidate] = []

    def hear(candidate: Candidate) -> None:
        if candidate.trial.verdict and candidate.trial.verdict.decision == "kept":
            kept.append(candidate)
        else:
            ended.append(loop.finish(candidate.trial, recipe))

    while candidates:
        kept.clear()
        _measure(loop, candidates, recipe, hear)
        if not kept:
            break
        # the order in which they ended must not matter
        best = min(kept, key=lambda item: (_change(loop, item.trial), item.trial.number))
        recipe = loop.finish(best.trial, recipe)
        ended.append(recipe)
        others = sorted((c for c in kept if c is not best), key=lambda c: c.trial.number)
        again = [_on_top(loop, candidate, recipe) for candidate in others]
        ended += [loop.finish(c.trial, recipe) for c in again if c.trial.outcome]
        candidates = [c for c in again if not c.trial.outcome]
    return ended


def _measure(
    loop: Loop, candidates: Sequence[Candidate], recipe: Trial, hear: Callable[[Candidate], None]
) -> None:
    """Runs each candidate, one a worker; `hear` is told of each as it ends, in this thread."""
    known = measured(loop.ledger)
    base = loop.recipe(recipe, known[recipe.number])
    noise = loop.experiment.acceptance.noise(list(known.values()))
    commit = loop.workspace.head()

    def run(worker: int, candidate: Candidate) -> Candidate:
        edits = candidate.trial.proposal.edits
        place: Workplace = Bench(loop.workspace, edits)
        experiment = loop.experiment
        if loop.seats:
            place = loop.seats[worker].place(commit, edits)
            experiment = replace(experiment, runner=loop.runners[worker])
        folder = loop.folder / f"{candidate.trial.number:04d}"
        if candidate.on is not None:
            folder /= f"on-{candidate.on:04d}"
        record = candidate.record
        outcome, verdict = experiment.trial(place, candidate.arguments, base, noise, folder, record)
        if loop.seats:
            loop.waits(candidate.trial.number)
        trial = replace(candidate.trial, outcome=outcome, verdict=verdict, charges=record.charges)
        return replace(candidate, trial=trial)

    if not loop.seats:
        for candidate in candidates:
            hear(run(0, candidate))
        return
    # a sandbox ends with the thread that started it, and these last until all have ended
    with ThreadPoolExecutor(len(candidates), thread_name_prefix="trial") as pool:
        try:
            for future in as_completed([pool.submit(run, *pair) for pair in enumerate(candidates)]):
                hear(future.result())
        except BaseException:
            loop.stop.set()  # the others are not waited for: the study ends here
            raise


def _change(loop: Loop, trial: Trial) -> float:
    """The change of the score against the recipe, the better the smaller."""
    delta = trial.verdict.delta if trial.verdict and trial.verdict.delta is not None else 0.0
    return delta if loop.ledger.spec.direction == "minimize" else -delta


def _on_top(loop: Loop, candidate: Candidate, recipe: Trial) -> Candidate:
    """The candidate laid over the new recipe, to be measured there; reverted where that is not possible."""
    trial, began = candidate.trial, loop.now()
    assert trial.verdict is not None
    checked = loop.checked(trial.proposal, recipe, trial.number)
    if isinstance(checked, Outcome):
        reason = (
            f"better than trial {trial.verdict.compared_with}, but trial {recipe.number}, which ran beside it, "
            f"was kept, and on top of that: {checked.reason}"
        )
        verdict = replace(trial.verdict, decision="reverted", reason=reason)
        return replace(candidate, trial=replace(trial, verdict=verdict))
    fingerprint, record = checked.fingerprint(loop.workspace.code_hash()), candidate.record
    if fingerprint != candidate.fingerprint:
        record.anew()
    record.spend(loop.now() - began)
    loop.ledger.note(
        trial.number,
        fingerprint=fingerprint,
        phase=f"on top of trial {recipe.number}",
        charges=record.charges,
        measurements=record.measurements,
        waits=False,
    )
    trial = replace(
        trial, overrides=checked.overrides, outcome=None, verdict=None, commit=loop.workspace.head()
    )
    return Candidate(trial, checked.arguments, fingerprint, record, recipe.number)
