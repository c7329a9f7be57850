"""What every searcher must do: a factory enters, the searcher passes or a test says what it broke.

Use: `class TestTpe(SearcherContract): make = staticmethod(lambda space, seed: tpe(space=space, seed=seed))`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from agent.codec import from_json, to_json
from agent.distributions import contains
from agent.records import Charges, Outcome, Proposal, Status, Trial, Value, Verdict, current_recipe
from agent.searchers.base import Searcher

FAILED: tuple[Status, ...] = (
    "interrupted",
    "duplicate",
    "diverged",
    "crashed",
    "out_of_memory",
    "timeout",
    "rejected",
)


@dataclass(frozen=True)
class When:
    """A knob matters while `key` has `value`."""

    key: str
    value: Value


@dataclass(frozen=True)
class Knobs:
    """A space as the lab's own: distributions, conditions and the reference's values by key."""

    distributions: dict[str, BaseDistribution]
    defaults: dict[str, Value]
    conditions: dict[str, When] = field(default_factory=dict)


def mixed_space() -> Knobs:
    """Every kind of knob: log, linear, stepped, integer, categorical of three types, conditional."""
    distributions: dict[str, BaseDistribution] = {
        "optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
        "optimizer.warmup": FloatDistribution(0.0, 0.5, step=0.05),
        "trainer.batch_size": IntDistribution(16, 256, log=True),
        "trainer.steps": IntDistribution(100, 1000, step=100),
        "model.pooling": CategoricalDistribution(("cls", "mean", "max")),
        "model.frozen": CategoricalDistribution((False, True)),
        "model.layers": CategoricalDistribution((1, 2)),
        "expert.on": CategoricalDistribution(("no", "yes")),
        "expert.weight": FloatDistribution(0.01, 1.0, log=True),
    }
    # the reference's warm-up lies between two steps of the grid, as it may
    values: tuple[Value, ...] = (1e-3, 0.12, 48, 400, "cls", False, 1, "no", 0.1)
    defaults = dict(zip(distributions, values, strict=True))
    return Knobs(distributions, defaults, {"expert.weight": When("expert.on", "yes")})


def smooth_space() -> Knobs:
    """Four numbers, for the response surface below; the reference is far from its lowest point."""
    distributions: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-5, 1e-2, log=True),
        "decay": FloatDistribution(0.0, 1.0),
        "width": IntDistribution(32, 512, log=True),
        "warmup": FloatDistribution(0.0, 0.5),
    }
    return Knobs(distributions, {"lr": 5e-5, "decay": 0.15, "width": 64, "warmup": 0.4})


def place(params: dict[str, Any]) -> np.ndarray:
    """A point of `smooth_space` in the unit cube."""
    lr, width = math.log(params["lr"] / 1e-5) / math.log(1e3), math.log(params["width"] / 32) / math.log(16)
    return np.array([lr, params["decay"], width, params["warmup"] / 0.5])


def surface(params: dict[str, Any], lowest: Sequence[float]) -> float:
    """A bowl in the unit cube: 100 at its lowest point."""
    return 100.0 + 400.0 * float(((place(params) - np.array(lowest)) ** 2).sum())


def reference(space: Knobs, score: float = 300.0) -> Trial:
    """Trial 0, from which every study begins."""
    return Trial(0, Proposal(), dict(space.defaults), Outcome("completed", score), Verdict("reference"))


def ran(history: Sequence[Trial], proposal: Proposal, space: Knobs, outcome: Outcome) -> Trial:
    """The trial that a loop makes of a proposal: complete overrides, kept if it beats the recipe."""
    recipe = current_recipe(history)
    base = recipe.overrides if recipe and proposal.base == "recipe" else space.defaults
    better = recipe and recipe.outcome and recipe.outcome.score is not None and outcome.score is not None
    kept = bool(better) and (outcome.score or 0.0) < (recipe.outcome.score or 0.0)  # type: ignore[union-attr]
    verdict = Verdict("kept" if kept else "reverted", compared_with=recipe.number if recipe else None)
    overrides = {**base, **proposal.overrides}
    return Trial(len(history), proposal, overrides, outcome, verdict, Charges(runs=1))


def scripted(number: int) -> Outcome:
    """Outcomes of every kind, the same for everyone: two of three complete."""
    if number % 3 == 2:
        return Outcome(FAILED[number // 3 % len(FAILED)], reason="scripted")
    return Outcome("completed", 300.0 - 10.0 * math.sin(1.7 * number) - number)


def study(searcher: Searcher, space: Knobs, count: int, begun: Sequence[Trial] = ()) -> list[Trial]:
    """`count` trials after the reference, or after those begun, with scripted outcomes."""
    history = list(begun) or [reference(space)]
    while len(history) <= count:
        proposal = searcher.ask(history)
        assert proposal is not None, f"nothing more to propose after {len(history)} trials"
        trial = ran(history, proposal, space, scripted(len(history)))
        history.append(trial)
        searcher.tell(trial)
    return history


class SearcherContract:
    """Subclass with `make(space, seed)`; `trials` is how long its studies are, `chance` if seeds matter."""

    make: ClassVar[Callable[[Knobs, int], Searcher]]
    trials: ClassVar[int] = 24
    chance: ClassVar[bool] = True
    most_seconds: ClassVar[float] = 1.0

    @pytest.fixture(scope="class")
    def space(self) -> Knobs:
        return mixed_space()

    @pytest.fixture(scope="class")
    def history(self, space: Knobs) -> list[Trial]:
        return study(type(self).make(space, 7), space, self.trials)

    def test_has_a_name_and_signs_its_proposals(self, space: Knobs, history: list[Trial]) -> None:
        name = type(self).make(space, 7).name
        assert {trial.proposal.searcher for trial in history[1:]} == {name}
        assert all(trial.proposal.route for trial in history[1:])

    def test_same_seed_same_proposals(self, space: Knobs, history: list[Trial]) -> None:
        again = study(type(self).make(space, 7), space, self.trials)
        assert [t.proposal for t in again] == [t.proposal for t in history]

    def test_another_seed_other_proposals(self, space: Knobs, history: list[Trial]) -> None:
        other = study(type(self).make(space, 8), space, 3)
        same = [t.proposal for t in other[1:]] == [t.proposal for t in history[1:4]]
        assert same is not self.chance

    def test_no_two_draws_are_alike(self, history: list[Trial]) -> None:
        drawn = [json.dumps(to_json(t.proposal.overrides), sort_keys=True) for t in history[1:]]
        assert len(set(drawn)) == len(drawn) or not self.chance

    def test_a_resumed_study_goes_on_as_if_never_interrupted(
        self, space: Knobs, history: list[Trial]
    ) -> None:
        """Killed after any trial: a new searcher, and a history that has been through JSON."""
        for killed_after in range(1, len(history)):
            begun = [from_json(Trial, json.loads(json.dumps(to_json(t)))) for t in history[:killed_after]]
            proposal = type(self).make(space, 7).ask(begun)
            assert proposal == history[killed_after].proposal, (
                f"differs when resumed after {killed_after} trials"
            )

    def test_asking_twice_changes_nothing(self, space: Knobs, history: list[Trial]) -> None:
        searcher = type(self).make(space, 7)
        assert searcher.ask(history[:6]) == searcher.ask(history[:6])

    def test_asked_for_several_it_gives_as_many_that_differ(self, space: Knobs, history: list[Trial]) -> None:
        """Those proposed before are trials that still run: none comes twice, and a resumed study agrees."""
        found = type(self).make(space, 7).ask_many(history[:6], 4)
        assert len(found) == 4
        assert found[0] == type(self).make(space, 7).ask(history[:6])
        drawn = [json.dumps(to_json([p.overrides, p.params]), sort_keys=True) for p in found]
        assert len(set(drawn)) == 4 or not self.chance
        assert type(self).make(space, 7).ask_many(history[:6], 4) == found

    @pytest.mark.parametrize("lost", [0, 1, 2])
    def test_what_ran_beside_an_interrupted_one_is_not_asked_for_again(
        self, space: Knobs, history: list[Trial], lost: int
    ) -> None:
        """Of trials side by side one is interrupted, which the history then lacks; the others end."""
        searcher = type(self).make(space, 7)
        together = searcher.ask_many(history[:6], 4)
        known = list(history[:6])
        for place, proposal in enumerate(together):
            if place != lost:
                trial = ran(known, proposal, space, Outcome("completed", 400.0 + place))
                known.append(replace(trial, number=6 + place))
        again = searcher.ask(known)
        assert again is not None
        ended = [p.overrides for place, p in enumerate(together) if place != lost]
        assert again.overrides not in ended
        # who learns may know better by now
        assert again.overrides == together[lost].overrides or searcher.name not in (
            "random",
            "queue",
            "playbook",
        )

    def test_proposes_only_what_is_in_the_space(self, space: Knobs, history: list[Trial]) -> None:
        for trial in history[1:]:
            assert trial.proposal.overrides or trial.proposal.edits
            for key, value in trial.proposal.overrides.items():
                assert key in space.distributions
                assert contains(space.distributions[key], value), f"{key}={value!r}"
                assert type(value) is type(space.defaults[key]), f"{key}={value!r}"

    def test_inactive_knobs_are_not_proposed(self, space: Knobs, history: list[Trial]) -> None:
        for trial in history[1:]:
            on = trial.overrides["expert.on"] == "yes"
            assert on or "expert.weight" not in trial.proposal.overrides

    def test_goes_on_after_nothing_but_failures(self, space: Knobs) -> None:
        """One of each kind; it stays itself, and no failure stands in for the next proposal."""
        searcher = type(self).make(space, 3)
        history = [reference(space)]
        for status in FAILED:
            proposal = searcher.ask(history)
            assert proposal is not None
            assert proposal.searcher == searcher.name
            history.append(ran(history, proposal, space, Outcome(status, reason="it failed")))
            searcher.tell(history[-1])

    def test_goes_on_after_other_peoples_trials(self, space: Knobs, history: list[Trial]) -> None:
        """In a hybrid: edits, values outside the space, invalid proposals, a trial that still runs."""
        others = [
            Proposal({"optimizer.lr": 0.5}, route="llm"),
            Proposal({"optimizer.lr": 2e-4}, route="llm"),
            Proposal({"trainer.accelerator": "cpu"}, route="llm"),
            Proposal(invalid="no JSON", route="llm"),
        ]
        mixed = list(history[:4])
        for proposal in others:
            mixed.append(ran(mixed, proposal, space, Outcome("completed", 250.0 + len(mixed))))
        mixed.append(replace(ran(mixed, others[1], space, Outcome("crashed")), outcome=None, verdict=None))
        proposal = type(self).make(space, 7).ask(mixed)
        assert proposal is not None
        assert all(contains(space.distributions[k], v) for k, v in proposal.overrides.items())

    def test_asks_fast(self, space: Knobs) -> None:
        """At 200 trials; the first to be fast enough of three, because other work may share the machine."""
        searcher = type(self).make(space, 7)
        random = np.random.default_rng(0)
        history = [reference(space)]
        for number in range(1, 201):
            overrides: dict[str, Value] = {
                **space.defaults,
                "optimizer.lr": float(10 ** random.uniform(-5, -2)),
            }
            proposal = Proposal(overrides, base="reference", params=overrides)
            outcome = (
                Outcome("crashed") if number % 5 == 0 else Outcome("completed", random.uniform(100, 300))
            )
            history.append(Trial(number, proposal, overrides, outcome, Verdict("reverted")))
        assert any(_seconds(lambda: searcher.ask(history)) < self.most_seconds for _ in range(3))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
