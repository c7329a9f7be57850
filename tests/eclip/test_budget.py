"""The clock under a time that the test tells it."""

from __future__ import annotations

import pytest

from eclip.budget import BudgetClock


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def test_steps_alone(time):
    clock = BudgetClock(10, None, time)
    clock.start()
    time.now += 1e6
    assert [clock.share(step) for step in (0, 5, 10, 20)] == [0, 0.5, 1, 1]
    assert not clock.over(9)
    assert clock.over(10)


def test_whichever_is_nearer_its_end(time):
    clock = BudgetClock(100, 20.0, time)
    clock.start()
    time.now += 5
    assert clock.share(10) == 0.25
    assert clock.share(60) == 0.6
    time.now += 100
    assert clock.share(10) == 1


def test_pauses_do_not_count(time):
    clock = BudgetClock(100, 20.0, time)
    clock.start()
    time.now += 4
    clock.pause()
    time.now += 1000
    assert clock.elapsed() == 4
    clock.resume()
    time.now += 1
    clock.resume()  # twice is once
    time.now += 1
    assert clock.elapsed() == 6


def test_nothing_counts_before_the_start(time):
    clock = BudgetClock(100, 20.0, time)
    time.now += 50
    assert clock.elapsed() == 0
    assert clock.share(0) == 0


def test_a_resumed_run_has_used_what_it_had_used(time):
    clock = BudgetClock(100, 20.0, time)
    clock.start(used=15.0)
    time.now += 1
    assert clock.elapsed() == 16
    assert clock.share(0) == 0.8


@pytest.mark.parametrize(
    ("elapsed", "step", "over"),
    [
        (0.0, 0, False),
        (19.4, 20, False),
        (19.6, 20, True),
        (20.0, 20, True),
        (10.0, 1, False),
        (14.0, 1, True),
    ],
)
def test_a_step_that_fits_less_than_half_does_not_begin(time, elapsed, step, over):
    clock = BudgetClock(100, 20.0, time)
    clock.start()
    time.now += elapsed
    assert clock.over(step) is over


def test_the_budget_is_met_within_half_a_step(time):
    clock = BudgetClock(10_000, 7.0, time)
    clock.start()
    step = 0
    while not clock.over(step):
        time.now += 0.3
        step += 1
    assert abs(clock.elapsed() - 7.0) <= 0.15 + 1e-9
