"""Centaur: CMA-ES and an LLM share one search, by a fixed pattern, with one state that no kill can lose."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cmaes import CMA

from agent.codec import from_json, to_json
from agent.records import Outcome, Proposal, Trial
from agent.searchers.base import derive_seed
from agent.searchers.centaur import Centaur, best_and_latest, centaur, llm_turn
from agent.searchers.evolution import Cube
from tests.agent.researcher.messages_server import KEY, MessagesServer, Play, call, says, text
from tests.agent.researcher.study import ROOT, SPACE, Clock, ToyDesk, llm, proposes

POPULATION = 5


def searcher(desk: ToyDesk, server: MessagesServer, seed: int = 3, share: float = 0.3) -> Centaur:
    clock = Clock()
    return centaur(
        space=SPACE,
        seed=seed,
        desk=desk,
        program=str(ROOT / "agent/program.md"),
        llm=llm(server),
        llm_share=share,
        population=POPULATION,
        environment={"ANTHROPIC_API_KEY": KEY},
        clock=clock,
        sleep=clock.sleep,
    )


def point(**changes: Any) -> Play:
    given = proposes(overrides=changes or {"model.logit_scale.max": 100.0})
    return says(call("propose_trial", {key: value for key, value in given.items() if key != "edits"}))


def run(desk: ToyDesk, server: MessagesServer, count: int, **options: Any) -> list[Trial]:
    """`count` trials, each by a new searcher object, as if the process had been killed before every one."""
    for _ in range(count):
        proposal = searcher(desk, server, **options).ask(desk.history())
        assert proposal is not None
        # what the ledger keeps is all that is left
        desk.run(from_json(Proposal, to_json(proposal)))
    return desk.trials[1:]


@pytest.mark.parametrize(
    ("share", "window", "turns"), [("0.3", 10, 3), ("0.5", 2, 1), ("0.25", 8, 2), ("0.1", 10, 1)]
)
def test_any_window_holds_exactly_its_share(share: str, window: int, turns: int) -> None:
    pattern = [llm_turn(number, Fraction(share)) for number in range(1000)]
    for start in range(1000 - window):
        assert sum(pattern[start : start + window]) == turns


def test_a_share_of_none_or_all_is_none_or_all() -> None:
    assert not any(llm_turn(number, Fraction(0)) for number in range(100))
    assert all(llm_turn(number, Fraction(1)) for number in range(100))
    with pytest.raises(ValueError, match=r"searcher\.llm_share=1\.5"):
        centaur(space=SPACE, seed=0, desk=None, program="", llm={}, llm_share=1.5)  # type: ignore[arg-type]


def test_who_proposed_is_on_record_and_the_llm_is_called_on_its_turns_only(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer([point(**{"model.logit_scale.max": 90.0 + n}) for n in range(3)]) as server:
        trials = run(desk, server, 10)
    assert [trial.proposal.route for trial in trials].count("llm") == 3
    assert [n for n, trial in enumerate(trials) if trial.proposal.route == "llm"] == [3, 6, 9]
    assert {trial.proposal.searcher for trial in trials} == {"centaur"}
    assert {trial.proposal.base for trial in trials} == {"reference"}
    assert len(server.requests) == 3
    assert server.problems == []


def test_killed_before_every_trial_it_proposes_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    plays = [point(**{"model.logit_scale.max": 90.0 + n}) for n in range(6)]
    broken, whole = ToyDesk(tmp_path / "a"), ToyDesk(tmp_path / "b")
    with MessagesServer(plays) as server:
        trials = run(broken, server, 20)
    with MessagesServer(plays) as server:
        one = searcher(whole, server)
        for _ in range(20):
            proposal = one.ask(whole.history())
            assert proposal is not None
            one.tell(whole.run(proposal))
    assert [t.proposal for t in trials] == [t.proposal for t in whole.trials[1:]]
    own = [str(sorted(t.proposal.params.items(), key=str)) for t in trials if t.proposal.route == "cmaes"]
    assert len(set(own)) == len(own)  # reseeded: no draw is made twice


def by_hand(desk: ToyDesk, seed: int, failures_at: float) -> CMA:
    """The strategy's state, told independently: each whole generation of points with their scores."""
    cube = Cube(SPACE.distributions)
    evolution = CMA(
        mean=cube.coordinates(SPACE.defaults),
        sigma=0.2,
        bounds=np.array([[0.0, 1.0]] * cube.dimension),
        n_max_resampling=10 * cube.dimension,
        population_size=POPULATION,
        seed=derive_seed(seed, 0),
    )
    told = []
    for trial in desk.trials[1:]:
        if not trial.proposal.params or trial.outcome is None:
            continue
        latent = trial.proposal.params.get("@latent")
        place = np.array(latent) if latent is not None else cube.coordinates(trial.proposal.params)
        told.append((place, failures_at if trial.outcome.score is None else trial.outcome.score))
    for start in range(0, len(told) - POPULATION + 1, POPULATION):
        evolution.tell(told[start : start + POPULATION])
    return evolution


def test_the_llms_points_move_the_strategy_as_its_own_do(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer([point(**{"model.logit_scale.max": 150.0 + n}) for n in range(6)]) as server:
        run(desk, server, 20)
        state = searcher(desk, server).evolution.replay(desk.history())
    independent = by_hand(desk, 3, failures_at=np.inf)
    assert state.generation == independent.generation == 4
    np.testing.assert_allclose(state.mean, independent.mean)
    # the LLM's points are far better than any draw: the mean has gone their way
    cube = Cube(SPACE.distributions)
    coordinate = list(cube.distributions).index("model.logit_scale.max")
    place = int(np.cumsum([0, *cube.widths])[coordinate])
    assert state.mean[place] > cube.coordinates(SPACE.defaults)[place] + 0.1


def test_failures_rank_last_and_no_number_stands_for_them(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer([point(**{"model.logit_scale.max": 150.0 + n}) for n in range(3)]) as server:
        run(desk, server, 10)
        for number, status in ((2, "crashed"), (4, "out_of_memory"), (7, "diverged")):
            failed = Outcome(status)  # type: ignore[arg-type]
            desk.trials[number] = replace(desk.trials[number], outcome=failed)
        state = searcher(desk, server).evolution.replay(desk.history())
    for stand_in in (1e3, 1e9):
        np.testing.assert_allclose(state.mean, by_hand(desk, 3, stand_in).mean)
    assert not np.allclose(state.mean, by_hand(desk, 3, 0.0).mean)


def test_a_round_without_a_valid_proposal_is_rejected_and_nobody_steps_in(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    refusals = [says(text("no")), point(**{"data.root": "/"}), point(**{"optimizer.lr": 5.0})]
    with MessagesServer(refusals) as server:
        trials = run(desk, server, 5)
        state = searcher(desk, server).evolution.replay(desk.history())
    assert trials[3].proposal.route == "llm"
    assert trials[3].proposal.invalid.startswith("try 1: ")
    assert trials[3].outcome is not None
    assert trials[3].outcome.status == "rejected"
    # four points so far: the fifth of the generation is still to come
    assert state.generation == 0


def test_the_llm_sees_the_state_and_what_it_leaves_out_is_the_strategys(tmp_path: Path) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer([point(**{"loss.name": "siglip"})]) as server:
        run(desk, server, 3)
        one = searcher(desk, server)
        own = one.evolution.ask(desk.history())
        proposal = one.ask(desk.history())
    assert proposal is not None
    shown = "\n".join(block["text"] for block in server.requests[0]["messages"][0]["content"])
    for part in (
        "generation 0 of 5 points each, step size 0.2",
        "correlations of at least",
        "loss.name=siglip: ",
    ):
        assert part in shown
    assert re.search(rf"optimizer\.lr: 0\.000\d+, {own.params['optimizer.lr']!r}\b", shown)
    assert proposal.params["loss.name"] == "siglip"
    assert proposal.params["optimizer.lr"] == own.params["optimizer.lr"]
    # smoothing matters with the other loss only
    assert "loss.label_smoothing" in proposal.params
    assert "loss.label_smoothing" not in proposal.overrides


def test_the_best_and_the_latest_trials_are_shown() -> None:
    scores = [50.0, 9.0, 7.0, 60.0, 8.0, 6.0, 5.0, *[40.0 + n for n in range(14)]]
    history = [Trial(n, Proposal(), {}, Outcome("completed", score)) for n, score in enumerate(scores)]
    numbers = [trial.number for trial in best_and_latest(history, "minimize")]
    assert numbers == [1, 2, 4, 5, 6, *range(11, 21)]
    assert 3 in [trial.number for trial in best_and_latest(history, "maximize")]
