"""An acceptance rule and a kind of chance go in, what the rule would do in many studies comes out.

Runs the real rule on invented measurements; scripts/simulate_acceptance.py prints the results as tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from agent.acceptance import Acceptance
from agent.noise import Noise
from agent.records import Measurement

FOLDS = 3
RUNS = 42


@dataclass(frozen=True)
class World:
    """How chance works: standard deviations on the log scale; `shared` of the seed part is common to all."""

    fold_std: float = 0.03
    seed_std: float = 0.015
    shared: float = 0.0
    tails: float = math.inf  # degrees of freedom of the fold part: 3 has heavy tails

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if math.isinf(self.tails):
            return random.normal(size=shape)
        return random.standard_t(self.tails, size=shape) / math.sqrt(self.tails / (self.tails - 2))


WORLDS = {
    "as assumed (folds 3 %, seeds 1.5 %)": World(),
    "quiet (folds 2 %, no seed part)": World(0.02, 0.0),
    "loud (folds 4 %, seeds 3 %)": World(0.04, 0.03),
    "seeds help (all of the seed part shared)": World(0.03, 0.02, shared=1.0),
    "heavy tails (t with 3 degrees of freedom)": World(tails=3.0),
}


@dataclass
class Study:
    """One simulated study: configurations are true log scores, runs are measurements of them."""

    world: World
    random: np.random.Generator
    shared_seeds: dict[int, float] = field(default_factory=dict)
    runs: int = 0

    def measure(self, level: float, seed: int) -> list[Measurement]:
        """One configuration on one training seed, all folds."""
        self.runs += 1
        common = self.shared_seeds.setdefault(seed, float(self.random.normal()))
        own = float(self.random.normal())
        part = math.sqrt(self.world.shared) * common + math.sqrt(1 - self.world.shared) * own
        rest = self.world.draw(self.random, (FOLDS,)) * self.world.fold_std
        scores = 160 * np.exp(level + self.world.seed_std * part + rest)
        return [Measurement(seed, fold, float(score)) for fold, score in enumerate(scores)]

    def search(
        self, rule: Acceptance, effects: np.ndarray, most_runs: float = math.inf
    ) -> tuple[np.ndarray, float, float]:
        """(which effects were kept, true log gain of the last recipe, gain that the kept deltas claim).

        Ends with the effects, or before the trial that would begin after `most_runs` runs.
        """
        level, kept, claimed = 0.0, np.zeros(len(effects), dtype=bool), 0.0
        recipe = [item for seed in range(rule.floor_seeds) for item in self.measure(0.0, seed)]
        noise = rule.noise([recipe])
        for number, effect in enumerate(effects):
            if self.runs >= most_runs:
                break
            candidate, delta = self._trial(rule, level + effect, level, recipe, noise)
            if candidate:
                kept[number], level, recipe = True, level + effect, candidate
                claimed += delta
        return kept, -level, -claimed

    def _trial(
        self,
        rule: Acceptance,
        candidate_level: float,
        recipe_level: float,
        recipe: list[Measurement],
        noise: Noise,
    ) -> tuple[list[Measurement], float]:
        """(the candidate's measurements if it was kept, its apparent change of the log score)."""
        candidate = self.measure(candidate_level, 0)
        while (decision := rule.decide(candidate, recipe, noise)).action == "rerun":
            if decision.seeds not in {item.seed for item in recipe}:
                recipe.extend(self.measure(recipe_level, decision.seeds))
            candidate.extend(self.measure(candidate_level, decision.seeds))
        before = np.mean([item.score for item in recipe])
        return (candidate if decision.action == "keep" else []), float(np.log1p(decision.delta / before))


def false_keeps(
    rule: Acceptance, world: World, proposals: int, studies: int, seed: int
) -> tuple[np.ndarray, float]:
    """(false keeps of each study where nothing has an effect, runs a proposal)."""
    counts, runs = [], 0
    for number in range(studies):
        study = Study(world, np.random.default_rng([seed, number]))
        kept, _, _ = study.search(rule, np.zeros(proposals))
        counts.append(int(kept.sum()))
        runs += study.runs
    return np.array(counts), runs / studies / proposals


def power(rule: Acceptance, world: World, gain: float, studies: int, seed: int) -> float:
    """Chance that one proposal with a real gain (a share of the score) is kept, against a fresh reference."""
    kept = 0
    for number in range(studies):
        study = Study(world, np.random.default_rng([seed, number]))
        kept += int(study.search(rule, np.array([math.log1p(-gain)]))[0].sum())
    return kept / studies


def mixed(random: np.random.Generator, proposals: int) -> np.ndarray:
    """Log effects like the published log's: one in six a gain of 1-10 %, half do nothing, the rest harms."""
    kinds = random.choice(3, size=proposals, p=[1 / 6, 1 / 2, 1 / 3])
    gains = np.log1p(-random.uniform(0.01, 0.10, size=proposals))
    harms = np.log1p(random.uniform(0.01, 0.10, size=proposals))
    return np.where(kinds == 0, gains, np.where(kinds == 1, 0.0, harms))


def whole_studies(
    rule: Acceptance, world: World, studies: int, seed: int, effects: Callable[..., np.ndarray] = mixed
) -> dict[str, float]:
    """Means over studies of 42 runs, floor and re-runs among them, on mixed proposals."""
    rows = []
    for number in range(studies):
        random = np.random.default_rng([seed, number])
        true = effects(random, RUNS)
        study = Study(world, random)
        kept, gained, claimed = study.search(rule, true, most_runs=RUNS)
        rows.append((kept.sum(), (kept & (true >= 0)).sum(), gained, claimed, study.runs))
    names = ("kept", "false", "gained", "claimed", "runs")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
