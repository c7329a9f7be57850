"""A small study for the researcher's tests: a desk over real files, a history that grows, settings from
configs/.

The desk does what the lab does, on a toy source: edits must apply and parse, settings must exist, and a
trial's score follows from the settings, so a scripted model can walk a path whose end is known.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from agent.desk import TaskView
from agent.records import Budget, Charges, Outcome, Proposal, Trial, Verdict, current_recipe
from agent.searchers.claude import claude
from tests.agent.researcher.messages_server import KEY, MessagesServer

ROOT = Path(__file__).resolve().parents[3]
SOURCE = "RATE = 1.0\n\n\ndef loss(error):\n    return error * error\n"


@dataclass(frozen=True)
class Condition:
    key: str
    value: Any


@dataclass(frozen=True)
class ToySpace:
    distributions: dict[str, Any]
    conditions: dict[str, Condition]
    defaults: dict[str, Any]


SPACE = ToySpace(
    {
        "optimizer.lr": FloatDistribution(1e-5, 1e-1, log=True),
        "trainer.batch_size": IntDistribution(8, 256),
        "model.logit_scale.max": FloatDistribution(1, 200),
        "loss.name": CategoricalDistribution(("clip", "siglip")),
        "loss.label_smoothing": FloatDistribution(0, 0.5),
        "trainer.compile": CategoricalDistribution((True, False)),
    },
    {"loss.label_smoothing": Condition("loss.name", "clip")},
    {
        "optimizer.lr": 3e-4,
        "trainer.batch_size": 48,
        "model.logit_scale.max": 2.0,
        "loss.name": "clip",
        "loss.label_smoothing": 0.0,
        "trainer.compile": False,
    },
)


@dataclass
class ToyDesk:
    """Implements agent.desk.Desk. `tried_out` and `events` are what tests look at."""

    folder: Path
    budget: Budget = field(default_factory=lambda: Budget(trials=20, seconds=60))
    space: Any = SPACE
    study: str = "toy"
    trials: list[Trial] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tried_out: list[Proposal] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    calls_usd: float = 0.0
    calls_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.workspace = self.folder / "workspace"
        (self.workspace / "src").mkdir(parents=True, exist_ok=True)
        (self.workspace / "src/loss.py").write_text(SOURCE)
        (self.workspace / "secret.txt").write_text("the answer")
        self.task = TaskView(
            "toy", "mean_rank", "minimize", ("src/loss.py",), locked=("data.*",), description="A toy task."
        )
        if not self.trials:
            self.trials.append(reference())

    @property
    def next_trial(self) -> int:
        return len(self.trials)

    def history(self) -> Sequence[Trial]:
        return list(self.trials)

    def recipe(self) -> Trial:
        best = current_recipe(self.trials)
        assert best is not None
        return best

    def spent(self) -> Charges:
        total = sum((trial.charges for trial in self.trials), Charges())
        return total + Charges(usd=self.calls_usd, seconds=self.calls_seconds)

    def read_file(self, path: str) -> str:
        if path not in self.task.editable:
            raise ValueError(f"{path} is neither editable nor readable")
        return (self.workspace / path).read_text()

    def check(self, proposal: Proposal, beside: Sequence[Proposal] = ()) -> str | None:
        for key in proposal.overrides:
            if key not in SPACE.defaults and key != "optimizer.beta1":
                return f"{key}: no such key, or locked"
        complete = self.complete(proposal)
        if not proposal.edits and any(t.overrides == complete and t.outcome for t in self.trials):
            return "the same as an earlier trial"
        if any((self.complete(other), other.edits) == (complete, proposal.edits) for other in beside):
            return "the same as another proposal of this round"
        for edit in proposal.edits:
            if edit.path not in self.task.editable:
                return f"{edit.path} is not editable"
            if self.read_file(edit.path).count(edit.old) != 1:
                return f"{edit.path}: the old text does not occur exactly once"
        return None

    def try_out(self, proposal: Proposal) -> str | None:
        self.tried_out.append(proposal)
        source = self.read_file("src/loss.py")
        for edit in proposal.edits:
            source = source.replace(edit.old, edit.new)
        try:
            compile(source, "src/loss.py", "exec")
        except SyntaxError as error:
            return f"SyntaxError: {error}"
        return None

    def log(self, event: str, **data: object) -> None:
        json.dumps(data)  # events are plain JSON
        self.events.append((event, data))

    def charge(self, usd: float, seconds: float) -> None:
        self.calls_usd += usd
        self.calls_seconds += seconds

    def trial_folder(self, number: int) -> Path:
        return self.folder / str(number)

    def complete(self, proposal: Proposal) -> dict[str, Any]:
        base = {} if proposal.base == "reference" else self.recipe().overrides
        return {**base, **proposal.overrides}

    def run(self, proposal: Proposal) -> Trial:
        """What the lab would do with a proposal: reject it, or score it, keep or revert it."""
        number = len(self.trials)
        overrides = self.complete(proposal)
        reason = proposal.invalid or self.check(proposal)
        if reason:
            outcome, verdict = Outcome("rejected", reason=reason), Verdict("reverted")
        else:
            best = self.recipe()
            assert best.outcome is not None
            assert best.outcome.score is not None
            score = score_of(overrides) - 5.0 * len(proposal.edits)
            delta = score - best.outcome.score
            outcome = Outcome("completed", score=score, curve=curve_of(overrides))
            kept = "kept" if delta < 0 else "reverted"
            verdict = Verdict(
                kept, probability=0.95 if delta < 0 else 0.1, delta=delta, compared_with=best.number
            )
        trial = Trial(number, proposal, overrides, outcome, verdict, Charges(seconds=10, runs=1))
        self.trials.append(trial)
        return trial


def score_of(overrides: dict[str, Any]) -> float:
    values = {**SPACE.defaults, **overrides}
    clamp = min(float(values["model.logit_scale.max"]), 50.0)
    return 340.0 - 3.0 * clamp - 0.1 * float(values["trainer.batch_size"])


def curve_of(overrides: dict[str, Any]) -> tuple[dict[str, float], ...]:
    scale = min(14.3, float(overrides.get("model.logit_scale.max", 2.0)))
    return tuple(
        {"step": step, "seconds": 0.1 * step, "loss": 4.0 / (1 + step), "logit_scale": scale}
        for step in range(40)
    )


def reference() -> Trial:
    outcome = Outcome("completed", score=score_of({}), curve=curve_of({}))
    return Trial(0, Proposal(route="reference"), {}, outcome, Verdict("reference"))


def llm(server: MessagesServer | None, name: str = "opus", **changes: Any) -> dict[str, Any]:
    """configs/llm/<name>.yaml as Hydra composes it, aimed at the loopback server."""
    values = composed(name)
    url = server.url if server else None
    backoff = {**values["backoff"], **changes.pop("backoff", {})}
    return {**values, "base_url": url, "backoff": backoff, **changes}


@cache
def composed(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "configs/llm"), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose(name), resolve=True)
    return values


class Clock:
    """Time that passes only while something sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def researcher(desk: ToyDesk, server: MessagesServer, arm: str = "claude", **options: Any) -> Any:
    clock = options.pop("clock", Clock())
    program = options.pop("program", ROOT / "agent/program.md")
    return claude(
        space=desk.space,
        seed=0,
        desk=desk,
        arm=arm,  # type: ignore[arg-type]
        program=str(program),
        llm=llm(server, **options),
        environment={"ANTHROPIC_API_KEY": KEY},
        clock=clock,
        sleep=clock.sleep,
    )


def proposes(lr: float = 1e-3, **fields: Any) -> dict[str, Any]:
    """The input of propose_trial; overrides as a mapping."""
    overrides = fields.pop("overrides", {"optimizer.lr": lr})
    entries = [{"key": key, "value": value} for key, value in overrides.items()]
    given = {
        "hypothesis": "The rate is far from its best.",
        "expected_effect": "The loss falls faster.",
        "category": "optimisation",
        "overrides": entries,
        "edits": [],
    }
    return given | fields


def plans(*hypotheses: str, category: str = "optimisation") -> dict[str, Any]:
    ideas = [
        {"hypothesis": words, "category": category, "expected_gain": "10", "cost": "1 trial"}
        for words in hypotheses or ("raise the learning rate",)
    ]
    return {"ideas": ideas}


def with_outcome(trial: Trial, **changes: Any) -> Trial:
    assert trial.outcome is not None
    return replace(trial, outcome=replace(trial.outcome, **changes))
