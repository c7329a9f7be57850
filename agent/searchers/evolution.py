"""CMA-ES as a searcher: the history enters, is replayed generation by generation, and the next point leaves.

Optuna's CmaEsSampler keeps its state where no other process finds it, takes no foreign points and draws
categorical knobs at random. Here `cmaes.CMA` is rebuilt from the history at each ask: every proposal carries
its point in the unit cube (`LATENT` in its params), whole generations are told in the order of the trials,
and the random state comes from (seed, number of the draw).

Knobs are scaled to [0, 1] (log scales in the logarithm, integers rounded on the way out). A categorical knob
has one coordinate a choice, and the largest wins. The search starts at the reference.

Failures rank last in their generation, which is all that CMA-ES asks of a score; a generation of failures
alone ranks nothing and is not told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from agent.distributions import on_grid
from agent.records import Proposal, Trial, Value
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

LATENT = "@latent"
# where the reference's choice starts, and the other choices do
CHOSEN, OTHERS = 0.65, 0.35


class Cube:
    """The space as a unit cube: params to coordinates and back."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = dict(sorted(distributions.items()))
        self.widths = [_width(distribution) for distribution in self.distributions.values()]

    @property
    def dimension(self) -> int:
        return sum(self.widths)

    def coordinates(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Params to [dimension] floats in [0, 1]."""
        parts = [_encode(distribution, params[key]) for key, distribution in self.distributions.items()]
        return np.array([coordinate for part in parts for coordinate in part], dtype=np.float64)

    def params(self, coordinates: NDArray[np.float64]) -> dict[str, Value]:
        """The reverse; each value lies in its distribution and has its type."""
        result: dict[str, Value] = {}
        ends = np.cumsum(self.widths)
        for key, width, end in zip(self.distributions, self.widths, ends, strict=True):
            result[key] = _decode(self.distributions[key], coordinates[end - width : end])
        return result


class CmaEsSearcher(Searcher):
    """CMA-ES over every knob of the space. See the module's docstring for what it is told."""

    name = "cmaes"

    def __init__(
        self, space: Space, seed: int, direction: Direction, sigma: float, population: int | None
    ) -> None:
        check_defaults(space, self.name)
        self.space = space
        self.seed = seed
        self.sign = 1.0 if direction == "minimize" else -1.0
        self.sigma = sigma
        self.population = population
        self.cube = Cube(space.distributions)
        self.points = Points(space)

    def ask(self, history: Sequence[Trial]) -> Proposal:
        """A draw from the present distribution, as a complete set of overrides on top of the reference."""
        evolution = self.replay(history)
        # the state of the generator is set from outside: it depends on the number of the draw alone
        draw = next_draw(history)
        evolution.reseed_rng(derive_seed(self.seed, draw))
        coordinates = evolution.ask()
        params = self.cube.params(coordinates)
        return Proposal(
            overrides=active(params, self.space),
            base="reference",
            searcher=self.name,
            route="sampler",
            params={**params, LATENT: [float(coordinate) for coordinate in coordinates], DRAW: draw},
        )

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: `ask` reads the history."""

    def replay(self, history: Sequence[Trial]) -> CMA:
        """The optimizer after all whole generations of the history; points of other searchers count too."""
        dimension = self.cube.dimension
        evolution = CMA(
            mean=self.cube.coordinates(self.space.defaults),
            sigma=self.sigma,
            bounds=np.array([[0.0, 1.0]] * dimension),
            n_max_resampling=10 * dimension,
            population_size=self.population,
            seed=derive_seed(self.seed, 0),
        )
        for generation in self._generations(history, evolution.population_size):
            evolution.tell(generation)
        return evolution

    def _generations(
        self, history: Sequence[Trial], population: int
    ) -> list[list[tuple[NDArray[np.float64], float]]]:
        """Whole generations in order; what has not ended, and the reference, are in none."""
        latents = {trial.number: trial.proposal.params.get(LATENT) for trial in history}
        references = {t.number for t in history if t.verdict and t.verdict.decision == "reference"}
        known = [p for p in self.points.of(history) if p.kind != "pending" and p.number not in references]
        told = [(self._place(point, latents[point.number]), self._rank(point)) for point in known]
        starts = range(0, len(told) - population + 1, population)
        generations = [told[start : start + population] for start in starts]
        return [generation for generation in generations if any(np.isfinite(v) for _, v in generation)]

    def _place(self, point: Point, latent: Any) -> NDArray[np.float64]:
        return self.cube.coordinates(point.params) if latent is None else np.array(latent, dtype=np.float64)

    def _rank(self, point: Point) -> float:
        return math.inf if point.score is None else self.sign * point.score


def cmaes(
    *,
    space: Space,
    seed: int,
    direction: Direction = "minimize",
    sigma: float,
    population: int | None,
) -> CmaEsSearcher:
    """`sigma`: first step size, as a share of each range; `population`: None is 4 + 3 ln(coordinates)."""
    return CmaEsSearcher(space, seed, direction, sigma, population)


def _width(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1


def _encode(distribution: BaseDistribution, value: Any) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        chosen = distribution.to_internal_repr(value)
        return [CHOSEN if index == chosen else OTHERS for index in range(len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _ends(distribution)
    place = math.log(value) if distribution.log else float(value)
    return [0.5 if high == low else min(max((place - low) / (high - low), 0.0), 1.0)]


def _decode(distribution: BaseDistribution, coordinates: NDArray[np.float64]) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(np.argmax(coordinates))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _ends(distribution)
    place = low + float(coordinates[0]) * (high - low)
    value = math.exp(place) if distribution.log else place
    if isinstance(distribution, IntDistribution):
        value = round(value)
    return on_grid(distribution, min(max(value, distribution.low), distribution.high))


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """The range on the scale of the coordinate; an integer's ends are half a step wider, so that all its
    values are equally wide."""
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        low, high = low - distribution.step / 2, high + distribution.step / 2
    return (math.log(low), math.log(high)) if distribution.log else (low, high)
