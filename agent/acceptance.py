"""Measurements of a candidate and of the recipe go in, a decision comes out: keep, revert or re-run.

`greedy` keeps what is better on average. `paired` asks how probable a real gain is:

- The datum is d[s], the candidate minus the recipe on training seed s, averaged over the folds that both
  were measured on, on the task's scale. Folds within a seed are not counted as independent evidence
  (agent/noise.py says what they share); seeds are.
- d[s] ~ N(effect, v). v has a scaled inverse chi-squared prior from the noise floor and learns from the
  spread of d over seeds, so every posterior here is Student's t.
- With prior probability `no_effect` the effect is exactly nothing; otherwise effect | v ~ N(0, spread^2 v),
  gains and losses alike. The probability of a real gain is the posterior mass of (there is an effect) and
  (it is a gain).

Why this prior: under a flat one P > 0.9 happens to 10 % of the changes that do nothing, and more once
re-runs are allowed. Here a candidate must beat "nothing" as well as "loss", and apparent effects are
shrunk. Two figures are not to be mixed up (scripts/simulate_acceptance.py prints both): the chance that
one useless proposal is kept against a recipe that nothing has selected, 2 % (0-5 % over the kinds of
noise tried), and the false keeps in 100 useless proposals of one study, 0.1 to 0.6 (95 of 100 studies: at
most 1). The second is smaller than a hundred times the first, because all proposals of a study are
compared with
the same measurements of the recipe: once a lucky one is kept, the next must be luckier still. For the
same reason greedy, which errs in half of its comparisons, makes about 4 false keeps and not 50 (the
records among 100 draws).
The price is power: a real gain of 5 % is kept in 61 of 100 cases (greedy: 95), and where one proposal in
six is a gain and harm is small, greedy climbs further in 42 runs, though half of what it keeps does
nothing. These rates suppose that the noise floor is right; a study whose noise grows later errs more
often.

The recipe's own score on the shared seeds is a selected minimum: it was kept because it looked good on
them. Later candidates are compared with that lucky score, so the selection makes real gains harder to
prove, not false ones easier; a re-run measures both on a fresh seed and so dilutes the luck. Neither
rule's last score is an unbiased
estimate: scripts/confirm.py re-evaluates the winner on seeds that selected nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from scipy.special import stdtr

from agent.noise import Noise, NoisePrior, estimate, on_scale
from agent.records import Measurement
from agent.task import Direction, Scale

Action = Literal["keep", "revert", "rerun"]


@dataclass(frozen=True)
class Decision:
    """What to do with a candidate.

    probability: of a real gain; None from a rule that does not know.
    delta: candidate minus recipe, mean score over the shared seeds and folds, in the metric's units.
    seeds: training seeds that both were measured on. "rerun": measure both on the next one.
    """

    action: Action
    delta: float
    seeds: int
    probability: float | None = None
    reason: str = ""


class Acceptance(Protocol):
    """When a change is kept.

    floor_seeds: on how many seeds the reference is run at the study's start. most_seeds: how many may be needed.
    """

    @property
    def floor_seeds(self) -> int: ...

    @property
    def most_seeds(self) -> int: ...

    def noise(self, groups: Sequence[Sequence[Measurement]]) -> Noise: ...

    def decide(
        self, candidate: Sequence[Measurement], recipe: Sequence[Measurement], noise: Noise
    ) -> Decision: ...

    def hopeless(
        self, candidate: Sequence[Measurement], recipe: Sequence[Measurement], noise: Noise
    ) -> bool: ...


@dataclass(frozen=True)
class _Rule:
    """What all rules share: the scale, the noise floor, and when a trial is hopeless.

    hopeless_below: a trial is stopped early when, judged by the folds it has so far, the noise would put a
    candidate that is no worse than the recipe this far behind with less than this probability; None: never.
    """

    direction: Direction
    scale: Scale
    floor_seeds: int = 1
    hopeless_below: float | None = 0.01
    prior: NoisePrior = field(default_factory=NoisePrior)

    @property
    def most_seeds(self) -> int:
        return self.floor_seeds

    def noise(self, groups: Sequence[Sequence[Measurement]]) -> Noise:
        """The noise floor from each group's repeated measurements of one configuration."""
        return estimate(groups, self.scale, self.prior)

    def hopeless(self, candidate: Sequence[Measurement], recipe: Sequence[Measurement], noise: Noise) -> bool:
        """Behind by more than the noise can explain. `candidate` holds what was measured so far, one seed.

        Raises ValueError where the recipe was not measured on the same seed and fold.
        """
        if self.hopeless_below is None:
            return False
        gains, folds = seed_gains(candidate, recipe, self.direction, self.scale)
        behind = -sum(gains) / len(gains) / math.sqrt(noise.difference_variance(folds) / len(gains))
        return bool(stdtr(noise.df, -behind) < self.hopeless_below)


@dataclass(frozen=True)
class Greedy(_Rule):
    """Keep whatever is better on average over the shared seeds and folds."""

    def decide(
        self, candidate: Sequence[Measurement], recipe: Sequence[Measurement], noise: Noise
    ) -> Decision:
        change, seeds = delta(candidate, recipe)
        better = change < 0 if self.direction == "minimize" else change > 0
        reason = f"mean {'improved' if better else 'did not improve'} by {change:+.4g}"
        return Decision("keep" if better else "revert", change, seeds, reason=reason)


@dataclass(frozen=True)
class Paired(_Rule):
    """Keep what is probably a real gain; see the module's docstring.

    keep_above, revert_below: the probabilities between which one more seed is run, at most `max_reruns`
    times.
    keep_at_limit: after the last re-run, a candidate that is still in between is kept above this
    probability.
    no_effect: prior probability that a change does nothing. spread: standard deviation of effects that do
    something, in standard deviations of one seed's difference.
    """

    keep_above: float = 0.9
    revert_below: float = 0.5
    max_reruns: int = 2
    keep_at_limit: float = 0.7
    no_effect: float = 0.3
    spread: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.revert_below <= self.keep_at_limit <= self.keep_above < 1:
            raise ValueError(
                f"acceptance: revert_below={self.revert_below}, keep_at_limit={self.keep_at_limit}, "
                f"keep_above={self.keep_above}: expected 0 < revert_below <= keep_at_limit <= keep_above < 1"
            )
        if not 0 < self.no_effect < 1 or self.spread <= 0 or self.max_reruns < 0:
            raise ValueError(
                f"acceptance: no_effect={self.no_effect}, spread={self.spread}, "
                f"max_reruns={self.max_reruns}: expected 0 < no_effect < 1, spread > 0, max_reruns >= 0"
            )

    @property
    def most_seeds(self) -> int:
        return max(self.floor_seeds, 1 + self.max_reruns)

    def decide(
        self, candidate: Sequence[Measurement], recipe: Sequence[Measurement], noise: Noise
    ) -> Decision:
        """Raises ValueError where the two share no seed and fold."""
        gains, folds = seed_gains(candidate, recipe, self.direction, self.scale)
        probability = gain_probability(
            gains, noise.difference_variance(folds), noise.df, self.no_effect, self.spread
        )
        change, seeds = delta(candidate, recipe)
        action, why = self._action(probability, seeds)
        reason = f"P(gain) {probability:.2f} on {seeds} seed{'s' * (seeds > 1)} x {folds} folds: {why}"
        return Decision(action, change, seeds, probability, reason)

    def _action(self, probability: float, seeds: int) -> tuple[Action, str]:
        if probability > self.keep_above:
            return "keep", f"above {self.keep_above:g}"
        if probability < self.revert_below:
            return "revert", f"below {self.revert_below:g}"
        if seeds <= self.max_reruns:
            return "rerun", "undecided, one more seed"
        if probability > self.keep_at_limit:
            return "keep", f"above {self.keep_at_limit:g} and no re-run left"
        return "revert", f"not above {self.keep_at_limit:g} and no re-run left"


def gain_probability(
    gains: Sequence[float], variance: float, df: float, no_effect: float, spread: float
) -> float:
    """P(effect > 0 | gains) under the prior of the module's docstring.

    gains: one number a seed, positive is better. variance: the prior guess of one gain's variance, worth
    `df` degrees of freedom. With n gains of mean m and k = n spread^2 / (1 + n spread^2):
    nothing:  S0 = df * variance + sum(gain^2)
    effect:   S1 = S0 - n k m^2, posterior effect ~ t(df + n) around k m with scale^2 = k S1 / (n (df + n))
    Bayes factor effect : nothing = (1 + n spread^2)^-1/2 (S0 / S1)^((df + n) / 2).
    """
    count, mean = len(gains), sum(gains) / len(gains)
    shrink = count * spread**2 / (1 + count * spread**2)
    nothing = df * variance + sum(gain * gain for gain in gains)
    effect = nothing - count * shrink * mean * mean
    log_factor = (df + count) / 2 * math.log(nothing / effect) - math.log1p(count * spread**2) / 2
    log_odds = log_factor + math.log((1 - no_effect) / no_effect)
    scale = math.sqrt(shrink * effect / (count * (df + count)))
    return float(stdtr(df + count, shrink * mean / scale)) / (1 + math.exp(min(-log_odds, 700.0)))


def seed_gains(
    candidate: Sequence[Measurement], recipe: Sequence[Measurement], direction: Direction, scale: Scale
) -> tuple[list[float], int]:
    """(gain of the candidate on each shared seed, positive is better; folds in each of them).

    Seeds that share fewer folds than the best one are left out. Raises ValueError where none is shared.
    """
    sign = -1.0 if direction == "minimize" else 1.0
    by_seed: dict[int, list[float]] = defaultdict(list)
    for one, other in _pairs(candidate, recipe):
        by_seed[one.seed].append(sign * (on_scale(one.score, scale) - on_scale(other.score, scale)))
    folds = max(len(differences) for differences in by_seed.values())
    return [sum(found) / folds for _, found in sorted(by_seed.items()) if len(found) == folds], folds


def delta(candidate: Sequence[Measurement], recipe: Sequence[Measurement]) -> tuple[float, int]:
    """(candidate minus recipe, mean over the shared seeds and folds, in the metric's units; shared seeds)."""
    pairs = _pairs(candidate, recipe)
    return sum(a.score - b.score for a, b in pairs) / len(pairs), len({a.seed for a, _ in pairs})


def _pairs(
    candidate: Sequence[Measurement], recipe: Sequence[Measurement]
) -> list[tuple[Measurement, Measurement]]:
    known = {(item.seed, item.fold): item for item in recipe}
    pairs = [(item, known[item.seed, item.fold]) for item in candidate if (item.seed, item.fold) in known]
    if not pairs:
        raise ValueError("candidate and recipe share no training seed and fold; measure both on the same")
    return pairs


def from_config(config: Mapping[str, Any], direction: Direction, scale: Scale) -> Acceptance:
    """configs/acceptance/*.yaml as a rule. Raises ValueError with what is wrong."""
    options = {key: value for key, value in config.items() if key not in ("name", "prior")}
    rules: dict[str, type[Greedy | Paired]] = {"greedy": Greedy, "paired": Paired}
    name = config.get("name")
    if name not in rules:
        raise ValueError(f"acceptance.name={name!r}: expected one of {', '.join(rules)}")
    try:
        return rules[name](direction, scale, prior=NoisePrior(**config.get("prior", {})), **options)
    except TypeError as error:
        raise ValueError(f"acceptance={name}: {error}") from error
