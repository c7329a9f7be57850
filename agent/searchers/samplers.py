"""Optuna's samplers as searchers (random, TPE, GP): the history enters, the sampler's next point leaves.

Each `ask` builds an in-memory study from the history and a sampler seeded from (seed, number of the draw), and
asks once. So nothing lives between two asks, and resuming is not a special case.

Failures: Optuna's samplers ignore trials that failed, so here a failed trial is a finished one with a
violated constraint (`FAILED` > 0), which is what they mean by infeasible. TPE puts such points among the bad
ones and never reads their value. The GP models the constraint by itself, and weighs its expected improvement
by the probability that it holds; its model of the objective needs a number for those points, and gets the
worst score seen. (With the median score instead, a third of its later proposals failed where the best point
lies beside a region of failures; with the worst one, 4 %.) The ledger keeps failures without a value.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from agent.records import Proposal, Trial
from agent.searchers.base import (
    DRAW,
    Direction,
    Point,
    Points,
    Searcher,
    Space,
    active,
    check_defaults,
    derive_seed,
    next_draw,
)

FAILED = "failed"
Build = Callable[[int], BaseSampler]
# a point, the value that stands for a missing score, and whether constraints are told
Told = tuple[Point, float, bool]


class OptunaSearcher(Searcher):
    """One of Optuna's samplers. `build` makes it from a seed; `startup_trials` points are drawn at random."""

    def __init__(
        self, name: str, build: Build, space: Space, seed: int, direction: Direction, startup_trials: int
    ) -> None:
        check_defaults(space, name)
        self.name = name
        self.space = space
        self.seed = seed
        self.direction = direction
        self.startup_trials = startup_trials
        self.points = Points(space)
        self._build = build
        self._frozen: dict[int, tuple[Told, FrozenTrial]] = {}

    def ask(self, history: Sequence[Trial]) -> Proposal:
        """The sampler's next point, as a complete set of overrides on top of the reference."""
        known = self.points.of(history)
        draw = next_draw(history)
        study = self._study(known, derive_seed(self.seed, draw))
        trial = study.ask(dict(self.space.distributions))
        finished = sum(point.kind != "pending" for point in known)
        return Proposal(
            overrides=active(trial.params, self.space),
            base="reference",
            searcher=self.name,
            route="startup" if finished < self.startup_trials else "sampler",
            params={**trial.params, DRAW: draw},
        )

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: `ask` reads the history."""

    def _study(self, known: Sequence[Point], seed: int) -> optuna.Study:
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(direction=self.direction, sampler=self._build(seed))
        finally:
            optuna.logging.set_verbosity(level)
        scores = [point.score for point in known if point.score is not None]
        worst = max if self.direction == "minimize" else min
        placeholder = worst(scores, default=0.0)
        # a constraint that nothing has violated would only cost the GP a second model
        constrained = any(point.kind == "infeasible" for point in known)
        for point in known:
            # add_trial would check each trial's params again, which create_trial has done
            study._storage.create_new_trial(study._study_id, self._trial((point, placeholder, constrained)))
        return study

    def _trial(self, told: Told) -> FrozenTrial:
        """The point as a trial of Optuna's, the same one as long as it is told in the same way."""
        before, trial = self._frozen.get(told[0].number, (None, None))
        if trial is None or before != told:
            trial = _known(*told, self.space)
            self._frozen[told[0].number] = told, trial
        return trial


class _Known(FrozenTrial):
    """A trial that nobody changes: Optuna's copies share what it holds, or copying would be most of an `ask`."""

    def __deepcopy__(self, memo: object) -> FrozenTrial:
        return copy.copy(self)


def _known(point: Point, placeholder: float, constrained: bool, space: Space) -> FrozenTrial:
    params, distributions = dict(point.params), dict(space.distributions)
    if point.kind == "pending":
        trial = create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
    else:
        trial = create_trial(
            params=params,
            distributions=distributions,
            value=placeholder if point.score is None else point.score,
            constraints={FAILED: 1.0 if point.kind == "infeasible" else -1.0} if constrained else None,
        )
    trial.__class__ = _Known
    return trial


def random(*, space: Space, seed: int, direction: Direction = "minimize") -> OptunaSearcher:
    """Uniform over the space: the control that learns nothing."""
    return OptunaSearcher("random", optuna.samplers.RandomSampler, space, seed, direction, 0)


def tpe(
    *,
    space: Space,
    seed: int,
    direction: Direction = "minimize",
    startup_trials: int,
    candidates: int,
) -> OptunaSearcher:
    """Multivariate TPE; `candidates` are drawn from the good points' density for each proposal."""

    def build(seed: int) -> BaseSampler:
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup_trials, n_ei_candidates=candidates, multivariate=True
        )

    return OptunaSearcher("tpe", build, space, seed, direction, startup_trials)


def gp(*, space: Space, seed: int, direction: Direction = "minimize", startup_trials: int) -> OptunaSearcher:
    """A Gaussian process with expected improvement. Optuna imports torch for it (about 2 s, once)."""

    def build(seed: int) -> BaseSampler:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup_trials)

    return OptunaSearcher("gp", build, space, seed, direction, startup_trials)
