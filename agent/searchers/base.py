"""What every searcher is: the study's history enters, the next proposal leaves.

A searcher keeps no state of its own that matters: what it proposes follows from the space, its seed and the
history alone, so a study that was killed and resumed goes on as if it never had been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Protocol

import numpy as np
from optuna.distributions import BaseDistribution

from agent.distributions import contains, on_grid
from agent.records import Proposal, Status, Trial, Value, current_recipe

Direction = Literal["minimize", "maximize"]

# which draw a proposal is, among its params
DRAW = "@draw"
# what says that a point does not work; an interrupted trial says nothing, a duplicate nothing new
FAILURES: frozenset[Status] = frozenset({"diverged", "crashed", "out_of_memory", "timeout", "rejected"})


class Condition(Protocol):
    """A knob that matters only while the knob `key` has `value`."""

    @property
    def key(self) -> str: ...

    @property
    def value(self) -> Value: ...


class Space(Protocol):
    """What searchers know of a task: Hydra key -> distribution, condition, and the reference's value."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]: ...

    @property
    def conditions(self) -> Mapping[str, Condition]: ...

    @property
    def defaults(self) -> Mapping[str, Value]: ...


class SearcherStopped(RuntimeError):
    """The searcher cannot propose (no key, no credit, an unknown model). The study stops and can be resumed."""


class SearcherUnavailable(RuntimeError):
    """The searcher cannot be reached just now. The study pauses, uncharged, and asks again."""


class Searcher(Protocol):
    """Made as `make(space=…, seed=…, **options)`, from `configs/searcher/*.yaml`."""

    name: str

    def ask(self, history: Sequence[Trial]) -> Proposal | None:
        """The next proposal; None when there is nothing more to propose.

        `history` is every trial of the study so far, the reference first, in order of number; trials that
        still run have no outcome.
        """

    def ask_many(self, history: Sequence[Trial], count: int) -> list[Proposal]:
        """Up to `count` proposals that are to run side by side; an empty list means nothing more to propose.

        By default one is asked for after the other, those before it being trials that still run.
        """
        known = list(history)
        found: list[Proposal] = []
        while len(found) < count:
            proposal = self.ask(known)
            if proposal is None:
                break
            found.append(proposal)
            known.append(pending(known, proposal))
        return found

    def tell(self, trial: Trial) -> None:
        """Hear that a trial has ended. What counts is the history given to `ask`."""


def pending(history: Sequence[Trial], proposal: Proposal) -> Trial:
    """The proposal as the trial that it will be after `history`, before it has an outcome."""
    number = max((trial.number for trial in history), default=-1) + 1
    recipe = current_recipe(history) if proposal.base == "recipe" else None
    return Trial(number, proposal, {**(recipe.overrides if recipe else {}), **proposal.overrides})


@dataclass(frozen=True)
class Point:
    """A trial as a sampler sees it: a full set of params; `score` is None for "infeasible" and "pending"."""

    number: int
    params: Mapping[str, Value]
    kind: Literal["feasible", "infeasible", "pending"]
    score: float | None = None


class Points:
    """A study's trials as points. Ended trials never change, so that each is looked at once."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._ended: dict[int, tuple[Trial, Point | None]] = {}

    def of(self, history: Sequence[Trial]) -> list[Point]:
        """The trials that a sampler can learn from, in order. Those with edits are not points of the space."""
        by_number = {trial.number: trial for trial in history}
        found = [self._point(trial, by_number) for trial in history]
        return [point for point in found if point is not None]

    def _point(self, trial: Trial, by_number: Mapping[int, Trial]) -> Point | None:
        seen, point = self._ended.get(trial.number, (None, None))
        if seen is trial:
            return point
        point = _point(trial, self.space, by_number)
        if trial.outcome is not None:
            self._ended[trial.number] = trial, point
        return point


def _point(trial: Trial, space: Space, by_number: Mapping[int, Trial]) -> Point | None:
    params = _params(trial, space)
    if params is None:
        return None
    if trial.outcome is None:
        return Point(trial.number, params, "pending")
    if trial.outcome.status == "completed" and trial.outcome.score is not None:
        return Point(trial.number, params, "feasible", comparable_score(trial, by_number))
    return Point(trial.number, params, "infeasible") if trial.outcome.status in FAILURES else None


def comparable_score(trial: Trial, by_number: Mapping[int, Trial]) -> float:
    """The score of a completed trial, for comparison with full ones.

    A trial stopped after its first fold has that fold's score, and folds differ by more than most changes do.
    Its distance to the recipe on the same fold, added to the recipe's full score, is comparable.
    """
    assert trial.outcome is not None
    assert trial.outcome.score is not None
    verdict = trial.verdict
    if trial.outcome.stopped_early and verdict and verdict.delta is not None:
        recipe = by_number.get(-1 if verdict.compared_with is None else verdict.compared_with)
        if recipe and recipe.outcome and recipe.outcome.score is not None:
            return recipe.outcome.score + verdict.delta
    return trial.outcome.score


def active(params: Mapping[str, Any], space: Space) -> dict[str, Value]:
    """The overrides that a full set of params stands for: its keys of the space, less the inactive ones."""
    on = {key for key, condition in space.conditions.items() if params[condition.key] == condition.value}
    return {key: params[key] for key in space.distributions if key in on or key not in space.conditions}


def next_draw(history: Sequence[Trial]) -> int:
    """The first draw that no trial came of: the number of trials, unless one was interrupted beside others.

    The number alone would then repeat the draw of a trial that ended, and pass over the interrupted one.
    """
    drawn = {trial.proposal.params.get(DRAW, place) for place, trial in enumerate(history)}
    return next(number for number in count() if number not in drawn)


def derive_seed(seed: int, draw: int) -> int:
    """A seed for one draw: another one each time, the same one after a resume."""
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def check_defaults(space: Space, name: str) -> None:
    """Raise ValueError where the reference lies outside the space: a sampler could not be told of it."""
    for key, distribution in space.distributions.items():
        value = space.defaults.get(key)
        if key not in space.defaults or not contains(distribution, on_grid(distribution, value)):
            raise ValueError(
                f"searcher {name!r}: the reference has {key}={value!r}, outside {distribution}; "
                "widen the space, or change the reference"
            )


def _params(trial: Trial, space: Space) -> dict[str, Value] | None:
    """The trial as a full set of params; None where the space cannot express it."""
    if trial.proposal.edits or trial.proposal.invalid:
        return None
    params = {}
    for key, distribution in space.distributions.items():
        value = trial.proposal.params.get(key, trial.overrides.get(key, space.defaults[key]))
        params[key] = on_grid(distribution, value)
        if not contains(distribution, params[key]):
            return None
    return params
