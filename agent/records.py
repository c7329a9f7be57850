"""What passes between searcher, runner, judge and ledger: small frozen records, JSON in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Value = bool | int | float | str | None
Status = Literal[
    "completed", "diverged", "crashed", "out_of_memory", "timeout", "rejected", "duplicate", "interrupted"
]
Decision = Literal["kept", "reverted", "reference"]


@dataclass(frozen=True)
class Edit:
    """Replace `old`, which must occur exactly once in `path` (relative to the workspace), by `new`."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Proposal:
    """What to try. `overrides` maps Hydra keys to plain values, laid over `base`.

    base "recipe": on top of the best so far (its code and its overrides).
    base "reference": on top of the reference recipe (samplers, which propose every knob of the space).
    `searcher` and `route` say who proposed it and how ("sampler", "startup", "llm", "queue", …).
    """

    overrides: Mapping[str, Value] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    base: Literal["recipe", "reference"] = "recipe"
    hypothesis: str = ""
    expected_effect: str = ""
    category: str = ""
    phase: str = ""
    searcher: str = ""
    route: str = ""
    # an external client: its name and version, or a person's name, and what it says that its model used
    by: str = ""
    claimed: Mapping[str, Any] = field(default_factory=dict)
    # what a sampler needs to be told the result; opaque to everyone else
    params: Mapping[str, Any] = field(default_factory=dict)
    # why the searcher's input could not be read as a proposal; such a trial is rejected with this reason
    invalid: str = ""

    @property
    def dollars_known(self) -> bool:
        """Whether its charges hold what it cost: of an external client the lab knows what that client says."""
        return not self.by or "usd" in self.claimed


@dataclass(frozen=True)
class Measurement:
    """The judged score of one training run: one training seed, one fold. Seconds are wall-clock."""

    seed: int
    fold: int
    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    charged_seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a trial's runs ended. `score` is the mean of the measurements; None unless completed.

    `reason` is one line a searcher can learn from; `log_tail` the end of the log (a traceback, say).
    `stopped_early` marks a trial that was ended after its first fold because it could not win.
    `curve` holds the points of its runs one after the other; read from a ledger, it is unpacked when it is looked at.
    """

    status: Status
    score: float | None = None
    measurements: tuple[Measurement, ...] = ()
    curve: Sequence[Mapping[str, float]] = ()
    reason: str = ""
    log_tail: str = ""
    stopped_early: bool = False


@dataclass(frozen=True)
class Verdict:
    """The decision, the probability of a real gain that led to it, and what it was compared with.

    `delta` is score minus the recipe's score on the same seeds and folds (negative is better for "minimize").
    """

    decision: Decision
    probability: float | None = None
    delta: float | None = None
    compared_with: int | None = None
    reruns: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Charges:
    """What a trial cost. `seconds` holds all of it: start-up, failures, re-runs, evaluation, searcher."""

    seconds: float = 0.0
    train_seconds: float = 0.0
    usd: float = 0.0
    runs: int = 0

    def __add__(self, other: Charges) -> Charges:
        return Charges(
            self.seconds + other.seconds,
            self.train_seconds + other.train_seconds,
            self.usd + other.usd,
            self.runs + other.runs,
        )

    def __sub__(self, other: Charges) -> Charges:
        return Charges(
            self.seconds - other.seconds,
            self.train_seconds - other.train_seconds,
            self.usd - other.usd,
            self.runs - other.runs,
        )

    def shares(self, count: int) -> list[Charges]:
        """Equal parts of seconds and dollars for `count` trials; added up in order they are the whole again."""
        part = Charges(self.seconds / count, self.train_seconds / count, self.usd / count)
        but_last = [part] * (count - 1)
        # subtracted in one go: parts subtracted one by one would round differently than they add up
        return [*but_last, self - sum(but_last, Charges())]


@dataclass(frozen=True)
class Trial:
    """A proposal, its outcome and its verdict; one Optuna trial of the study, never deleted.

    `number` counts from 0 (the reference). `overrides` are the complete ones that ran: base plus proposal.
    `commit` is the recipe's commit that the trial ran on (reverted) or became (kept).
    """

    number: int
    proposal: Proposal
    overrides: Mapping[str, Value] = field(default_factory=dict)
    outcome: Outcome | None = None
    verdict: Verdict | None = None
    charges: Charges = Charges()
    commit: str = ""

    @property
    def interrupted(self) -> bool:
        """Ended by the machine, not by what it tried: it says nothing, and its proposal is asked for again."""
        return self.outcome is not None and self.outcome.status == "interrupted"


@dataclass(frozen=True)
class Budget:
    """What a study may use. `seconds` is the training time of one trial, shared by its folds.

    None is no limit. `wall_factor` and `setup_seconds` make the hard wall limit of a run:
    seconds * wall_factor + setup_seconds, after which it is killed. One that reports more training than
    seconds * wall_factor has no score.
    """

    trials: int
    seconds: float
    study_seconds: float | None = None
    usd: float | None = None
    wall_factor: float = 1.5
    setup_seconds: float = 60.0


def current_recipe(trials: Iterable[Trial]) -> Trial | None:
    """The trial whose recipe is the current one: kept and not surpassed, else the first reference.

    Trials that run side by side may be kept out of order, so the one that no kept trial was compared with
    is the tip, not simply the highest number.
    """
    judged = [trial for trial in trials if trial.verdict is not None]
    kept = [trial for trial in judged if trial.verdict and trial.verdict.decision == "kept"]
    surpassed = {trial.verdict.compared_with for trial in kept if trial.verdict}
    tips = [trial for trial in kept if trial.number not in surpassed]
    references = [trial for trial in judged if trial.verdict and trial.verdict.decision == "reference"]
    if tips:
        return tips[-1]
    return references[0] if references else None


def lineage(recipe: Trial | None, trials: Iterable[Trial]) -> list[Trial]:
    """The kept trials that led to `recipe`, the reference first: each was laid over the one before.

    Of trials that ran side by side, a later one may come before an earlier one.
    """
    known = {trial.number: trial for trial in trials}
    steps: list[Trial] = []
    while recipe is not None and recipe not in steps:
        steps.append(recipe)
        before = recipe.verdict.compared_with if recipe.verdict else None
        recipe = None if before is None else known.get(before)
    return steps[::-1]
