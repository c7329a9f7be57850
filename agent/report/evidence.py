"""A campaign goes in, what may be claimed comes out: no words yet, and no more than the rules allow.

Nothing is claimed before every study has ended and every winner is confirmed, since whoever looks often and
stops when it looks good finds differences by chance; nor between studies whose settings differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.report.campaign import Campaign
from agent.report.comparison import Final, Pair, differing, finals, pairs
from agent.report.words import count


@dataclass(frozen=True)
class Evidence:
    """waiting: what is still to come; empty if nothing is. forbidden: settings that forbid a comparison.

    claims: (better, worse) searchers, beyond doubt. improved: studies whose winner beats the reference.
    """

    ends: tuple[Final, ...]
    pairs: tuple[Pair, ...]
    waiting: str
    forbidden: tuple[str, ...]

    @property
    def claims(self) -> tuple[tuple[str, str], ...]:
        if self.waiting or self.forbidden:
            return ()
        found = ((pair, pair.better) for pair in self.pairs)
        return tuple((better, p.second if better == p.first else p.first) for p, better in found if better)

    @property
    def improved(self) -> tuple[str, ...]:
        return () if self.waiting else tuple(final.study for final in self.ends if final.better)


def judge(campaign: Campaign) -> Evidence:
    """All that the campaign shows, at any moment."""
    ends = finals(campaign)
    forbidden = tuple(name for name, hard in differing(campaign).items() if hard)
    return Evidence(tuple(ends), tuple(pairs(campaign)), _waiting(campaign, ends), forbidden)


def _waiting(campaign: Campaign, ends: list[Final]) -> str:
    if running := [study.name for study in campaign.studies if study.state == "running"]:
        return f"{count(len(running), 'study has', 'studies have')} not ended"
    if not ends:
        return "the reference did not run in any study"
    if open_ := [both for study in campaign.studies if (both := study.open_confirmations)[0]]:
        left, planned = map(sum, zip(*open_, strict=True))
        studies = count(len(open_), "study", "studies")
        return (
            f"the confirmation of {studies} is not done, with {left} of its {planned} trainings still to come"
        )
    if not campaign.reference_confirmed():
        return "nothing has been trained again on fresh seeds"
    if unknown := [final for final in ends if final.confirmed is None and not final.failed]:
        return f"{count(len(unknown), 'winner has', 'winners have')} not been trained again on fresh seeds"
    return ""
