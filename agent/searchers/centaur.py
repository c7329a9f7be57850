"""CMA-ES and an LLM in one searcher: the history enters; on a fixed share of the trials the LLM proposes.

The strategy is the lab's own (`agent.searchers.evolution`), rebuilt from the history at every ask, so
there is no state that a kill could lose. The LLM sees that state and the strategy's own next point; its
point enters the same generation as if it had been drawn. What failed ranks last in its generation. A
round in which the LLM proposes nothing valid is a rejected trial without a point: nobody's proposal takes
its place.

Whose turn it is follows from the trial's number alone (a Bresenham pattern): with a share of 0.3, any ten
consecutive trials hold exactly three of the LLM's. The ledger's `route` says who proposed: "llm" or
"cmaes".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from cmaes import CMA

from agent.desk import Desk
from agent.records import Proposal, Trial
from agent.researcher import role
from agent.researcher.arm import Arm
from agent.researcher.calling import BudgetReached
from agent.researcher.chair import Chair
from agent.researcher.history import value_text
from agent.researcher.names import PLAIN
from agent.researcher.program import ProgramFile
from agent.researcher.rounds import proposals_of
from agent.researcher.rules import proposed
from agent.researcher.settings import LLMSettings
from agent.searchers.base import Direction, Searcher, Space, active
from agent.searchers.claude import program_file, seat
from agent.searchers.evolution import CmaEsSearcher

BEST, LATEST = 5, 10
# a correlation below this tells nothing after so few trials
LEAST_CORRELATION = 0.1


class Centaur(Searcher):
    """ask() raises LLMUnavailable and LLMRefused, as the other LLM searchers do."""

    name = "centaur"

    def __init__(self, chair: Chair, program: ProgramFile, evolution: CmaEsSearcher, share: Fraction) -> None:
        self.chair, self.program, self.evolution, self.share = chair, program, evolution, share

    def ask(self, history: Sequence[Trial]) -> Proposal | None:
        """The strategy's point, or on its turn the LLM's. None when the dollars are used up."""
        own = self.evolution.ask(history)
        if not llm_turn(proposed(history), self.share):
            return replace(own, searcher=self.name, route="cmaes")
        try:
            return self._ask_llm(history, own)
        except BudgetReached as limit:
            self.chair.desk.log(
                "budget of dollars reached", trial=self.chair.desk.next_trial, reason=str(limit)
            )
            return None

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: `ask` reads the history."""

    def _ask_llm(self, history: Sequence[Trial], own: Proposal) -> Proposal | None:
        program, trials = self.program.current(), self.chair.desk.budget.trials
        ending = self.chair.converse(
            program,
            program.phase(proposed(history), trials),
            history,
            purpose="round",
            goal="propose_trial",
            task=role.PROPOSE,
            extra=state_text(self.evolution, self.evolution.replay(history), own),
            shown=best_and_latest(history, self.chair.desk.task.direction),
            finish=lambda proposal: self._complete(proposal, own),
        )
        return next(iter(proposals_of(ending, self.chair, self.chair.desk.next_trial)), None)

    def _complete(self, proposal: Proposal, own: Proposal) -> Proposal:
        """The LLM's values over the strategy's own: a whole point of the space, which CMA-ES can be told."""
        space = self.evolution.space
        params = {key: proposal.overrides.get(key, own.params[key]) for key in space.distributions}
        return replace(proposal, overrides=active(params, space), params=params, base="reference")


def llm_turn(number: int, share: Fraction) -> bool:
    """Whether proposal `number`, from 0, is the LLM's."""
    return math.floor((number + 1) * share) > math.floor(number * share)


def best_and_latest(history: Sequence[Trial], direction: Literal["minimize", "maximize"]) -> list[Trial]:
    """The five best trials and the ten latest, in order of number."""
    scored = [(t.outcome.score, t.number) for t in history if t.outcome and t.outcome.score is not None]
    best = sorted(scored, reverse=direction == "maximize")[:BEST]
    chosen = {number for _, number in best} | {trial.number for trial in history[-LATEST:]}
    return [trial for trial in history if trial.number in chosen]


def state_text(searcher: CmaEsSearcher, evolution: CMA, own: Proposal) -> str:
    """Mean, step size, covariance and next point, for the prompt. Coordinates are those of the unit cube."""
    # cmaes has no public names for these two
    sigma, covariance = float(evolution._sigma), np.asarray(evolution._C)
    spread = sigma * np.sqrt(np.diag(covariance))
    mean = searcher.cube.params(evolution.mean)
    names = _coordinates(searcher)
    lines = [
        "# State of CMA-ES",
        f"generation {evolution.generation} of {evolution.population_size} points each, step size {sigma:.4g}",
        "coordinate: mean, standard deviation (in the unit cube)",
        *(f"{n}: {m:.3f}, {s:.3f}" for n, m, s in zip(names, evolution.mean, spread, strict=True)),
        f"correlations of at least {LEAST_CORRELATION}: {_correlations(names, covariance) or 'none yet'}",
        "# Mean and next point of CMA-ES",
        "parameter: mean, next point",
        *(f"{key}: {value_text(mean[key])}, {value_text(own.params[key])}" for key in sorted(mean)),
    ]
    return "\n".join(lines)


def _coordinates(searcher: CmaEsSearcher) -> list[str]:
    """A name for each coordinate of the cube; a categorical knob has one for each choice."""
    names = []
    for (key, distribution), width in zip(
        searcher.cube.distributions.items(), searcher.cube.widths, strict=True
    ):
        choices = getattr(distribution, "choices", None)
        names += [f"{key}={choice}" for choice in choices] if choices and width > 1 else [key]
    return names


def _correlations(names: Sequence[str], covariance: np.ndarray) -> str:
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    pairs = [
        (i, j) for i in range(len(names)) for j in range(i) if abs(correlation[i, j]) >= LEAST_CORRELATION
    ]
    pairs.sort(key=lambda pair: -abs(correlation[pair]))
    return "; ".join(f"{names[i]} ~ {names[j]}: {correlation[i, j]:+.2f}" for i, j in pairs)


def centaur(
    *,
    space: Space,
    seed: int,
    desk: Desk,
    direction: Direction = "minimize",
    program: str,
    llm: Mapping[str, Any],
    llm_share: float | str = 0.3,
    sigma: float = 0.2,
    population: int | None = None,
    **edges: Any,
) -> Centaur:
    """`llm_share`: the LLM's share of the trials in [0, 1]; `sigma`, `population`: as for searcher=cmaes."""
    share = Fraction(str(llm_share))
    if not 0 <= share <= 1:
        raise ValueError(f"searcher.llm_share={llm_share}: expected a share in [0, 1]")
    arm = Arm(
        "centaur", role.CENTAUR_ROLE, False, False, code=False, knowledge=True, phases=False, names=PLAIN
    )
    chair = seat(desk, arm, LLMSettings.from_mapping(llm), **edges)
    evolution = CmaEsSearcher(space, seed, direction, sigma, population)
    return Centaur(chair, program_file(desk, program), evolution, share)
