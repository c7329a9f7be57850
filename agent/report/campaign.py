"""The ledger's studies go in, a Campaign comes out: all that the report knows, as records, at any moment.

What the report reads beside the loop's trials are four events of a study (`StudyLedger.log`):

- "confirming": trials=[N, …], seeds, budget_factors: what there is to come; the last one holds.
- "confirmed": role="winner" or "reference", trial=N, budget_factor=1 or 4, measurements=[Measurement, …], or
  failed={seed, fold, status, reason}. A confirmation comes in many events, one a training seed and fold, say.
- "test_read": trial=N, metrics={name: number}, again=bool.
- "ablated": change="the key or edit that was taken back", trial=N, measurements=[Measurement, …].
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from agent.codec import from_json
from agent.ledger import Ledger, StudyLedger, StudySpec
from agent.ledger.curve import column
from agent.ledger.rows import reruns
from agent.ledger.study import AFTERWARDS, uncollected
from agent.noise import on_scale
from agent.records import Charges, Measurement, Trial, current_recipe
from agent.task import Scale

# charged after the search, so no part of what the search cost
State = Literal["ended", "running", "failed"]
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Study:
    """One study as its ledger has it now.

    trials: in order of number; their curves are taken out and stand in `curves` as (step, loss) of one run.
    remeasured: trial -> measurements that later trials made of it when it was the recipe.
    began: trial -> Unix time.
    """

    name: str
    spec: StudySpec
    trials: tuple[Trial, ...]
    events: tuple[Mapping[str, Any], ...] = ()
    remeasured: Mapping[int, tuple[Measurement, ...]] = field(default_factory=dict)
    curves: Mapping[int, Curve] = field(default_factory=dict)
    began: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def reference(self) -> Trial | None:
        """The trial that every study starts from, once it has been measured."""
        judged = (t for t in self.trials if t.verdict and t.verdict.decision == "reference")
        return next(judged, None)

    @cached_property
    def winner(self) -> Trial | None:
        """The recipe as it stands; the reference if nothing was kept."""
        return current_recipe(self.trials)

    @cached_property
    def proposals(self) -> tuple[Trial, ...]:
        """Ended trials that count against the budget: neither the reference nor interrupted."""
        ended = (t for t in self.trials if t.outcome and not t.interrupted)
        return tuple(t for t in ended if t.proposal.route != "reference")

    @cached_property
    def state(self) -> State:
        """ "ended": the budget is used; "failed": the reference did not run; else it may go on."""
        life = [e["event"] for e in self.events if e["event"] in ("ended", "stopped", "resumed")]
        if life and life[-1] == "ended" and self.reference:
            return "ended"
        first = [t for t in self.trials if t.proposal.route == "reference" and t.outcome]
        broken = [t for t in first if not t.interrupted]
        return "failed" if broken and not self.reference else "running"

    @cached_property
    def charges(self) -> Charges:
        """All that the search was charged: trials, interrupted ones included, and events such as planning."""
        return sum((c for _, c in self.planning), sum((t.charges for t in self.trials), Charges()))

    @cached_property
    def planning(self) -> list[tuple[float, Charges]]:
        """(Unix time, charges) of the search's events that cost something."""
        search = (e for e in self.events if "charges" in e and e["event"] not in AFTERWARDS)
        return [(e["time"], from_json(Charges, e["charges"])) for e in search]

    def confirmed(self, trial: int, factor: float = 1.0, role: str = "winner") -> tuple[Measurement, ...]:
        """What confirmation measured of a trial on seeds that the search had not used."""
        return self._confirmations.get((role, trial, factor), ())

    def failed(self, trial: int, factor: float = 1.0) -> dict[int, str]:
        """Fresh training seed -> why confirmation got no score of a trial on it."""
        return self._failures.get((trial, factor), {})

    @cached_property
    def open_confirmations(self) -> tuple[int, int]:
        """(still to come, planned) trainings of the confirmation, each of one trial on one seed under one budget."""
        plans = self.events_named("confirming")
        if not plans:
            return 0, 0
        plan, settled = plans[-1], set(self._settled)
        planned = set(itertools.product(plan["trials"], plan["budget_factors"], plan["seeds"]))
        return len(planned - settled), len(planned)

    @cached_property
    def _settled(self) -> list[tuple[int, float, int]]:
        """(trial, factor, seed) of what has been measured on all folds, or has failed."""
        measured = [
            (trial, factor, item.seed)
            for (_, trial, factor), items in self._confirmations.items()
            for item in items
        ]
        return measured + [(*key, seed) for key, seeds in self._failures.items() for seed in seeds]

    @cached_property
    def _failures(self) -> dict[tuple[int, float], dict[int, str]]:
        found: dict[tuple[int, float], dict[int, str]] = defaultdict(dict)
        for event in self.events_named("confirmed"):
            if failed := event.get("failed"):
                said = ": ".join(filter(None, (failed["status"].replace("_", " "), failed["reason"])))
                found[event["trial"], event["budget_factor"]][failed["seed"]] = said
        return found

    @cached_property
    def folds(self) -> set[int]:
        """Those that every complete measurement of a training seed has; empty before the reference was measured."""
        known = self.reference.outcome if self.reference else None
        return {item.fold for item in known.measurements} if known else set()

    @cached_property
    def _confirmations(self) -> dict[tuple[str, int, float], tuple[Measurement, ...]]:
        found: dict[tuple[str, int, float], dict[tuple[int, int], Measurement]] = defaultdict(dict)
        for event in self.events_named("confirmed"):
            for data in event["measurements"]:
                item = from_json(Measurement, data)
                if item.seed not in self.spec.training_seeds:
                    of = found[event["role"], event["trial"], event["budget_factor"]]
                    of[item.seed, item.fold] = item
        whole = {key: {seed for seed, _ in of if self._complete(seed, of)} for key, of in found.items()}
        return {
            key: tuple(of[place] for place in sorted(of) if place[0] in whole[key])
            for key, of in found.items()
        }

    def _complete(self, seed: int, places: Iterable[tuple[int, int]]) -> bool:
        return self.folds <= {fold for one, fold in places if one == seed}

    def events_named(self, name: str) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event["event"] == name]


@dataclass(frozen=True)
class Campaign:
    """Studies of one task. `scale`: where equal changes count equally; it and `metric` are the task's."""

    studies: tuple[Study, ...]
    scale: Scale = "log"
    metric: str = "score"

    def __post_init__(self) -> None:
        if not self.studies:
            raise ValueError("a report needs at least one study: study=NAME or studies=[NAME,NAME]")
        for name in ("task", "direction"):
            found = sorted({str(getattr(study.spec, name)) for study in self.studies})
            if len(found) > 1:
                raise ValueError(f"studies differ in {name} ({', '.join(found)}): report them apart")

    @property
    def sign(self) -> int:
        """-1 where less is better."""
        return -1 if self.studies[0].spec.direction == "minimize" else 1

    @property
    def task(self) -> str:
        return self.studies[0].spec.task

    @cached_property
    def searchers(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(study.spec.searcher for study in self.studies))

    def of(self, searcher: str) -> list[Study]:
        return [study for study in self.studies if study.spec.searcher == searcher]

    def level(self, measurements: Iterable[Measurement]) -> float | None:
        """The mean on the task's scale over training seeds, each the mean over its folds."""
        values = self.by_seed(measurements)
        return sum(values) / len(values) if values else None

    def by_seed(self, measurements: Iterable[Measurement]) -> list[float]:
        """One value a training seed, in order of seed; seeds that lack folds are left out."""
        folds: Mapping[int, list[float]] = defaultdict(list)
        for item in measurements:
            folds[item.seed].append(on_scale(item.score, self.scale))
        most = max(map(len, folds.values()), default=0)
        return [sum(scores) / most for _, scores in sorted(folds.items()) if len(scores) == most]

    def reference_confirmed(self, factor: float = 1.0) -> tuple[Measurement, ...]:
        """The reference's confirmation, from whichever studies have it; the first of each seed and fold."""
        return self._references.get(factor, ())

    @cached_property
    def _references(self) -> dict[float, tuple[Measurement, ...]]:
        found: dict[float, dict[tuple[int, int], Measurement]] = defaultdict(dict)
        for study in self.studies:
            for (role, trial, factor), measured in study._confirmations.items():
                if role == "reference" and study.reference and trial == study.reference.number:
                    for item in measured:
                        found[factor].setdefault((item.seed, item.fold), item)
        return {factor: tuple(of[place] for place in sorted(of)) for factor, of in found.items()}

    def gain(self, level: float, than: float) -> float:
        """How much better `level` is `than` another, both on the scale; positive is better."""
        return self.sign * (level - than)

    def ratio(self, gain: float) -> float:
        """A gain as a share of the score on "log" (0.12: the score is 12 % better); itself on "linear"."""
        return self.sign * math.expm1(self.sign * gain) if self.scale == "log" else gain


def load(ledger: Ledger, names: Sequence[str], scale: Scale = "log", metric: str = "score") -> Campaign:
    """The named studies as they are now. Raises LedgerError for a name that is not there."""
    with uncollected():
        return Campaign(tuple(_study(ledger.study(name)) for name in names), scale, metric)


def _study(ledger: StudyLedger) -> Study:
    trials, curves, began = [], {}, {}
    remeasured: dict[int, list[Measurement]] = defaultdict(list)
    for frozen in ledger.study.get_trials(deepcopy=False):
        attributes = frozen.user_attrs
        result = dict(attributes.get("result", {}))
        outcome = dict(result.get("outcome") or {})
        if curve := _loss_curve(outcome.pop("curve", ())):
            curves[frozen.number] = curve
        progress = attributes.get("progress", {})
        data = {
            "number": frozen.number,
            "proposal": attributes["proposal"],
            "overrides": attributes["overrides"],
            "charges": progress.get("charges", {}),
            **result,
        }
        trials.append(from_json(Trial, data | ({"outcome": outcome} if outcome else {})))
        if frozen.datetime_start:
            began[frozen.number] = frozen.datetime_start.timestamp()
        for number, measurements in reruns(progress):
            remeasured[number] += measurements
    frozen_again = {number: tuple(found) for number, found in remeasured.items()}
    return Study(ledger.name, ledger.spec, tuple(trials), tuple(ledger.events()), frozen_again, curves, began)


def _loss_curve(curve: Any, most: int = 48) -> Curve:
    """(step, loss) of the first run of a trial, thinned; what is no finite number is left out.

    curve: as it lies in the ledger, of which no more is unpacked than these quantities.

    The first run ends where the fold changes or, with another training seed, the step falls.
    """
    folds, steps, losses = (column(curve, name) for name in ("fold", "step", "loss"))
    end, before = 0, -math.inf
    for fold, step in zip(folds, steps, strict=True):
        # written so that what is no number ends the run, too
        if fold != folds[0] or not (_finite(step) and step > before):
            break
        end, before = end + 1, step
    thinned = slice(0, end, max(1, math.ceil(end / most)))
    found = zip(steps[thinned], losses[thinned], strict=True)
    return tuple((step, loss) for step, loss in found if _finite(loss))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def only(campaign: Campaign, names: Sequence[str]) -> Campaign:
    """The campaign with some of its studies."""
    return replace(campaign, studies=tuple(s for s in campaign.studies if s.name in names))
