"""Searchers, searcher seeds and one budget go in; their studies run in turns, from one shared reference trial.

A campaign has no state of its own: which of its studies has ended, and how far the others are, is in the ledger.
So it may be killed at any moment, and the same settings resume it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from omegaconf import DictConfig

from agent.composition import composed_file
from agent.ledger import Ledger, StudyLedger
from agent.loop import Loop
from agent.observers import Observer, Observers
from agent.records import Proposal, Trial, Verdict
from agent.searchers.base import SearcherStopped
from agent.study import open_study
from agent.tracking import WandbTracker, composed_config
from agent.validation import validate

Order = Literal["interleaved", "in_turn"]
Steps = Generator[Trial | None, None, str]
# what the campaign sets for each study, and with what to set it
OWN = {
    "searcher": "searchers=[…]",
    "seed": "seeds=[…]",
    "study": "campaign=NAME",
    "searcher_name": "searchers=[…]",
}


class CampaignError(ValueError):
    """The settings make no campaign, or the studies cannot be compared; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One study of the campaign. overrides: over the campaign's own settings."""

    name: str
    searcher: str
    seed: int
    overrides: tuple[str, ...] = ()


class View(Protocol):
    """What a person sees of a campaign."""

    def observer(self, entry: Entry) -> Observer: ...

    def ended(self, entry: Entry, reason: str) -> None:
        """The study takes no more turns in this sitting."""


@dataclass
class Campaign:
    """Studies that are run to be compared. `open` gives a study's loop, as it was left.

    share_reference: the first study measures the reference, the others take its measurements over and are
    charged the same; otherwise each measures it anew.
    """

    entries: Sequence[Entry]
    open: Callable[[Entry, ExitStack, Observer], Loop]
    view: View
    order: Order = "interleaved"
    share_reference: bool = True
    stop: threading.Event = field(default_factory=threading.Event)
    loops: dict[str, Loop] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """Runs, or resumes, every study that has not ended; study -> why it takes no more turns.

        A searcher that stops (no key, no credit) leaves the campaign, the others go on. Raises StudyFailed,
        SandboxUnavailable, CampaignError where the studies do not start from the same reference.
        """
        with ExitStack() as stack:
            for entry in self.entries:
                self.loops[entry.name] = self.open(entry, stack, self.view.observer(entry))
                self._stop_with_us(self.loops[entry.name])
            self._require_one_start()
            return self._turns(stack)

    def request_stop(self) -> None:
        """The trial under way is stopped and charged; no other begins. The same campaign resumes."""
        self.stop.set()
        for loop in self.loops.values():
            loop.stop.set()

    def _stop_with_us(self, loop: Loop) -> None:
        if self.stop.is_set():
            loop.stop.set()

    def _turns(self, stack: ExitStack) -> dict[str, str]:
        reasons: dict[str, str] = {}
        steps: dict[str, Steps] = {}
        for entry in self.entries:
            if ended(self.loops[entry.name].ledger):
                self._leave(entry, "had ended", reasons)
        while waiting := [entry for entry in self.entries if entry.name not in reasons]:
            for entry in waiting if self.order == "interleaved" else waiting[:1]:
                if entry.name not in steps:
                    steps[entry.name] = self._begin(entry)
                    stack.callback(steps[entry.name].close)
                if reason := self._advance(steps[entry.name]):
                    self._leave(entry, reason, reasons)
        return reasons

    def _begin(self, entry: Entry) -> Steps:
        loop = self.loops[entry.name]
        donors = [other.ledger for other in self.loops.values() if other.ledger.reference()]
        if self.share_reference and donors and loop.ledger.reference() is None and not self.stop.is_set():
            adopt_reference(loop, donors[0])
        return loop.steps()

    def _advance(self, steps: Steps) -> str:
        """One trial; why there will be no other, empty if there may be one."""
        try:
            next(steps)
        except StopIteration as end:
            return str(end.value)
        except SearcherStopped as error:
            return f"the searcher stopped: {error}"
        return ""

    def _leave(self, entry: Entry, reason: str, reasons: dict[str, str]) -> None:
        reasons[entry.name] = reason
        self.view.ended(entry, reason)

    def _require_one_start(self) -> None:
        """The same code and settings, budget, seeds and rules for all; an early refusal costs nothing yet."""
        first, *others = [start_of(loop) for loop in self.loops.values()]
        for name, other in zip(list(self.loops)[1:], others, strict=True):
            for key, value in other.items():
                if value != first[key]:
                    raise CampaignError(
                        f"{name} has {key} {value!r}, {next(iter(self.loops))} has {first[key]!r}: "
                        "they cannot be compared; begin anew with campaign=ANOTHER_NAME"
                    )


def start_of(loop: Loop) -> dict[str, Any]:
    """What must be the same in every study of a campaign, by name."""
    spec, reference = loop.ledger.spec, loop.ledger.reference()
    folds = loop.experiment.runner.task.folds
    if reference and reference.outcome:
        folds = tuple(dict.fromkeys(item.fold for item in reference.outcome.measurements))
    checked = validate(loop.workspace.task, {}, {})
    return {
        "commit": reference.commit if reference else loop.workspace.head(),
        "reference": checked.config_hash,
        "folds": folds,
        "task": spec.task,
        "budget": spec.budget,
        "training_seeds": spec.training_seeds,
        "acceptance": spec.details.get("acceptance", spec.acceptance),
        "sandbox": spec.sandbox,
    }


def adopt_reference(loop: Loop, donor: StudyLedger) -> Trial:
    """Makes the donor's reference trial the study's own: the same measurements and charges, not run again.

    The ledger says so in the trial's verdict and in an event "reference_adopted".
    """
    theirs = donor.reference()
    assert theirs is not None
    ledger = loop.ledger
    with ledger.held(loop.owner):
        proposal = Proposal(base="reference", route="reference", searcher=loop.searcher.name)
        number = ledger.start(
            proposal,
            params=loop.space.defaults,
            distributions=loop.space.distributions,
            owner=loop.owner,
        )
        ledger.note(number, fingerprint=donor.progress(theirs.number)["fingerprint"])
        verdict = Verdict("reference", reason=f"measured once for the campaign, in study {donor.name}")
        ledger.log("reference_adopted", source=donor.name, trial=number)
        trial = replace(theirs, number=number, proposal=proposal, verdict=verdict)
        ledger.finish(trial)
        return trial


def ended(ledger: StudyLedger) -> bool:
    """Whether the study has used its budget, or its searcher had no more to propose."""
    life = [e["event"] for e in ledger.events() if e["event"] in ("ended", "stopped", "resumed")]
    return bool(life) and life[-1] == "ended" and ledger.reference() is not None


def entries_of(config: DictConfig) -> list[Entry]:
    """The studies that the settings name: for each seed, each searcher. Raises CampaignError."""
    for key in ("searchers", "seeds"):
        if not isinstance(config[key], Sequence) or isinstance(config[key], str):
            raise CampaignError(f"{key}={config[key]}: expected a list, {key}=[{config[key]}]")
    searchers, seeds = list(config.searchers), list(config.seeds)
    variants: Mapping[str, Sequence[str]] = config.variants or {}
    if config.order not in get_args(Order):
        raise CampaignError(f"order={config.order}: expected one of {', '.join(get_args(Order))}")
    for key, values in (("searchers", searchers), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise CampaignError(f"{key}={values}: expected a list of different ones")
    if wrong := [seed for seed in seeds if not isinstance(seed, int) or isinstance(seed, bool)]:
        raise CampaignError(f"seeds={wrong}: expected whole numbers")
    return [
        Entry(
            f"{config.campaign}-{searcher}-{seed}",
            searcher,
            seed,
            (
                *variants.get(searcher, (f"searcher={searcher}",)),
                f"searcher_name={searcher}",
                f"seed={seed}",
                f"study={config.campaign}-{searcher}-{seed}",
            ),
        )
        for seed in seeds
        for searcher in searchers
    ]


def studies_of(config: DictConfig, ledger: Ledger) -> list[StudyLedger]:
    """The studies that `studies` names; if it is empty, the campaign's. Raises CampaignError."""
    return studies_named(list(config.studies) or [entry.name for entry in entries_of(config)], ledger)


def studies_named(names: Sequence[str], ledger: Ledger) -> list[StudyLedger]:
    """The studies of these names, * and ? standing for anything, each once, in the names' order.

    Raises CampaignError for a name that is not there, with those that are.
    """
    known = ledger.studies()
    found = {str(name): [study for study in known if fnmatchcase(study, str(name))] for name in names}
    if missing := [name for name, studies in found.items() if not studies]:
        shown = ", ".join(known) or "none yet"
        raise CampaignError(f"no study {', '.join(missing)} in the ledger; there are: {shown}")
    return [ledger.study(name) for name in dict.fromkeys(s for studies in found.values() for s in studies)]


def open_from(
    root: Path, config_name: str, overrides: Sequence[str], budget_name: str
) -> Callable[[Entry, ExitStack, Observer], Loop]:
    """Opens a campaign's studies: its own settings (config and command line) with another searcher and seed.

    Raises CampaignError for what the command line may not set.
    """
    for override in overrides:
        key = re.split(r"[=@]", override.lstrip("+~"))[0]
        if key in OWN:
            raise CampaignError(f"{override}: a campaign sets {key} itself; use {OWN[key]}")

    def opened(entry: Entry, stack: ExitStack, observer: Observer) -> Loop:
        named = f"budget_name={budget_name}"
        config = composed_file(root / "configs", config_name, [*overrides, named, *entry.overrides])
        loop = open_study(config, root, stack)
        trackers: list[Observer] = []
        if config.tracker.name == "wandb":
            tracker = WandbTracker(config.tracker.project, loop.folder, composed_config(loop.workspace.task))
            trackers.append(tracker)
        loop.observers = Observers([observer, *trackers])
        return loop

    return opened
