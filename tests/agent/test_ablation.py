"""Toy recipes taken apart: what each change is worth, what cannot be left out alone, a smaller recipe as a branch."""

from __future__ import annotations

import math

import pytest

from agent.ablation import Ablation, Effect, effect_of, keep_rates
from agent.git import Git
from agent.ledger import Ledger
from agent.records import Measurement, Outcome, Proposal, Trial, Verdict
from agent.removal import Unremovable, changes_of, merged, removed
from agent.report import load
from agent.report.attribution import attribution
from agent.retraining import RetrainingError, Stopped
from tests.agent.campaign import ledger_of, toy_room
from tests.agent.study import toy_loop

SEEDS = [100, 101, 102]
PROPOSALS = [
    {"overrides": {"optimizer.lr": 0.02}, "category": "optimizer", "phase": "tune"},
    {"overrides": {"optimizer.lr": 0.1}, "category": "optimizer", "phase": "tune"},
    # next to nothing, but better on the search's seed
    {"overrides": {"optimizer.decay": 0.00101, "optimizer.steps": 60}, "category": "optimizer"},
    {
        "edits": [{"path": "src/toy/model.py", "old": "0.1 * random", "new": "0.0 * random"}],
        "category": "model",
    },
    {"overrides": {"optimizer.lr": "high"}, "category": "optimizer"},
]


def events(ledger, name):
    return [event for event in ledger.events() if event["event"] == name]


@pytest.fixture(scope="module")
def taken_apart(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("ablation"), []
    with toy_loop(folder, PROPOSALS, name="s", folds=(0,)) as loop:
        loop.run()
    ledger = ledger_of(folder, "s")
    effects = Ablation(toy_room(folder), [ledger], SEEDS, say=said.append).run()["s"]
    return folder, ledger, effects, said


def test_the_recipe_under_test_is_what_the_comments_say(taken_apart):
    assert [trial.number for trial in taken_apart[1].lineage()] == [0, 1, 2, 3, 4]


def test_each_change_has_an_effect_with_an_interval(taken_apart):
    _, ledger, effects, _ = taken_apart
    assert [(effect.change, effect.trial) for effect in effects] == [
        ("optimizer.lr", 2), ("optimizer.decay, optimizer.steps", 3), ("src/toy/model.py (trial 4)", 4),
    ]  # fmt: skip
    for effect, event in zip(effects, events(ledger, "ablated"), strict=True):
        assert effect.low < effect.mean < effect.high
        assert (event["effect"], event["of"], event["change"]) == (effect.mean, effect.trial, effect.change)
        assert event["trial"] == 4
        assert {item["seed"] for item in event["measurements"]} == set(SEEDS)
        assert event["charges"]["runs"] == len(SEEDS)


def test_leaving_out_the_learning_rate_means_the_one_before(taken_apart):
    folder, ledger, _, _ = taken_apart
    steps = ledger.lineage()
    bench = toy_room(folder).of(ledger)
    [change] = [
        c for c in changes_of(steps, "trial", bench.task) if str(c) == "optimizer.lr" and c.trial == 2
    ]
    assert removed([change], bench, steps).overrides["optimizer.lr"] == 0.02
    [whole] = [c for c in changes_of(steps, "key", bench.task) if str(c) == "optimizer.lr"]
    assert "optimizer.lr" not in removed([whole], bench, steps).overrides


def test_a_superseded_change_is_said_to_be_one(taken_apart):
    _, ledger, _, said = taken_apart
    [event] = events(ledger, "not_ablated")
    assert (event["of"], event["change"]) == (1, "optimizer.lr")
    assert "later trials changed optimizer.lr again" in event["reason"]
    assert any("cannot be left out alone" in line for line in said)


def test_the_effect_is_the_paired_difference_on_the_tasks_scale(taken_apart):
    _, ledger, effects, _ = taken_apart
    without = {item["seed"]: item["score"] for item in events(ledger, "ablated")[0]["measurements"]}
    confirmations = [e for e in events(ledger, "confirmed") if e["trial"] == 4]
    full = {item["seed"]: item["score"] for e in confirmations for item in e["measurements"]}
    expected = sum(math.log(without[seed]) - math.log(full[seed]) for seed in SEEDS) / len(SEEDS)
    assert effects[0].mean == pytest.approx(expected)


def test_the_report_sees_the_same_effects(taken_apart):
    folder, _, effects, _ = taken_apart
    campaign = load(Ledger.open(f"sqlite:///{folder}/ledger.db"), ["s"])
    seen = {worth.change: worth.effect for worth in attribution(campaign, campaign.studies[0])}
    assert seen == pytest.approx({effect.change: effect.mean for effect in effects})


def test_a_known_interval(taken_apart):
    """Differences of 1, 2, 3 in log: mean 2, half-width t(.975, 2) / sqrt 3 = 2.4841."""
    bench = toy_room(taken_apart[0]).of(taken_apart[1])
    full = {(seed, 0): Measurement(seed, 0, 1.0) for seed in (1, 2, 3)}
    effect = effect_of("x", 1, full, [Measurement(seed, 0, math.exp(seed)) for seed in (1, 2, 3)], bench)
    assert (effect.mean, effect.low, effect.high) == pytest.approx((2.0, 2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert not effect.needed
    assert Effect("x", 1, 2.0, 0.1, 3.9, 3).needed


def test_nothing_is_measured_twice(taken_apart):
    folder, ledger, effects, _ = taken_apart
    before = len(ledger.events())
    again = Ablation(toy_room(folder), [ledger], SEEDS, say=str).run()["s"]
    assert again == effects
    assert len(ledger.events()) == before


def test_a_smaller_recipe_is_offered_as_a_branch(taken_apart):
    folder, ledger, effects, _ = taken_apart
    [event] = events(ledger, "minimal")
    assert event["low"] <= 0
    worth = {effect.change: effect for effect in effects}
    assert event["without"]
    assert not any(worth[change].needed for change in event["without"])
    git = Git(folder / "repository" / ".git")
    assert git("rev-parse", "lab/s-minimal") == event["commit"]
    assert git("rev-parse", "lab/s-minimal^") == git("rev-parse", "lab/s")
    recipe = git("show", "lab/s-minimal:configs/recipe/lab.yaml")
    assert "lr: 0.1" in recipe
    assert "steps" not in recipe
    assert "without  optimizer.decay, optimizer.steps" in git("log", "-1", "--format=%B", "lab/s-minimal")


def test_changes_that_hurt_only_together_are_not_left_out_together(taken_apart):
    """Alone, none of the three is shown to help; without all of them the recipe is far worse."""
    _, ledger, effects, said = taken_apart
    assert sum(not effect.needed for effect in effects) > len(events(ledger, "minimal")[0]["without"])
    assert any("+ " in line and line.endswith("helps") for line in said)


def test_the_users_checkout_is_untouched(taken_apart):
    root = taken_apart[0] / "repository"
    git = Git(root / ".git", root, root / ".git")
    assert git("status", "--porcelain") == ""
    assert git("symbolic-ref", "HEAD") == "refs/heads/main"
    # the ended study has given its branch back
    assert len(git("worktree", "list").splitlines()) == 1
    assert git("log", "--format=%s", "main") == "The toy"


def test_stopped_it_goes_on_where_it_was(tmp_path):
    with toy_loop(tmp_path, PROPOSALS[:1], name="s", folds=(0,)) as loop:
        loop.run()
    ledger, stopped = ledger_of(tmp_path, "s"), toy_room(tmp_path)

    def stop_at_the_end_of_confirming(text):
        if "6/6" in text or "4/4" in text:
            stopped.stop.set()

    with pytest.raises(Stopped):
        Ablation(stopped, [ledger], SEEDS[:2], say=stop_at_the_end_of_confirming).run()
    Ablation(toy_room(tmp_path), [ledger], SEEDS[:2], say=str).run()
    assert len(events(ledger, "ablating")) == 2
    assert len(events(ledger, "confirmed")) == 4


def test_edits_are_taken_back_from_under_later_ones():
    base, with_both = b"a\nb\nc\nd\ne\n", b"A\nb\nc\nd\nE\n"
    assert merged(with_both, b"A\nb\nc\nd\ne\n", base, "conflict") == b"a\nb\nc\nd\nE\n"
    with pytest.raises(Unremovable, match="conflict"):
        merged(b"A2\nb\nc\nd\ne\n", b"A\nb\nc\nd\ne\n", base, "conflict")


def test_a_change_that_later_edits_build_on_cannot_be_left_out(tmp_path):
    edits = [("0.1 * random", "0.05 * random"), ("0.05 * random", "0.0 * random")]
    proposals = [{"edits": [{"path": "src/toy/model.py", "old": a, "new": b}]} for a, b in edits]
    with toy_loop(tmp_path, proposals, name="s", folds=(0,)) as loop:
        loop.run()
    ledger = ledger_of(tmp_path, "s")
    bench, steps = toy_room(tmp_path).of(ledger), ledger.lineage()
    assert len(steps) == 3
    first, second = changes_of(steps, "trial", bench.task)
    with pytest.raises(Unremovable, match="later trials edited the same lines as 1"):
        removed([first], bench, steps)
    assert b"0.05 * random" in removed([second], bench, steps).files["src/toy/model.py"]
    assert b"0.1 * random" in removed([first, second], bench, steps).files["src/toy/model.py"]


def test_keep_rates():
    def trial(number, decision, status="completed", route="queue", **proposal):
        return Trial(
            number, Proposal(route=route, **proposal), outcome=Outcome(status), verdict=Verdict(decision)
        )

    trials = [
        trial(0, "reference", route="reference"),
        trial(1, "kept", category="loss", phase="bold"),
        trial(2, "reverted", category="loss", phase="tune"),
        trial(3, "reverted", "crashed", category="model", phase="tune"),
        trial(4, "reverted", "interrupted", category="model"),
        trial(5, "kept"),
    ]
    assert keep_rates(trials, "category") == {"loss": (1, 2), "model": (0, 1), "none": (1, 1)}
    assert keep_rates(trials, "phase") == {"bold": (1, 1), "tune": (0, 2), "none": (1, 1)}


def test_settings_that_make_no_ablation(taken_apart):
    folder, ledger, _, _ = taken_apart
    with pytest.raises(RetrainingError, match="by=file: expected trial or key"):
        Ablation(toy_room(folder), [ledger], SEEDS, by="file").run()
    with pytest.raises(RetrainingError, match="needs two or more"):
        Ablation(toy_room(folder), [ledger], [100]).run()


def test_a_recipe_that_fails_on_fresh_seeds_ends_no_other_studys_ablation(tmp_path):
    """Of one score there is no interval; the studies after it are taken apart all the same."""
    once = "np.random.default_rng(seed if seed < 101 else 'none')"
    lucky = {
        "overrides": {"optimizer.lr": 0.11},
        "edits": [{"path": "src/toy/model.py", "old": "np.random.default_rng(seed)", "new": once}],
    }
    for name, proposal in (("lucky", lucky), ("good", {"overrides": {"optimizer.lr": 0.1}})):
        with toy_loop(tmp_path, [proposal], name=name, folds=(0,)) as loop:
            loop.run()
    ledgers, said = [ledger_of(tmp_path, name) for name in ("lucky", "good")], []
    found = Ablation(toy_room(tmp_path), ledgers, [100, 101, 102], minimal=False, say=said.append).run()
    assert found["lucky"] == []
    assert "lucky: its recipe gave a score on 1 of 3 seeds: left out" in said
    assert [effect.change for effect in found["good"]] == ["optimizer.lr"]
