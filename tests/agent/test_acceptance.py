"""Acceptance: the posterior against brute force, the floor against known noise, the rules against chance."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import integrate, stats

from agent.acceptance import Greedy, Paired, from_config, gain_probability, seed_gains
from agent.noise import Noise, NoisePrior, estimate, on_scale
from agent.records import Measurement
from agent.simulation import WORLDS, World, false_keeps, power, whole_studies

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "acceptance"
QUIET = Noise(seed_variance=0.0, fold_variance=3 * 0.01**2, df=100.0)  # one seed's mean varies by 1 %
ASSUMED = World()


def rule_named(name):
    return from_config(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()), "minimize", "log")


def measured(*rows, seeds=None):
    """Measurements from one row of fold scores a seed."""
    seeds = seeds or range(len(rows))
    return [
        Measurement(seed, fold, score)
        for seed, row in zip(seeds, rows, strict=True)
        for fold, score in enumerate(row)
    ]


PAIRED = Paired("minimize", "log")
RECIPE = measured([100.0, 100.0, 100.0])


@pytest.mark.parametrize("gains", [[0.05], [0.03, 0.03, -0.01]])
@pytest.mark.parametrize(("df", "no_effect", "spread"), [(4.0, 0.3, 2.0), (30.0, 0.5, 1.0)])
def test_the_posterior_agrees_with_brute_force(gains, df, no_effect, spread):
    """Likelihood times prior, integrated over effect and variance numerically."""
    guess, data = 0.02**2, np.array(gains)
    prior = stats.invgamma(df / 2, scale=df * guess / 2)

    def weight(log_variance, low, high):
        variance = math.exp(log_variance)
        outer = prior.pdf(variance) * variance

        def inner(effect):
            return stats.norm.pdf(data, effect, math.sqrt(variance)).prod() * stats.norm.pdf(
                effect, 0, spread * math.sqrt(variance)
            )

        center, width = data.mean(), 8 * math.sqrt(variance)
        low, high = max(low, center - width), min(high, center + width)
        return outer * integrate.quad(inner, low, high, limit=80)[0] if low < high else 0.0

    def total(low, high):
        span = (math.log(guess) - 6, math.log(guess) + 9)
        return integrate.quad(weight, *span, args=(low, high), limit=80, epsrel=1e-4)[0]

    def nothing(log_variance):
        variance = math.exp(log_variance)
        likelihood = stats.norm.pdf(data, 0, math.sqrt(variance)).prod()
        return prior.pdf(variance) * variance * likelihood

    none = integrate.quad(nothing, math.log(guess) - 6, math.log(guess) + 9, limit=80)[0] * no_effect
    gain, loss = total(0, 1) * (1 - no_effect), total(-1, 0) * (1 - no_effect)
    expected = gain / (none + gain + loss)
    assert gain_probability(gains, guess, df, no_effect, spread) == pytest.approx(expected, abs=2e-3)


def test_the_posterior_at_its_ends():
    arguments = {"variance": 1e-4, "df": 10.0, "no_effect": 0.3, "spread": 2.0}
    assert gain_probability([0.0], **arguments) < 0.35 < 0.5
    assert gain_probability([1.0], **arguments) > 0.999
    assert gain_probability([-1.0], **arguments) < 1e-3
    assert gain_probability([0.0] * 50, **arguments) < 0.1  # much evidence that nothing happens
    assert gain_probability([1e9], **arguments) <= 1.0
    rising = [gain_probability([gain], **arguments) for gain in np.linspace(-0.1, 0.1, 41)]
    assert all(a < b for a, b in pairwise(rising))


def test_keep_revert_and_rerun():
    clear = PAIRED.decide(measured([90.0, 91.0, 89.0]), RECIPE, QUIET)
    assert clear.action == "keep"
    assert clear.probability > 0.99
    assert clear.delta == pytest.approx(-10)
    assert PAIRED.decide(measured([110.0, 109.0, 111.0]), RECIPE, QUIET).action == "revert"
    assert PAIRED.decide(RECIPE, RECIPE, QUIET).action == "revert"
    between = PAIRED.decide(measured([97.2, 97.5, 97.3]), RECIPE, QUIET)
    assert between.action == "rerun"
    assert 0.5 <= between.probability <= 0.9
    assert between.seeds == 1
    assert "one more seed" in between.reason


def test_direction_and_scale():
    better = measured([0.60, 0.61, 0.62])
    recipe = measured([0.50, 0.51, 0.52])
    noise = Noise(0.0, 3 * 0.01**2, 100.0)
    assert Paired("maximize", "linear").decide(better, recipe, noise).action == "keep"
    assert Paired("minimize", "linear").decide(better, recipe, noise).action == "revert"
    assert Greedy("maximize", "linear").decide(better, recipe, noise).action == "keep"
    assert Greedy("minimize", "linear").decide(better, recipe, noise).action == "revert"


def test_the_limit_of_reruns():
    """After the last re-run the stated rule decides, never another re-run."""
    row = [97.9, 98.0, 98.1]
    three = measured(row, [99.6, 99.4, 99.5], [98.4, 98.6, 98.5])
    recipe = measured(*[[100.0] * 3] * 3)
    noise = Noise(0.0, 3 * 0.01**2, 100.0)
    undecided = Paired("minimize", "log", max_reruns=5).decide(three, recipe, noise)
    assert undecided.action == "rerun"
    two = Paired("minimize", "log", revert_below=0.1).decide(three[:6], recipe, noise)
    assert (two.seeds, two.action) == (2, "rerun")
    strict = Paired("minimize", "log", keep_at_limit=0.89).decide(three, recipe, noise)
    lenient = Paired("minimize", "log", keep_at_limit=0.5).decide(three, recipe, noise)
    assert (strict.action, lenient.action) == ("revert", "keep")
    assert "no re-run left" in strict.reason
    assert undecided.probability == strict.probability == lenient.probability


def test_only_shared_seeds_and_folds_are_compared():
    candidate = measured([90.0, 91.0, 92.0], [50.0, 50.0, 50.0], seeds=[0, 7])
    recipe = measured([100.0, 101.0, 102.0], [10.0, 10.0, 10.0], seeds=[0, 1])
    decision = PAIRED.decide(candidate, recipe, QUIET)
    assert (decision.seeds, decision.delta) == (1, pytest.approx(-10))
    with pytest.raises(ValueError, match="share no training seed and fold"):
        PAIRED.decide(measured([90.0], seeds=[3]), recipe, QUIET)


def test_seeds_with_fewer_folds_are_left_out():
    candidate = [*measured([90.0, 91.0]), Measurement(1, 0, 10.0)]
    recipe = measured([100.0, 100.0], [100.0, 100.0])
    gains, folds = seed_gains(candidate, recipe, "minimize", "log")
    assert folds == 2
    assert gains == [pytest.approx(-(math.log(0.90) + math.log(0.91)) / 2)]


def test_noise_floor_finds_the_variances():
    random = np.random.default_rng(0)
    seeds, folds = 4000, 3
    part = 0.02 * random.normal(size=(seeds, 1)) + 0.04 * random.normal(size=(seeds, folds))
    scores = 200 * np.exp(part + np.array([0.0, 0.3, -0.2]))  # folds differ, which is no noise
    noise = estimate([measured(*scores.tolist())], "log", NoisePrior())
    assert math.sqrt(noise.seed_variance) == pytest.approx(0.02, rel=0.1)
    assert math.sqrt(noise.fold_variance) == pytest.approx(0.04, rel=0.05)
    assert noise.df == 4 + seeds - 1
    assert noise.difference_variance(3) == pytest.approx(2 * (0.02**2 + 0.04**2 / 3), rel=0.1)


def test_noise_floor_from_little():
    """One seed: the prior speaks. Several groups: their degrees of freedom add up."""
    prior = NoisePrior(fold_std=0.03, seed_share=0.3, df=4.0)
    alone = estimate([RECIPE], "log", prior)
    assert alone.df == 4
    assert alone.fold_variance == pytest.approx(0.03**2)
    assert alone.seed_variance == pytest.approx(0.3 * 0.03**2)
    rows = [[100.0, 101.0, 99.0], [104.0, 103.0, 108.0], [97.0, 99.0, 98.0]]
    one = estimate([measured(*rows)], "log", prior)
    two = estimate([measured(*rows), measured(*[[2 * x for x in row] for row in rows])], "log", prior)
    assert (one.df, two.df) == (6, 8)
    same_seeds = estimate([measured(*[[100.0, 110.0, 90.0]] * 3)], "log", prior)
    assert 0 < same_seeds.difference_variance(3) < alone.difference_variance(3)
    with pytest.raises(ValueError, match="at least one measurement"):
        estimate([[]], "log", prior)


def test_noise_floor_does_not_depend_on_which_trial_came_first():
    """A reference that failed after its first fold is the first trial of a study that was mended and resumed."""
    failed, whole = (
        measured((100.0,)),
        measured((100.0, 110.0, 90.0), (104.0, 113.0, 95.0), (97.0, 108.0, 86.0)),
    )
    assert estimate([failed, whole], "log", NoisePrior()) == estimate([whole], "log", NoisePrior())


def test_noise_on_a_linear_scale_is_relative_to_the_level():
    prior = NoisePrior()
    small = estimate([measured([0.5, 0.5, 0.5])], "linear", prior)
    large = estimate([measured([5.0, 5.0, 5.0])], "linear", prior)
    assert large.fold_variance == pytest.approx(100 * small.fold_variance)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0])
def test_impossible_scores(score):
    with pytest.raises(ValueError, match="expected a finite number of at least 0"):
        on_scale(score, "log")


def test_a_perfect_score_is_possible():
    assert PAIRED.decide(measured([0.0, 0.0, 0.0]), RECIPE, QUIET).action == "keep"


def test_hopeless():
    noise = Noise(0.015**2, 0.03**2, 6.0)
    rule = Paired("minimize", "log")
    assert rule.hopeless([Measurement(0, 0, 130.0)], RECIPE, noise)
    assert not rule.hopeless([Measurement(0, 0, 105.0)], RECIPE, noise)
    assert not rule.hopeless([Measurement(0, 0, 50.0)], RECIPE, noise)
    assert not Paired("minimize", "log", hopeless_below=None).hopeless(
        [Measurement(0, 0, 900.0)], RECIPE, noise
    )
    assert Greedy("minimize", "log").hopeless([Measurement(0, 0, 130.0)], RECIPE, noise)
    with pytest.raises(ValueError, match="share no training seed"):
        rule.hopeless([Measurement(5, 0, 130.0)], RECIPE, noise)


def test_hopeless_seldom_hits_what_is_no_worse():
    random = np.random.default_rng(1)
    noise = Noise(0.015**2, 0.03**2, 1e6)
    std = math.sqrt(0.015**2 + 0.03**2)
    draws = 100 * np.exp(std * random.normal(size=(4000, 2)))
    hits = [PAIRED.hopeless([Measurement(0, 0, a)], [Measurement(0, 0, b)], noise) for a, b in draws.tolist()]
    assert 0.005 < np.mean(hits) < 0.017


@pytest.mark.parametrize("name", ["greedy", "paired"])
def test_config_files(name):
    rule = rule_named(name)
    assert rule.floor_seeds == {"greedy": 1, "paired": 3}[name]
    assert rule.noise([RECIPE]).df == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "lucky"}, "expected one of greedy, paired"),
        ({"keep_above": 0.4}, "expected 0 < revert_below"),
        ({"keep_above": 1.0}, "expected 0 < revert_below"),
        ({"no_effect": 1.0}, "expected 0 < no_effect < 1"),
        ({"spread": 0}, "spread > 0"),
        ({"keep_abov": 0.9}, "keep_abov"),
        ({"prior": {"std": 1}}, "std"),
    ],
)
def test_mistakes_in_the_config(change, message):
    config = yaml.safe_load((CONFIGS / "paired.yaml").read_text()) | change
    with pytest.raises(ValueError, match=message):
        from_config(config, "minimize", "log")


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_at_most_five_false_keeps_in_a_hundred(world):
    """The requirement, with margin: in 95 of 100 studies too, and if every proposal met a fresh recipe."""
    counts, runs = false_keeps(rule_named("paired"), world, proposals=100, studies=40, seed=3)
    assert np.quantile(counts, 0.95) <= 2
    assert counts.mean() <= 1
    assert runs < 1.3
    assert power(rule_named("paired"), world, 0.0, studies=300, seed=3) <= 0.07


def test_greedy_keeps_records():
    """Against one fixed recipe measurement greedy keeps the records among 101 draws: 4.2 on average."""
    counts, _ = false_keeps(rule_named("greedy"), ASSUMED, proposals=100, studies=60, seed=3)
    assert counts.mean() == pytest.approx(sum(1 / k for k in range(2, 102)), abs=0.8)
    assert power(rule_named("greedy"), ASSUMED, 0.0, studies=300, seed=3) > 0.4


def test_real_gains_are_kept():
    rule = rule_named("paired")
    assert power(rule, ASSUMED, 0.10, studies=100, seed=4) > 0.9
    assert power(rule, ASSUMED, 0.05, studies=100, seed=4) > 0.45


def test_a_whole_study_keeps_gains_and_little_else():
    paired = whole_studies(rule_named("paired"), ASSUMED, studies=30, seed=5)
    greedy = whole_studies(rule_named("greedy"), ASSUMED, studies=30, seed=5)
    assert paired["false"] < 0.5 < 3 < greedy["false"]
    assert paired["gained"] > 0.1
