"""What somebody types for a budget or a seed: refused before a ledger knows the study, which keeps it."""

from __future__ import annotations

import pytest

from agent.asked import AskedError, budget_of, seeds_of
from agent.records import Budget

GOOD = {
    "trials": 3,
    "seconds": 2,
    "study_seconds": None,
    "usd": None,
    "wall_factor": 1.5,
    "setup_seconds": 60,
}


def test_a_good_budget_is_what_was_asked_for() -> None:
    assert budget_of(GOOD) == Budget(3, 2, None, None, 1.5, 60)
    assert budget_of({"trials": 1, "seconds": 0.5}) == Budget(1, 0.5)
    assert budget_of(GOOD | {"usd": 0.25, "study_seconds": 10, "setup_seconds": 0}).usd == 0.25


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trials", 0, "a whole number of at least 1"),
        ("trials", 2.5, "a whole number of at least 1"),
        ("trials", "banana", "a whole number of at least 1"),
        ("trials", None, "a whole number of at least 1"),
        ("trials", True, "a whole number of at least 1"),
        ("seconds", 0, "a number above 0"),
        ("seconds", float("nan"), "a number above 0"),
        ("seconds", float("inf"), "a number above 0"),
        ("usd", 0, "a number above 0, or null"),
        ("study_seconds", -1, "a number above 0, or null"),
        ("wall_factor", 0.9, "a number of at least 1"),
        ("setup_seconds", -1, "a number of at least 0"),
    ],
)
def test_what_no_study_can_be_begun_with(key: str, value: object, expected: str) -> None:
    with pytest.raises(AskedError) as refused:
        budget_of(GOOD | {key: value})
    assert str(refused.value) == f"budget.{key}={value}: expected {expected}"


def test_a_key_that_no_budget_has() -> None:
    with pytest.raises(AskedError, match=r"budget\.hours: unknown key; there are trials, seconds"):
        budget_of(GOOD | {"hours": 2})


def test_seeds() -> None:
    assert seeds_of(4, [0, 1]) == (4, (0, 1))
    for seed in ("x", None, True, 1.0):
        with pytest.raises(AskedError, match=f"seed={seed}: expected a whole number"):
            seeds_of(seed, [0])
    for seeds in ([], 3, [0, 0], [0, "a"], None):
        with pytest.raises(
            AskedError, match=r"training_seeds=.*: expected a list of different whole numbers"
        ):
            seeds_of(0, seeds)
