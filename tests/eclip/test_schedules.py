"""Schedules against points worked out by hand."""

from __future__ import annotations

import math

import pytest

from eclip.schedules import expert_probability, learning_rate_factor

PHASES = {"schedule": "phased", "max": 0.8, "min": 0.2, "cold": 0.1, "warmup": 0.2, "cooldown": 0.4}


@pytest.mark.parametrize(
    ("share", "factor"),
    [
        (0.0, 0.0),
        (0.05, 0.25),
        (0.2, 1.0),
        (0.6, 0.55),  # half-way down the cosine: the mean of 1 and the floor
        (0.4, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the way: cos 45 degrees
        (1.0, 0.1),
        (1.3, 0.1),  # a step that ends after its time still counts as the end
    ],
)
def test_learning_rate_points(share: float, factor: float) -> None:
    assert learning_rate_factor(share, warmup=0.2, floor=0.1) == pytest.approx(factor, abs=1e-12)


def test_learning_rate_without_warmup_and_with_nothing_else() -> None:
    assert learning_rate_factor(0.0, warmup=0.0, floor=0.0) == 1.0
    assert learning_rate_factor(0.5, warmup=1.0, floor=0.0) == 0.5
    assert learning_rate_factor(0.5, warmup=0.0, floor=1.0) == 1.0


def test_the_learning_rate_rises_and_then_falls() -> None:
    factors = [learning_rate_factor(share / 100, 0.1, 0.05) for share in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert len(set(factors)) > 90


@pytest.mark.parametrize(
    ("share", "probability"),
    [(0, 0), (0.1, 0), (0.2, 0.4), (0.3, 0.8), (0.5, 0.8), (0.6, 0.8), (0.8, 0.5), (1.0, 0.2)],
)
def test_phased_probability_points(share: float, probability: float) -> None:
    assert expert_probability(share, **PHASES) == pytest.approx(probability, abs=1e-12)


def test_phases_of_no_length_are_steps() -> None:
    steps = {"schedule": "phased", "max": 0.5, "min": 0.1, "cold": 0.25, "warmup": 0.0, "cooldown": 0.0}
    shares = (0.0, 0.2, 0.25, 0.9, 1.0)
    assert [expert_probability(share, **steps) for share in shares] == [0, 0, 0.5, 0.5, 0.5]


def test_constant_probability_ignores_the_phases() -> None:
    for share in (0.0, 0.5, 1.0):
        assert expert_probability(share, **{**PHASES, "schedule": "constant"}) == 0.8


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"= 1\.2, more than the budget"):
        expert_probability(0.5, **{**PHASES, "cold": 0.6})
    with pytest.raises(ValueError, match="schedule=linear: choose constant or phased"):
        expert_probability(0.5, **{**PHASES, "schedule": "linear"})
