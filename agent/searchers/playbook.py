"""The playbook: a written list of changes and the history enter, the next change to the recipe leaves.

An ordered coordinate search, and the control without a model: each step changes the best recipe so far in one
place and is kept or reverted by the lab; after the list, the knobs are tried again by smaller and smaller
factors, up and then down. Steps are values or factors, so that one list serves models of any size. Which step
comes next is read from the history: each proposal carries its step. An interrupted step is tried again; one
that would change nothing (at the end of its range, or inactive) is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from agent.distributions import contains, on_grid
from agent.records import Proposal, Trial, Value, current_recipe
from agent.searchers.base import Direction, Searcher, Space

# the step that a proposal is, and those that ran beside it, among its params
STEP, BESIDE = "@step", "@beside"


@dataclass(frozen=True)
class Times:
    """Multiply the recipe's value."""

    factor: float


@dataclass(frozen=True)
class Step:
    """Changes tried together. `unless_kept` is the step that makes this one pointless if it was kept."""

    changes: Mapping[str, Value | Times]
    says: str
    category: str
    unless_kept: int | None = None


class PlaybookSearcher(Searcher):
    """Walks through the steps. See the module's docstring."""

    name = "playbook"

    def __init__(self, space: Space, steps: Sequence[Step]) -> None:
        self.space = space
        self.steps = tuple(steps)
        for number, step in enumerate(self.steps):
            _check(space, step, f"searcher 'playbook', step {number} ({step.says})")

    def ask(self, history: Sequence[Trial]) -> Proposal | None:
        """The next step that changes something, on top of the recipe; None at the end of the list."""
        recipe = current_recipe(history)
        values = {**self.space.defaults, **(recipe.overrides if recipe else {})}
        walked = [t for t in history if STEP in t.proposal.params and not t.interrupted]
        done = {trial.proposal.params[STEP]: trial for trial in walked}
        # a step passed over is nobody's, one that was interrupted is named by those that ran beside it
        known = {number for trial in walked for number in trial.proposal.params.get(BESIDE, ())}
        later = range(max(done, default=-1) + 1, len(self.steps))
        for number in [*sorted(known - done.keys()), *later]:
            step = self.steps[number]
            changes = self._changes(step, values)
            if changes and not _kept(done.get(step.unless_kept)):
                return Proposal(
                    overrides=changes,
                    base="recipe",
                    hypothesis=step.says,
                    category=step.category,
                    searcher=self.name,
                    route="playbook",
                    params={STEP: number, BESIDE: [s for s, t in done.items() if t.outcome is None]},
                )
        return None

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: `ask` reads the history."""

    def _changes(self, step: Step, values: Mapping[str, Value]) -> dict[str, Value]:
        """What the step would really change."""
        wanted = {key: self._value(key, change, values[key]) for key, change in step.changes.items()}
        later = {**values, **wanted}
        conditions = self.space.conditions
        idle = {key for key, c in conditions.items() if later[c.key] != c.value}
        return {key: value for key, value in wanted.items() if value != values[key] and key not in idle}

    def _value(self, key: str, change: Value | Times, current: Value) -> Value:
        distribution = self.space.distributions[key]
        if not isinstance(change, Times):
            value: Value = on_grid(distribution, change)
            return value
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        assert isinstance(current, int | float)
        product = float(f"{current * change.factor:.4g}")
        if isinstance(distribution, IntDistribution):
            product = round(product)
        # a recipe may lie outside the space (a researcher's does): the factor leads back to its edge
        value = on_grid(distribution, min(max(product, distribution.low), distribution.high))
        return value


def playbook(
    *,
    space: Space,
    seed: int,
    direction: Direction = "minimize",
    steps: Sequence[Mapping[str, Any]],
    refine: Mapping[str, Any],
) -> PlaybookSearcher:
    """`steps`: [{says, set: {key: value or {times: factor}}}]; `refine`: {keys, factors from large to small}.

    There is no chance in it: `seed` and `direction` are taken because every searcher is made alike. Raises
    ValueError for a key that the space lacks, a value outside it, or a factor on what has no size.
    """
    written = [Step(_changes(step["set"]), step["says"], "published") for step in steps]
    return PlaybookSearcher(space, [*written, *_refinements(refine["keys"], refine["factors"], len(written))])


def _refinements(keys: Sequence[str], factors: Sequence[float], first: int) -> list[Step]:
    steps: list[Step] = []
    for factor in factors:
        for key in keys:
            up = first + len(steps)
            steps.append(Step({key: Times(factor)}, f"{key} x {factor:g}", "refine"))
            steps.append(Step({key: Times(1 / factor)}, f"{key} / {factor:g}", "refine", unless_kept=up))
    return steps


def _changes(written: Mapping[str, Any]) -> dict[str, Value | Times]:
    return {
        key: Times(value["times"]) if isinstance(value, Mapping) else value for key, value in written.items()
    }


def _check(space: Space, step: Step, where: str) -> None:
    for key, change in step.changes.items():
        if key not in space.distributions:
            raise ValueError(f"{where}: {key} is not in the space; add it there, or drop the step")
        distribution = space.distributions[key]
        if isinstance(change, Times):
            if isinstance(distribution, CategoricalDistribution):
                raise ValueError(
                    f"{where}: {key} is one of {distribution.choices}; it has no size to multiply"
                )
            if not (math.isfinite(change.factor) and change.factor > 0):
                raise ValueError(f"{where}: {key} times {change.factor}; a factor is a number above 0")
        elif not contains(distribution, on_grid(distribution, change)):
            raise ValueError(f"{where}: {key}={change!r} is outside {distribution}")


def _kept(trial: Trial | None) -> bool:
    return trial is not None and trial.verdict is not None and trial.verdict.decision == "kept"
