"""A campaign goes in, one row of figures a study comes out: what was tried, what failed, what a gain cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.records import Status, Trial
from agent.report.best_so_far import Axis, area, relative, steps
from agent.report.campaign import Campaign, Study
from agent.report.comparison import Final, finals

FAILURES: tuple[Status, ...] = ("crashed", "diverged", "out_of_memory", "timeout")
LLM = "llm"


@dataclass(frozen=True)
class Account:
    """One study. Rates are shares of its proposals. `area`: of the curve against trials, 1 is no gain.

    seconds_per_percent, usd_per_percent: what one hundredth of gain on the task's scale cost, by the
    confirmed gain where there is one (`by_confirmed`); None without a gain.
    """

    study: Study
    final: Final | None
    kept: int
    failed: float
    rejected: float
    duplicate: float
    early: float
    llm: float
    area: float | None
    seconds_per_percent: float | None
    usd_per_percent: float | None
    by_confirmed: bool
    marks: tuple[str, ...]
    test: Mapping[str, float]


def accounts(campaign: Campaign) -> list[Account]:
    """A row for every study, in the campaign's order. Areas end where the shortest study ends."""
    ends = {final.study: final for final in finals(campaign)}
    end = common_end(campaign, "trials")
    return [_account(study, ends.get(study.name), end) for study in campaign.studies]


def common_end(campaign: Campaign, axis: Axis) -> float:
    """What every study that has a score used at least."""
    found = [steps(study) for study in campaign.studies]
    return min((s[-1].at(axis) for s in found if s), default=0.0)


def _account(study: Study, final: Final | None, end: float) -> Account:
    proposals = study.proposals
    statuses = [trial.outcome.status for trial in proposals if trial.outcome]
    gain = None if final is None else final.promised if final.confirmed is None else final.confirmed
    percent = 100 * gain if gain and gain > 0 else None
    reads = _reads(study)
    return Account(
        study=study,
        final=final,
        kept=sum(_kept(trial) for trial in proposals),
        failed=_share(sum(status in FAILURES for status in statuses), proposals),
        rejected=_share(statuses.count("rejected"), proposals),
        duplicate=_share(statuses.count("duplicate"), proposals),
        early=_share(sum(t.outcome.stopped_early for t in proposals if t.outcome), proposals),
        llm=_share(sum(trial.proposal.route == LLM for trial in proposals), proposals),
        area=area(study, "trials", end),
        seconds_per_percent=study.charges.seconds / percent if percent else None,
        usd_per_percent=study.charges.usd / percent if percent and study.charges.usd else None,
        by_confirmed=final is not None and final.confirmed is not None,
        marks=marks(study),
        test=dict(reads[0]["metrics"]) if reads else {},
    )


def marks(study: Study) -> tuple[str, ...]:
    """What a reader must know before believing a study."""
    found = []
    if study.state == "running":
        found.append("not ended")
    if study.state == "failed":
        found.append("the reference did not run")
    if study.reference and not len(relative(study, "trials")[0]):
        found.append(
            "the reference's score is not above 0, so it stands in no picture that shows shares of that"
        )
    if study.spec.sandbox == "none":
        found.append("no sandbox: the searcher's code could reach the host")
    if interrupted := sum(trial.interrupted for trial in study.trials):
        found.append(f"{interrupted} trial{'s' * (interrupted > 1)} interrupted")
    found += _outside(study)
    reads = study.events_named("test_read")
    if reads and not _reads(study):
        found.append(
            f"the test set was read by trial {reads[0]['trial']}, which is not the winner: not shown"
        )
    if len(reads) > 1 or any(read.get("again") for read in reads):
        found.append(f"test set read {len(reads)} times; the first reading is shown")
    if study.events_named("versions changed"):
        found.append("software or workers changed during the study")
    if study.events_named("confirmed") and _used_seeds(study):
        found.append("a confirmation used training seeds of the search; those are not counted")
    return tuple(found)


def _reads(study: Study) -> list[Mapping[str, Any]]:
    """The winner's readings of the test set: a study that went on after one has another winner."""
    number = study.winner.number if study.winner else None
    return [read for read in study.events_named("test_read") if read["trial"] == number]


def _outside(study: Study) -> list[str]:
    """Of an external study: who proposed, and whether the dollars are all of them."""
    asked = [trial.proposal for trial in study.proposals if trial.proposal.by]
    found = [f"proposed by {', '.join(sorted({proposal.by for proposal in asked}))}"] if asked else []
    if silent := sum(not proposal.dollars_known for proposal in asked):
        found.append(f"what the researcher's own model cost is unknown for {silent} of {len(asked)} trials")
    elif asked:
        found.append("dollars are as the researcher claims them")
    return found


def _used_seeds(study: Study) -> bool:
    seeds = {m["seed"] for event in study.events_named("confirmed") for m in event["measurements"]}
    return bool(seeds & set(study.spec.training_seeds))


def alike(campaign: Campaign) -> list[list[str]]:
    """Studies that tried exactly the same, beside others of their searcher: chance played no part in them."""
    groups: dict[Any, list[str]] = {}
    for study in campaign.studies:
        tried = tuple(repr((sorted(t.overrides.items()), t.proposal.edits)) for t in study.proposals)
        groups.setdefault((study.spec.searcher, tried), []).append(study.name)
    return [names for (_, tried), names in groups.items() if len(names) > 1 and tried]


def keep_rates(campaign: Campaign, by: str) -> list[tuple[str, int, int]]:
    """(name, tried, kept) by "category", "phase" or "route" of the proposals, most tried first."""
    tried: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for study in campaign.studies:
        for trial in study.proposals:
            name = getattr(trial.proposal, by) or "none given"
            tried[name] += 1
            kept[name] += _kept(trial)
    return [(name, count, kept[name]) for name, count in tried.most_common()]


def _kept(trial: Trial) -> bool:
    return trial.verdict is not None and trial.verdict.decision == "kept"


def _share(count: int, of: Sequence[Trial]) -> float:
    return count / len(of) if of else 0.0
