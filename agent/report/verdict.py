"""A campaign goes in, the verdict comes out: what may be claimed, and plain sentences that say it."""

from __future__ import annotations

import statistics as averages
from collections.abc import Sequence
from dataclasses import dataclass

from agent.report.campaign import Campaign
from agent.report.comparison import ALPHA, TOLERANCE, Final, Pair, finals
from agent.report.evidence import judge
from agent.report.statistics import pooled_deviation, smallest_p, studies_for_power, studies_needed
from agent.report.words import compared, count, duration, listed, share, span, spread

LONGER = 4.0  # times the training time of the search
# so many pairs of searchers get a sentence each
MOST_PAIRS = 3


@dataclass(frozen=True)
class Verdict:
    """claims: (better, worse) searchers, beyond doubt. improved: studies whose winner beats the reference.

    final: every study has ended and is confirmed; before that nothing is claimed.
    """

    headline: str
    sentences: tuple[str, ...]
    claims: tuple[tuple[str, str], ...]
    improved: tuple[str, ...]
    final: bool


def verdict(campaign: Campaign) -> Verdict:
    """What the campaign shows, at any moment."""
    evidence = judge(campaign)
    ends, found, waiting = list(evidence.ends), list(evidence.pairs), evidence.waiting
    several, told = len(campaign.searchers) > 1, [] if evidence.forbidden or waiting else found
    if waiting:
        headline = f"No verdict yet: {waiting}."
    elif evidence.forbidden:
        headline = f"These studies cannot be compared: they differ in {listed(evidence.forbidden)}."
    else:
        headline = _versus(campaign, ends, found, evidence.claims) if several else _alone(campaign, ends)
    sentences = [_evidence(campaign, ends)]
    if not waiting:
        sentences += [*_failures(campaign, ends), *_pair_sentences(campaign, told)]
        sentences += [*_about_reference(ends, several), *_optimism(campaign, ends), *_longer(campaign)]
    sentences.append(_charges(campaign, told))
    return Verdict(headline, tuple(sentences), evidence.claims, evidence.improved, not waiting)


def _versus(
    campaign: Campaign, ends: list[Final], found: list[Pair], claims: Sequence[tuple[str, str]]
) -> str:
    """The headline for several searchers."""
    if claims:
        return _claimed(campaign, ends, found, claims)
    if any(pair.only and pair.p is not None and pair.p <= ALPHA for pair in found):
        return "No searcher is shown to be better at equal charges."
    if any(_possible(pair, len(found)) for pair in found):
        return "No searcher is shown to be better than another."
    fewest = min(min(map(len, pair.values)) for pair in found)
    return f"Too few studies to say who searched better: {fewest} a searcher cannot show any difference."


def _claimed(
    campaign: Campaign, ends: list[Final], found: list[Pair], claims: Sequence[tuple[str, str]]
) -> str:
    beaten = {name: [b for a, b in claims if a == name] for name in campaign.searchers}
    first = [name for name in beaten if len(beaten[name]) == len(campaign.searchers) - 1]
    if first:
        equal = all(pair.limit for pair in found if first[0] in (pair.first, pair.second))
        said = f"{first[0]} searched better than {listed(beaten[first[0]])}{' at equal charges' if equal else ''}"
        if not any(final.better for final in ends if final.searcher == first[0]):
            return f"{said}, but is not shown to have improved on the reference."
        return f"{said}."
    # searchers that beat the same ones are named together
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, others in beaten.items():
        if others:
            groups.setdefault(tuple(others), []).append(name)
    parts = [f"{listed(names)} searched better than {listed(others)}" for others, names in groups.items()]
    return f"{'; '.join(parts)}. No other difference is shown."


def _possible(pair: Pair, comparisons: int) -> bool:
    """Whether these sizes could show a difference at all."""
    return smallest_p(len(pair.values[0]), len(pair.values[1])) * comparisons <= ALPHA


def _alone(campaign: Campaign, ends: list[Final]) -> str:
    """The headline for one searcher."""
    searcher, kept = campaign.searchers[0], [final for final in ends if final.kept]
    better = [final for final in kept if final.better]
    if not kept:
        return f"{searcher} found nothing that it kept: the reference stands."
    if len(ends) == 1 and better:
        held = share(campaign, better[0].confirmed or 0.0)
        sure = f" (95 % interval {span(campaign, *better[0].interval)})" if better[0].interval else ""
        return f"{searcher} improved on the reference by {held}{sure}."
    if len(ends) == 1:
        return f"{searcher} is not shown to have improved on the reference."
    return f"{searcher} improved on the reference in {len(better)} of {len(ends)} studies."


def _evidence(campaign: Campaign, ends: list[Final]) -> str:
    """What there is to judge by."""
    trials = [len(study.proposals) for study in campaign.studies]
    counts = ", ".join(f"{name} {len(campaign.of(name))}" for name in campaign.searchers)
    kept = [final for final in ends if final.kept]
    seeds = [final.seeds for final in kept if final.seeds]
    again = f"trained again on {spread(seeds)} fresh training seeds" if seeds else "not trained again yet"
    whose = "the winner was" if len(kept) == 1 else "the winners were"
    again = f"{whose} {again}" if kept else "nothing was kept"
    many = count(len(campaign.studies), "study", "studies")
    many += f" ({counts})" if len(campaign.searchers) > 1 else ""
    return f"{many} of {spread(trials)} trial{'' if set(trials) == {1} else 's'}; {again}."


def _failures(campaign: Campaign, ends: list[Final]) -> list[str]:
    """Fresh trainings without a score: what is left is no fair sample."""
    found = []
    for name in campaign.searchers:
        failing = [final for final in ends if final.failed and final.searcher == name]
        if failing:
            runs = sum(final.failed for final in failing)
            of = sum(final.failed + final.seeds for final in failing)
            whose = count(len(failing), "winner", "winners")
            found.append(
                f"{whose} of {name} failed in {runs} of {of} fresh trainings. Those that ended are no fair sample, "
                f"so {name} is not called better by them."
            )
    return found


def _pair_sentences(campaign: Campaign, found: list[Pair]) -> list[str]:
    """What was seen between searchers: each pair while they are few, else what is claimed and the rest as one."""
    possible = any(_possible(pair, len(found)) for pair in found)
    if len(found) <= MOST_PAIRS and possible:
        return [_pair_sentence(campaign, pair, len(found)) for pair in found]
    told = [_pair_sentence(campaign, pair, len(found)) for pair in found if pair.better]
    rest = [pair for pair in found if pair.difference and pair.interval and not pair.better]
    if rest:
        most = max(rest, key=lambda pair: abs(pair.difference or 0.0))
        seen = f"{_seen(campaign, most)}{_why_not(most)}"
        told.append(f"No {'other ' if told else ''}difference is shown; the largest: {seen}.")
    if found and not possible:
        sizes = min((pair.values for pair in found), key=lambda v: smallest_p(len(v[0]), len(v[1])))
        told.append(_too_few(len(sizes[0]), len(sizes[1]), len(found)))
    return told


def _too_few(first: int, second: int, comparisons: int) -> str:
    """What group sizes cannot show, and which could."""
    text = (
        f"{count(first, 'study', 'studies')} against {second} cannot give a p below "
        f"{smallest_p(first, second):.2g}"
    )
    if comparisons > 1:
        text += f", and there are {comparisons} comparisons to correct for"
    enough = studies_needed(ALPHA, comparisons)
    return f"{text}: at least {enough} studies of each searcher are needed for p ≤ {ALPHA:g}."


def _seen(campaign: Campaign, pair: Pair) -> str:
    """A difference with its interval."""
    gap = pair.difference or 0.0
    ahead, behind = (pair.first, pair.second) if gap >= 0 else (pair.second, pair.first)
    size, where = share(campaign, abs(gap)), ""
    if pair.limit:
        where = f" at an equal charge of {duration(pair.limit)}"
    return f"{ahead}'s recipes are on average {size} better than {behind}'s{where}{_interval(campaign, pair)}"


def _pair_sentence(campaign: Campaign, pair: Pair, comparisons: int) -> str:
    if pair.difference is None or pair.p is None or pair.test is None:
        return (
            f"{pair.first} and {pair.second}: fewer than two confirmed studies each, so nothing can be said."
        )
    if not pair.difference:
        return f"{pair.first}'s and {pair.second}'s recipes do not differ at all."
    corrected = f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
    text = f"{_seen(campaign, pair)}, p = {pair.p:.3f}{corrected}"
    if pair.better:
        return f"{text}."
    if pair.p <= ALPHA:
        return f"{text}{_why_not(pair)}."
    if not _possible(pair, comparisons):
        return f"{text}. {_too_few(len(pair.values[0]), len(pair.values[1]), comparisons)}"
    return f"{text}: no difference is shown. {_how_many(pair, comparisons)}"


def _why_not(pair: Pair) -> str:
    """Why a difference that the test sees is not claimed; empty if the test does not see it."""
    if pair.p is None or pair.p > ALPHA or pair.difference is None:
        return ""
    ahead = pair.first if pair.difference >= 0 else pair.second
    if ahead in pair.failing:
        return f"; this is not claimed, since fresh trainings of {ahead}'s recipes failed"
    return (
        f"; this is not claimed, since {ahead} used more seconds, and the recipes that it had at equal seconds "
        "have not been confirmed"
    )


def _how_many(pair: Pair, comparisons: int) -> str:
    """How many studies would show what was seen."""
    deviation = pooled_deviation(pair.values) or 0.0
    needed = studies_for_power(abs(pair.difference or 0.0), deviation, ALPHA / comparisons)
    if needed is None:
        return "If it is as large as it looks, more than 50 studies each would be needed to show it."
    if needed <= min(map(len, pair.values)):
        return "If it is as large as it looks, more fresh training seeds would show it."
    return f"If it is as large as it looks, {needed} studies each would show it in four cases of five."


def _interval(campaign: Campaign, pair: Pair) -> str:
    if pair.interval is None or pair.difference is None:
        return ""
    low, high = pair.interval if pair.difference >= 0 else (-pair.interval[1], -pair.interval[0])
    return f" (95 % interval {span(campaign, low, high)})"


def _about_reference(ends: list[Final], several: bool) -> list[str]:
    """How many winners beat the reference; for one searcher the headline says it."""
    kept = [final for final in ends if final.kept]
    better, none = [final for final in kept if final.better], len(ends) - len(kept)
    if not several and not none:
        return []
    if not kept:
        return [f"None of the {len(ends)} studies kept anything: the reference stands."] if several else []
    text = f"{len(better)} of {count(len(kept), 'winner', 'winners')} beat the reference on fresh seeds beyond doubt"
    return [f"{text}; {count(none, 'study', 'studies')} kept nothing." if none else f"{text}."]


def _optimism(campaign: Campaign, ends: list[Final]) -> list[str]:
    """What the search promised, and what is left of it."""
    known = [final for final in ends if final.optimism is not None]
    if not known:
        return []
    promised = averages.fmean(final.promised or 0.0 for final in known)
    held = averages.fmean(final.confirmed or 0.0 for final in known)
    one = len(known) == 1
    whose, are = ("The winner", "it is") if one else ("On average the winners", "they are")
    seen = f"{whose} looked {compared(campaign, promised)} than the reference in the search"
    if held <= 0:
        return [f"{seen}; on fresh seeds nothing of it is left: {are} {compared(campaign, held)}."]
    return [f"{seen}; on fresh seeds {are} {compared(campaign, held)}."]


def _longer(campaign: Campaign) -> list[str]:
    """Whether gains last where there is more time to train; failures are said, or the rest would pass for all."""
    ends = [final for final in finals(campaign, LONGER) if final.kept]
    held = [final.confirmed for final in ends if final.confirmed is not None]
    failing, when = [final for final in ends if final.failed], "With four times the training time"
    runs, of = sum(final.failed for final in failing), sum(final.failed + final.seeds for final in failing)
    failed = f"{count(len(failing), 'winner', 'winners')} failed in {runs} of {of}"
    if not held:
        return [f"{when} {failed} trainings."] if failing else []
    whose = "the winner is" if len(held) == 1 else f"{len(held)} winners are on average"
    text = f"{when} {whose} {compared(campaign, averages.fmean(held))} than the reference with as much."
    return [f"{text} {failed} such trainings, which are left out of this." if failing else text]


def _charges(campaign: Campaign, found: list[Pair]) -> str:
    """What the searches were charged, and at which charges they are compared."""
    medians = {
        name: averages.median(study.charges.seconds for study in campaign.of(name))
        for name in campaign.searchers
    }
    spent = ", ".join(f"{name} {duration(value)}" for name, value in medians.items())
    if len(medians) == 1:
        many = "in all" if len(campaign.studies) == 1 else "a study, by the median"
        return f"Charged: {duration(*medians.values())} {many}{_dollars(campaign)}."
    equal = max(medians.values()) <= TOLERANCE * min(medians.values())
    text = f"Charged time a study {'is about equal' if equal else 'differs'} (medians: {spent}){_dollars(campaign)}."
    cut, uncut = [pair for pair in found if pair.limit], [pair for pair in found if pair.only]
    text += f" {_named(cut)} compared by the recipes that they had at equal charges." if cut else ""
    if uncut:
        text += f" {_named(uncut)} compared at their ends, where only the thriftier one can be called better."
    return text


def _named(found: list[Pair]) -> str:
    """Pairs as the subject of a sentence."""
    if len(found) > MOST_PAIRS:
        return f"{len(found)} pairs of searchers are"
    return f"{listed([f'{pair.first} with {pair.second}' for pair in found])} {'is' if len(found) == 1 else 'are'}"


def _dollars(campaign: Campaign) -> str:
    spent = {name: sum(s.charges.usd for s in campaign.of(name)) for name in campaign.searchers}
    return "".join(f"; {name} also spent ${value:.2f} in all" for name, value in spent.items() if value)
