"""The searchers: the shared contract, what samplers learn, the playbook's walk, the queue's lines."""

from __future__ import annotations

import io
import json
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from agent.codec import to_json
from agent.records import Edit, Outcome, Proposal, Trial, Verdict, current_recipe
from agent.searchers import evolution, playbook, queue, samplers
from agent.searchers.base import FAILURES, Points, comparable_score, derive_seed
from tests.contract.searchers import (
    Knobs,
    SearcherContract,
    mixed_space,
    place,
    ran,
    reference,
    scripted,
    smooth_space,
    surface,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "searcher"

PLAYBOOK: dict[str, Any] = {
    "steps": [
        {"says": "higher", "set": {"optimizer.lr": {"times": 3.0}}},
        {"says": "lower", "set": {"optimizer.lr": {"times": 1 / 3}}},
        {"says": "batch", "set": {"trainer.batch_size": {"times": 4 / 3}}},
        {"says": "mean", "set": {"model.pooling": "mean"}},
        {"says": "inactive", "set": {"expert.weight": 0.5}},
        {"says": "expert", "set": {"expert.on": "yes"}},
        {"says": "weight", "set": {"expert.weight": 0.5}},
        {"says": "layers", "set": {"model.layers": 2}},
    ],
    "refine": {
        "keys": ["optimizer.lr", "trainer.batch_size", "expert.weight"],
        "factors": [2.0, 1.5, 1.2, 1.1],
    },
}


def configured(name: str, **changes: Any) -> Callable[..., Any]:
    """The factory of configs/searcher/NAME.yaml, as the lab gets it from Hydra."""
    config = OmegaConf.create(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    factory: Callable[..., Any] = instantiate(config, **changes)
    return factory


random, tpe, gp = configured("random"), configured("tpe"), configured("gp")
cmaes: Callable[..., evolution.CmaEsSearcher] = configured("cmaes")


def _queue(space: Knobs, seed: int) -> queue.QueueSearcher:
    lines = [json.dumps({"overrides": {"optimizer.lr": lr}}).encode() for lr in np.geomspace(1e-5, 1e-2, 250)]
    return queue.QueueSearcher(lambda: iter(lines), "lines")


class TestRandom(SearcherContract):
    make = staticmethod(lambda space, seed: random(space=space, seed=seed))


class TestTpe(SearcherContract):
    make = staticmethod(lambda space, seed: tpe(space=space, seed=seed))


class TestCmaEs(SearcherContract):
    make = staticmethod(lambda space, seed: cmaes(space=space, seed=seed))


class TestGp(SearcherContract):
    make = staticmethod(lambda space, seed: gp(space=space, seed=seed, startup_trials=3))
    # each ask fits two Gaussian processes: half a second, more on a busy machine
    trials: ClassVar[int] = 5
    most_seconds: ClassVar[float] = 20.0


class TestPlaybook(SearcherContract):
    make = staticmethod(lambda space, seed: playbook.playbook(space=space, seed=seed, **PLAYBOOK))
    chance: ClassVar[bool] = False
    trials: ClassVar[int] = 16


class TestQueue(SearcherContract):
    make = staticmethod(_queue)
    chance: ClassVar[bool] = False


def _lowest(seed: int) -> list[float]:
    """Where the bowl's bottom is: elsewhere for each seed, the same for every searcher."""
    return list(np.random.default_rng(seed).uniform(0.2, 0.8, 4))


def _searched(make: Callable[..., Any], seed: int, trials: int, fails: bool = False) -> list[Trial]:
    """A study on the bowl of this seed; with `fails`, learning rates right of its bottom diverge."""
    space, lowest = smooth_space(), _lowest(seed)
    searcher = make(space=space, seed=seed)
    history = [reference(space, surface(space.defaults, lowest))]
    for _ in range(trials):
        proposal = searcher.ask(history)
        broken = fails and place(proposal.params)[0] > max(lowest[0], 0.4)
        outcome = Outcome("diverged") if broken else Outcome("completed", surface(proposal.params, lowest))
        history.append(ran(history, proposal, space, outcome))
    return history


def _gap(history: list[Trial]) -> float:
    """How far the best proposal is above the bottom, on a log scale (the reference does not count)."""
    scores = [t.outcome.score for t in history[1:] if t.outcome and t.outcome.score is not None]
    return float(np.log(min(scores) - 100.0 + 0.1))


@pytest.mark.parametrize(("make", "seeds", "trials"), [(tpe, 12, 40), (cmaes, 16, 40)])
def test_learns_a_smooth_surface(make: Callable[..., Any], seeds: int, trials: int) -> None:
    """Paired over surfaces: the mean advantage is more than three standard errors from none."""
    chance = [_gap(_searched(random, seed, trials)) for seed in range(seeds)]
    learnt = [_gap(_searched(make, seed, trials)) for seed in range(seeds)]
    advantage = np.array(chance) - np.array(learnt)
    assert advantage.mean() > 3 * advantage.std(ddof=1) / np.sqrt(seeds), advantage


@pytest.mark.parametrize(("make", "seeds"), [(tpe, 6), (cmaes, 12)])
def test_learns_where_trials_fail(make: Callable[..., Any], seeds: int) -> None:
    """The best point lies at the edge of a region that fails: fewer failures than by chance."""

    def failures(make: Callable[..., Any]) -> float:
        late = [trial for seed in range(seeds) for trial in _searched(make, seed, 30, fails=True)[16:]]
        return statistics.mean(t.outcome.status == "diverged" for t in late if t.outcome)

    assert failures(make) < 0.6 * failures(random)


def test_gp_learns_a_smooth_surface() -> None:
    """Four proposals after 14 random points come nearer than 40 random ones, on each of two surfaces."""
    for seed in range(2):
        lowest, space = _lowest(seed), smooth_space()
        history, searcher = _searched(random, seed, 14), gp(space=space, seed=seed)
        for _ in range(4):
            proposal = searcher.ask(history)
            outcome = Outcome("completed", surface(proposal.params, lowest))
            history.append(ran(history, proposal, space, outcome))
        assert _gap(history) < _gap(_searched(random, seed, 40)), seed


def test_gp_learns_where_trials_fail() -> None:
    """Half of the points drawn at random fail; none of its proposals, on each of three surfaces, does."""
    for seed in range(3):
        history = _searched(random, seed, 24, fails=True)
        params = gp(space=smooth_space(), seed=seed).ask(history).params
        assert place(params)[0] <= max(_lowest(seed)[0], 0.4), seed


def test_tpe_never_reads_a_score_for_a_failure() -> None:
    class OtherPlaceholder(samplers.OptunaSearcher):
        def _frozen(self, point: Any, placeholder: float, constrained: bool) -> Any:
            return super()._frozen(point, -1e9, constrained)

    history = _searched(tpe, 0, 20, fails=True)
    assert any(t.outcome and t.outcome.status == "diverged" for t in history)
    searcher = tpe(space=smooth_space(), seed=0)
    other = OtherPlaceholder("tpe", searcher._build, searcher.space, 0, "minimize", 10)
    assert other.ask(history) == searcher.ask(history)


def test_a_failure_changes_what_is_proposed() -> None:
    """Were failures dropped, as Optuna does, the two histories would look alike to the sampler."""
    history = _searched(tpe, 0, 20, fails=True)
    failed = next(t for t in history[::-1] if t.outcome and t.outcome.status == "diverged")
    interrupted = [t if t is not failed else _with(t, Outcome("interrupted")) for t in history]
    searcher = tpe(space=smooth_space(), seed=0)
    assert searcher.ask(history) != searcher.ask(interrupted)


def _with(trial: Trial, outcome: Outcome) -> Trial:
    return Trial(trial.number, trial.proposal, trial.overrides, outcome, trial.verdict)


@pytest.mark.parametrize("make", [tpe, cmaes])
def test_maximizing_the_negative_is_minimizing(make: Callable[..., Any]) -> None:
    space = smooth_space()
    down, up = make(space=space, seed=1), make(space=space, seed=1, direction="maximize")
    history = _searched(make, 1, 25)
    mirrored = [_with(t, Outcome("completed", -(t.outcome.score or 0.0))) for t in history if t.outcome]
    assert up.ask(mirrored).overrides == down.ask(history).overrides


def test_cmaes_learns_categorical_knobs() -> None:
    """One choice of three is better; over five seeds nearly all late proposals take it, few early ones do."""
    early, late = [], []
    for seed in range(5):
        space, history = mixed_space(), [reference(mixed_space())]
        searcher = cmaes(space=space, seed=seed)
        for _ in range(72):
            proposal = searcher.ask(history)
            score = 100.0 if proposal.params["model.pooling"] == "mean" else 150.0
            history.append(ran(history, proposal, space, Outcome("completed", score)))
        chosen = [t.proposal.params["model.pooling"] == "mean" for t in history[1:]]
        early += chosen[:12]
        late += chosen[-12:]
    assert statistics.mean(late) > 0.7
    assert statistics.mean(early) < 0.5


def test_cmaes_tells_whole_generations_and_no_reference() -> None:
    space = smooth_space()
    searcher = cmaes(space=space, seed=0, population=6)
    history = _searched(lambda **options: searcher, 0, 14)
    assert searcher.replay(history[:6]).generation == 0
    assert searcher.replay(history[:7]).generation == 1
    assert searcher.replay(history).generation == 2
    pending = [*history[:6], _with(history[6], None)]  # type: ignore[arg-type]
    assert searcher.replay(pending).generation == 0


def test_cmaes_replayed_is_cmaes_that_never_stopped() -> None:
    """Against an optimizer that lives through the study: same proposals, same distribution at the end."""
    space = mixed_space()
    searcher = cmaes(space=space, seed=5)
    live, history, told = searcher.replay([]), [reference(space)], []
    for number in range(1, 31):
        live.reseed_rng(derive_seed(5, number))
        coordinates = live.ask()
        proposal = searcher.ask(history)
        assert {key: proposal.params[key] for key in space.distributions} == searcher.cube.params(coordinates)
        outcome = scripted(number) if number % 9 else Outcome("crashed")
        history.append(ran(history, proposal, space, outcome))
        if outcome.status in {*FAILURES, "completed"}:
            told.append((coordinates, math.inf if outcome.score is None else outcome.score))
        if len(told) == live.population_size:
            live.tell(told)
            told = []
    assert live.generation > 2
    assert searcher.replay(history).mean == pytest.approx(live.mean, abs=0.0)


def test_a_reference_outside_the_space_is_refused() -> None:
    space = smooth_space()
    space.defaults["lr"] = 1.0
    for make in (random, tpe, gp, cmaes):
        with pytest.raises(ValueError, match=r"reference has lr=1\.0, outside"):
            make(space=space, seed=0)


def test_a_stopped_trial_is_compared_on_its_fold() -> None:
    """Fold 0 is easier: 260 there is 20 worse than the recipe, whose mean over all folds is 300."""
    recipe = reference(smooth_space(), 300.0)
    verdict = Verdict("reverted", delta=20.0, compared_with=0)
    stopped = Trial(1, Proposal(), {}, Outcome("completed", 260.0, stopped_early=True), verdict)
    assert comparable_score(stopped, {0: recipe, 1: stopped}) == 320.0
    whole = Trial(1, Proposal(), {}, Outcome("completed", 260.0), verdict)
    assert comparable_score(whole, {0: recipe, 1: whole}) == 260.0


def test_points_are_what_the_space_can_express() -> None:
    space = smooth_space()
    first = reference(space)
    trials = [
        first,
        ran([first], Proposal({"lr": 1e-3}, route="llm"), space, Outcome("completed", 200.0)),
        ran([first], Proposal({"lr": 0.5}), space, Outcome("completed", 200.0)),
        ran([first], Proposal(edits=(Edit("a.py", "b", "c"),)), space, Outcome("completed", 200.0)),
        ran([first], Proposal({"lr": 1e-4}), space, Outcome("duplicate")),
        ran([first], Proposal({"lr": 1e-4}), space, Outcome("timeout")),
    ]
    numbered = [Trial(n, t.proposal, t.overrides, t.outcome, t.verdict) for n, t in enumerate(trials)]
    assert [(p.number, p.kind, p.score) for p in Points(space).of(numbered)] == [
        (0, "feasible", 300.0),
        (1, "feasible", 200.0),
        (5, "infeasible", None),
    ]
    assert Points(space).of(numbered)[1].params == {**space.defaults, "lr": 1e-3}


def test_seeds_differ_between_trials_and_searchers() -> None:
    seeds = {derive_seed(seed, count) for seed in range(20) for count in range(50)}
    assert len(seeds) == 1000


# ------------------------------------------------------------------ the playbook


def _published_space() -> Knobs:
    """The task's keys with the published starting point (warm-up 10 %, the clamp at 2)."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers: dict[str, tuple[float, float, float]] = {
        "optimizer.lr": (1e-5, 1e-2, 3e-4),
        "optimizer.weight_decay": (1e-6, 0.3, 1e-4),
        "optimizer.warmup": (0.0, 0.5, 0.1),
        "optimizer.cosine_floor": (0.0, 0.3, 0.0),
        "optimizer.factors.image": (0.03, 3.0, 1.0),
        "optimizer.factors.text": (0.03, 3.0, 1.0),
        "model.logit_scale.max": (1.0, 200.0, 2.0),
        "model.projection.dropout": (0.0, 0.5, 0.0),
        "loss.label_smoothing": (0.0, 0.2, 0.0),
        "expert.probability.max": (0.0, 1.0, 0.3),
        "expert.weight": (0.01, 1.0, 0.1),
        "expert.mixup_alpha": (0.05, 2.0, 0.3),
    }
    whole = {
        "trainer.batch_size": (16, 256, 48),
        "trainer.max_steps": (100, 4000, 400),
        "trainer.accumulate": (1, 4, 1),
        "model.projection.dim": (64, 1024, 128),
        "model.projection.layers": (1, 2, 1),
    }
    names = {"model.text.pooling": ("cls", "mean", "max"), "expert.fusion": ("cross_attention", "pixel_mask")}
    distributions: dict[str, Any] = {k: FloatDistribution(low, high) for k, (low, high, _) in numbers.items()}
    distributions |= {k: IntDistribution(low, high) for k, (low, high, _) in whole.items()}
    distributions |= {k: CategoricalDistribution(choices) for k, choices in names.items()}
    defaults = {k: v[2] for k, v in (numbers | whole).items()} | {k: v[0] for k, v in names.items()}
    return Knobs(distributions, defaults)


# what the published search tried, in its order, and (with *) what it kept
PUBLISHED = [
    ("optimizer.lr", 1e-3), ("optimizer.lr", 1e-4, "*"), ("model.logit_scale.max", 100, "*"),
    ("trainer.batch_size", 64, "*"), ("trainer.batch_size", 96), ("trainer.max_steps", 800, "*"),
    ("trainer.max_steps", 1000), ("optimizer.warmup", 0.05), ("expert.probability.max", 0),
    ("expert.probability.max", 0.5), ("expert.probability.max", 0.8, "*"), ("expert.probability.max", 1),
    ("expert.weight", 0.5), ("expert.mixup_alpha", 0.8), ("model.text.pooling", "mean"),
    ("model.projection.layers", 2), ("model.projection.dim", 256, "*"), ("model.projection.dim", 512, "*"),
    ("loss.label_smoothing", 0.1), ("expert.fusion", "pixel_mask"), ("optimizer.weight_decay", 1e-3),
    ("optimizer.factors.image", 0.1), ("optimizer.lr", 2e-4, "*"), ("optimizer.lr", 3e-4),
    ("expert.weight", 0.2), ("optimizer.warmup", 0.2, "*"), ("trainer.max_steps", 1200),
    ("model.projection.dropout", 0.1), ("optimizer.cosine_floor", 0.05), ("expert.mixup_alpha", 0.1),
    ("trainer.max_steps", 400),
]  # fmt: skip


def test_the_playbook_retraces_the_published_search() -> None:
    space = _published_space()
    searcher = configured("playbook")(space=space, seed=0)
    history = [reference(space, 344.68)]
    for key, value, *kept in PUBLISHED:
        proposal = searcher.ask(history)
        wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-3)
        assert proposal.overrides[key] == wanted, proposal
        score = 340.0 - len(history) if kept else 400.0
        history.append(ran(history, proposal, space, Outcome("completed", score)))
    recipe = history[26].overrides
    assert history[26] is current_recipe(history)
    end = {"optimizer.lr": 2e-4, "trainer.batch_size": 64, "trainer.max_steps": 800, "optimizer.warmup": 0.2}
    end |= {"expert.probability.max": 0.8, "model.projection.dim": 512, "model.logit_scale.max": 100}
    assert {key: recipe[key] for key in end} == pytest.approx(end, rel=1e-3)
    assert searcher.ask(history).category == "refine"


def test_the_playbook_refines_and_ends() -> None:
    space = _published_space()
    searcher = configured("playbook")(space=space, seed=0)
    history = [reference(space, 344.68)]
    while (proposal := searcher.ask(history)) is not None:
        history.append(ran(history, proposal, space, Outcome("completed", 400.0)))
    # 31 steps, and nine knobs up and down by three factors
    assert len(history) == 1 + 31 + 54
    assert {t.proposal.category for t in history[1:]} == {"published", "refine"}


def test_the_playbook_skips_the_way_back_after_a_kept_step() -> None:
    space = mixed_space()
    options = {"steps": [], "refine": {"keys": ["optimizer.lr", "trainer.batch_size"], "factors": [2.0]}}
    searcher = playbook.playbook(space=space, seed=0, **options)
    history = [reference(space)]
    history.append(ran(history, searcher.ask(history), space, Outcome("completed", 200.0)))
    assert history[1].proposal.overrides == {"optimizer.lr": 2e-3}
    assert searcher.ask(history).overrides == {"trainer.batch_size": 96}


def test_the_playbook_tries_an_interrupted_step_again() -> None:
    space = mixed_space()
    searcher = playbook.playbook(space=space, seed=0, **PLAYBOOK)
    history = [reference(space)]
    first = searcher.ask(history)
    history.append(ran(history, first, space, Outcome("interrupted")))
    assert searcher.ask(history) == first
    history.append(ran(history, first, space, Outcome("crashed")))
    assert searcher.ask(history) != first


def test_the_playbook_passes_over_what_changes_nothing() -> None:
    """Beyond the range's end, inactive, or the recipe's value already."""
    space = mixed_space()
    steps = [
        {"says": "beyond", "set": {"trainer.batch_size": {"times": 100.0}}},
        {"says": "beyond again", "set": {"trainer.batch_size": {"times": 2.0}}},
        {"says": "inactive", "set": {"expert.weight": 0.5}},
        {"says": "as it is", "set": {"model.pooling": "cls"}},
        {"says": "last", "set": {"model.pooling": "max"}},
    ]
    searcher = playbook.playbook(space=space, seed=0, steps=steps, refine={"keys": [], "factors": []})
    history = [reference(space)]
    history.append(ran(history, searcher.ask(history), space, Outcome("completed", 200.0)))
    assert history[1].proposal.overrides == {"trainer.batch_size": 256}
    assert searcher.ask(history).hypothesis == "last"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer.momentum": 0.9}, "optimizer.momentum is not in the space"),
        ({"optimizer.lr": 0.5}, "optimizer.lr=0.5 is outside"),
        ({"model.pooling": {"times": 2.0}}, "has no size"),
        ({"optimizer.lr": {"times": 0.0}}, "a factor is a number above 0"),
    ],
)
def test_the_playbook_refuses_what_it_cannot_propose(change: dict[str, Any], message: str) -> None:
    steps = [{"says": "wrong", "set": change}]
    with pytest.raises(ValueError, match=message):
        playbook.playbook(space=mixed_space(), seed=0, steps=steps, refine={"keys": [], "factors": []})


# ------------------------------------------------------------------ the queue


def _queued(text: bytes, history: list[Trial] | None = None) -> list[Proposal]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "proposals.jsonl"
        path.write_bytes(text)
        searcher = queue.queue(space=mixed_space(), seed=0, path=str(path))
        history = history or [reference(mixed_space())]
        while (proposal := searcher.ask(history)) is not None:
            history.append(ran(history, proposal, mixed_space(), Outcome("completed", 250.0)))
    return [trial.proposal for trial in history[1:]]


def test_queue_lines_become_proposals_in_order() -> None:
    replayed = Proposal(
        {"optimizer.lr": 3e-4}, base="reference", searcher="tpe", route="sampler", hypothesis="h"
    )
    lines = [
        '{"overrides": {"optimizer.lr": 0.001}, "hypothesis": "höher"}',
        "",
        '{"edits": [{"path": "a.py", "old": "x", "new": "y"}]}',
        json.dumps(to_json(replayed)),
    ]
    first, second, third = _queued("\n".join(lines).encode())
    assert (first.overrides, first.hypothesis, first.base) == ({"optimizer.lr": 0.001}, "höher", "recipe")
    assert second.edits == (Edit("a.py", "x", "y"),)
    assert (third.overrides, third.base, third.hypothesis) == (replayed.overrides, "reference", "h")
    assert {p.route for p in (first, second, third)} == {"queue"}
    assert [p.params for p in (first, second, third)] == [{"@line": 1}, {"@line": 3}, {"@line": 4}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"lr=0.1", "line 2: not JSON"),
        (b"[1]", "expected an object"),
        (b'{"override": {}}', "unknown key 'override'; allowed: overrides, edits"),
        (b'{"overrides": {"a": [1, 2]}}', r"proposal.overrides.a: \[1, 2\] is none of bool, int, float"),
        (b'{"overrides": {"a": NaN}}', "NaN is not a JSON number"),
        (b'{"overrides": {"a": 1e999}}', "too large"),
        (b'{"overrides": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b'{"overrides": {"a": ' + b"9" * 5000 + b"}}", "not JSON"),
        (b'{"base": "mine"}', "'mine' is not one of 'recipe', 'reference'"),
        (b'{"edits": [{"path": "a"}]}', r"edits\[0\]: the key 'old' is missing"),
        (b"[" * 100_000, "not JSON"),
        (b'{"hypothesis": "\xff"}', "utf-8"),
        (b'{"hypothesis": "\\ud800"}', "surrogates"),
        (b'{"hypothesis": 3}', "expected a str, got 3"),
        (b'"' + b"x" * (1 << 20), "longer than"),
    ],
)
def test_a_line_that_cannot_be_read_is_an_invalid_proposal(line: bytes, message: str) -> None:
    good = b'{"overrides": {"optimizer.lr": 0.001}}'
    before, bad, after = _queued(b"\n".join([good, line, good]))
    assert not before.invalid
    assert not after.invalid
    with pytest.raises(ValueError, match=message):
        raise ValueError(bad.invalid)
    assert bad.invalid.startswith("proposals.jsonl, line 2: ")
    assert (bad.route, bad.overrides) == ("queue", {})


def test_the_queue_reads_standard_input_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO(b'{"hypothesis": "one"}\n{"hypothesis": "two"}\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
    space = mixed_space()
    searcher = queue.queue(space=space, seed=0, path="-")
    history = [reference(space)]
    for said in ("one", "two"):
        assert searcher.ask(history).hypothesis == said  # type: ignore[union-attr]
        assert searcher.ask(history).hypothesis == said  # type: ignore[union-attr]
        history.append(ran(history, searcher.ask(history), space, Outcome("crashed")))  # type: ignore[arg-type]
    assert searcher.ask(history) is None


def test_a_queue_file_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"hypothesis": "one"}\n')
    searcher = queue.queue(space=mixed_space(), seed=0, path=str(path))
    history = [reference(mixed_space())]
    history.append(ran(history, searcher.ask(history), mixed_space(), Outcome("crashed")))  # type: ignore[arg-type]
    assert searcher.ask(history) is None
    with path.open("a") as file:
        file.write('{"hypothesis": "two"}\n')
    assert searcher.ask(history).hypothesis == "two"  # type: ignore[union-attr]


def test_a_missing_queue_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"searcher.path=nowhere.jsonl: no such file"):
        queue.queue(space=mixed_space(), seed=0, path="nowhere.jsonl")


@pytest.mark.parametrize("name", ["random", "tpe", "cmaes", "gp"])
def test_configs_make_searchers(name: str) -> None:
    searcher = configured(name)(space=mixed_space(), seed=0, direction="minimize")
    assert searcher.name == name
    assert searcher.ask([reference(mixed_space())]).searcher == name
