"""Tests and intervals against textbook values, scipy, and what they do over many repetitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from agent.report.statistics import (
    MOST_EXACT,
    NO_ERROR,
    Error,
    bootstrap,
    compare,
    holm,
    permutation_p,
    pooled_deviation,
    power,
    smallest_p,
    student_interval,
    studies_for_power,
    studies_needed,
    welch_interval,
    welch_p,
)


def test_permutation_p_is_scipys() -> None:
    random = np.random.default_rng(0)
    for first, second in [(3, 3), (4, 6), (5, 2), (6, 6)]:
        a, b = random.normal(size=first), random.normal(0.8, size=second)
        theirs = stats.permutation_test(
            (a, b), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf, alternative="two-sided"
        )
        assert permutation_p(a, b) == pytest.approx(theirs.pvalue)


def test_large_groups_are_sampled_and_agree_with_the_t_test() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=30), random.normal(0.5, size=30)
    assert math.comb(60, 30) > MOST_EXACT
    assert permutation_p(a, b) == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.02)
    assert permutation_p(a, a + 100) == pytest.approx(2 / 10_000)


def test_smallest_p_is_reached_by_groups_apart() -> None:
    for size, expected in [(3, 0.1), (4, 1 / 35), (5, 1 / 126)]:
        assert smallest_p(size, size) == pytest.approx(expected)
        assert permutation_p(range(size), range(100, 100 + size)) == pytest.approx(expected)
    assert [studies_needed(0.05, count) for count in (1, 2, 3, 6)] == [4, 5, 5, 5]
    assert smallest_p(0, 5) == 1


def test_ties_and_single_values() -> None:
    assert permutation_p([1.0, 1.0], [1.0, 1.0]) == 1
    assert math.isnan(permutation_p([], [1.0]))
    assert compare([2.0], [1.0, 3.0]).p == 1
    # sums that differ in the last digit only are the same
    assert permutation_p([0.1, 0.2, 0.3], [0.3, 0.1, 0.2]) == 1


def test_welch_is_scipys() -> None:
    random = np.random.default_rng(2)
    for first, second in [(3, 3), (4, 9)]:
        a, b = random.normal(size=first), random.normal(1, 3, size=second)
        assert welch_p(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert welch_p([1.0, 1.0], [1.0, 1.0]) == 1
    assert welch_p([1.0, 1.0], [2.0, 2.0]) == 0


def test_holm_by_hand() -> None:
    # sorted .01 * 4, .02 * 3, .03 * 2 (not below the one before), .04 * 1 (likewise)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("size", "least"), [(3, 0.90), (5, 0.94), (10, 0.92)])
def test_bootstrap_intervals_cover_what_they_say(size: int, least: float) -> None:
    random, inside = np.random.default_rng(size), 0
    for _ in range(400):
        a, b = random.normal(2.0, size=size), random.normal(size=size)
        low, high = bootstrap(a, b, draws=600) or (9.0, 9.0)
        inside += low <= 2.0 <= high
    assert least < inside / 400 < 0.995


def test_bootstrap_of_too_few() -> None:
    assert bootstrap([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert bootstrap([1.0, 2.0, 3.0], [1.0, 2.0]) is None


@pytest.mark.parametrize("spreads", [(1.0, 1.0), (0.0, 1.0), (0.2, 1.0)])
def test_no_difference_is_seldom_seen(spreads: tuple[float, float]) -> None:
    """Also where one searcher does not vary at all: there the permutation test alone errs in 1 of 8."""
    random = np.random.default_rng(3)
    found = [compare(random.normal(0, spreads[0], 4), random.normal(0, spreads[1], 4)) for _ in range(1_500)]
    assert np.mean([test.p <= 0.05 for test in found]) < 0.062
    if spreads[0] == 0:
        assert np.mean([test.permutation <= 0.05 for test in found]) > 0.1


def test_power_is_the_t_tests_about() -> None:
    # two groups of 8, one deviation apart: power .46 for the t-test (any table)
    assert power(1.0, 1.0, 8, 0.05, simulations=2_000) == pytest.approx(0.46, abs=0.05)
    assert power(1.0, 1.0, 3, 0.05) == 0
    # 17 a group for 80 % at d = 1
    assert studies_for_power(1.0, 1.0, 0.05) == pytest.approx(17, abs=2)
    assert studies_for_power(0.01, 1.0, 0.05) is None
    assert studies_for_power(5.0, 0.0, 0.05) == 4


def test_pooled_deviation() -> None:
    assert pooled_deviation([[1.0, 3.0], [10.0, 14.0], [5.0]]) == pytest.approx(math.sqrt((2 + 8) / 2))
    assert pooled_deviation([[1.0], [2.0]]) is None


def test_students_and_welchs_intervals_are_scipys() -> None:
    a, b = [1.0, 2.0, 4.0], [2.0, 3.0, 3.5, 7.0]
    theirs = stats.ttest_1samp(a, 0.0).confidence_interval()
    assert student_interval(a) == pytest.approx((theirs.low, theirs.high))
    assert student_interval([1.0]) is None
    pair = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert welch_interval(a, b, (NO_ERROR, NO_ERROR)) == pytest.approx((pair.low, pair.high))


def test_a_floor_stands_for_what_groups_share() -> None:
    """Five copies of one value, known from four seeds each, are one measurement."""
    floor = Error(0.04, 3)
    once = stats.t.sf(0.5 / math.sqrt(0.08), 6) * 2
    assert welch_p([1.0] * 5, [1.5] * 5, (floor, floor)) == pytest.approx(once)
    assert welch_p([1.0] * 5, [1.5] * 5) == 0.0
    # a group that varies by itself is not made surer
    own = welch_p([1.0, 2.0, 3.0], [2.0, 3.0, 4.5])
    assert welch_p([1.0, 2.0, 3.0], [2.0, 3.0, 4.5], (Error(1e-9, 9), NO_ERROR)) == own
