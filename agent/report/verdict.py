"""A campaign goes in, the verdict comes out: what may be claimed, and plain sentences that say it."""

from __future__ import annotations

import statistics as averages
from collections import Counter
from dataclasses import dataclass

from agent.report.campaign import Campaign
from agent.report.comparison import ALPHA, TOLERANCE, Final, Pair
from agent.report.evidence import count, judge
from agent.report.statistics import pooled_deviation, smallest_p, studies_for_power, studies_needed

SPACE = "\u00a0"  # a number and its unit stay on one line
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
    ends, found = list(evidence.ends), list(evidence.pairs)
    several = len(campaign.searchers) > 1
    if evidence.waiting:
        headline = f"No verdict yet: {evidence.waiting}."
    elif several:
        headline = _versus(campaign, found, list(evidence.claims), list(evidence.forbidden))
    else:
        headline = _alone(campaign, ends)
    sentences = [_evidence(campaign, ends)]
    if several and not evidence.waiting and not evidence.forbidden:
        sentences += _pair_sentences(campaign, found)
    sentences += _about_reference(ends) if several and not evidence.waiting else []
    sentences += [*_optimism(campaign, ends), *_longer(campaign), *_charges(campaign, found)]
    return Verdict(headline, tuple(sentences), evidence.claims, evidence.improved, not evidence.waiting)


def _versus(
    campaign: Campaign, found: list[Pair], claims: list[tuple[str, str]], forbidden: list[str]
) -> str:
    if forbidden:
        return f"These studies cannot be compared: they differ in {_list(forbidden)}."
    best = Counter(better for better, _ in claims)
    everywhere = [name for name, count in best.items() if count == len(campaign.searchers) - 1]
    if everywhere:
        beaten = [b for a, b in claims if a == everywhere[0]]
        equal = all(pair.limit for pair in found if everywhere[0] in (pair.first, pair.second))
        return f"{everywhere[0]} searched better than {_list(beaten)}{' at equal charges' if equal else ''}."
    if claims:
        said = [f"{name} searched better than {_list([b for a, b in claims if a == name])}" for name in best]
        return f"{'; '.join(said)}. Between the others no difference is shown."
    if any(pair.only and pair.p is not None and pair.p <= ALPHA for pair in found):
        return "No searcher is shown to be better at equal charges."
    if any(_possible(pair, len(found)) for pair in found):
        return "No searcher is shown to be better than another."
    fewest = min(min(map(len, pair.values)) for pair in found)
    return f"Too few studies to say who searched better: {fewest} a searcher cannot show any difference."


def _possible(pair: Pair, comparisons: int) -> bool:
    """Whether these sizes could show a difference at all."""
    return smallest_p(len(pair.values[0]), len(pair.values[1])) * comparisons <= ALPHA


def _alone(campaign: Campaign, ends: list[Final]) -> str:
    searcher, kept = campaign.searchers[0], [final for final in ends if final.kept]
    better = [final for final in kept if final.better]
    if not kept:
        return f"{searcher} found nothing that it kept: the reference stands."
    if len(ends) == 1 and better:
        return f"{searcher} improved on the reference by {share(campaign, better[0].confirmed or 0.0)}."
    if len(ends) == 1:
        return f"{searcher} is not shown to have improved on the reference."
    return f"{searcher} improved on the reference in {len(better)} of {len(ends)} studies."


def _evidence(campaign: Campaign, ends: list[Final]) -> str:
    trials = [len(study.proposals) for study in campaign.studies]
    counts = ", ".join(f"{name} {len(campaign.of(name))}" for name in campaign.searchers)
    seeds = sorted({final.seeds for final in ends if final.kept and final.seeds})
    again = f"winners trained again on {_range(seeds)} fresh seeds" if seeds else "no winner confirmed"
    many = count(len(campaign.studies), "study", "studies")
    return f"{many} ({counts}) of {_range(sorted(trials))} trials; {again}."


def _pair_sentences(campaign: Campaign, found: list[Pair]) -> list[str]:
    """What was seen between searchers: each pair while they are few, else what is claimed and the rest as one."""
    if len(found) <= MOST_PAIRS and any(_possible(pair, len(found)) for pair in found):
        return [_pair_sentence(campaign, pair, len(found)) for pair in found]
    told = [_pair_sentence(campaign, pair, len(found)) for pair in found if pair.better]
    rest = [pair for pair in found if pair.difference and pair.interval and not pair.better]
    if rest:
        most = max(rest, key=lambda pair: abs(pair.difference or 0.0))
        told.append(
            f"Of the {'other ' if told else ''}differences none is shown; the largest: {_seen(campaign, most)}."
        )
    if not any(_possible(pair, len(found)) for pair in found):
        sizes = max(found, key=lambda pair: -smallest_p(len(pair.values[0]), len(pair.values[1]))).values
        told.append(_too_few(len(sizes[0]), len(sizes[1]), len(found)))
    return told


def _too_few(first: int, second: int, comparisons: int) -> str:
    """What group sizes cannot show, and which could."""
    least = smallest_p(first, second)
    text = f"{first} against {second} studies cannot give a p below {least:.2g}"
    if comparisons > 1:
        text += f", and there are {comparisons} comparisons to correct for"
    enough = studies_needed(ALPHA, comparisons)
    return f"{text}: at least {enough} studies of each searcher are needed for p ≤ {ALPHA:g}."


def _seen(campaign: Campaign, pair: Pair) -> str:
    """A difference with its interval."""
    gap = pair.difference or 0.0
    ahead, behind = (pair.first, pair.second) if gap >= 0 else (pair.second, pair.first)
    where = f" at equal charges ({duration(pair.limit)})" if pair.limit else ""
    size = share(campaign, abs(gap))
    return f"{ahead}'s recipes are on average {size} better than {behind}'s{where}{_interval(campaign, pair)}"


def _pair_sentence(campaign: Campaign, pair: Pair, comparisons: int) -> str:
    if pair.difference is None or pair.p is None or pair.test is None:
        return (
            f"{pair.first} and {pair.second}: fewer than two confirmed studies each, so nothing can be said."
        )
    text = f"{_seen(campaign, pair)}, p = {pair.p:.3f}"
    text += f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
    if pair.better:
        return f"{text}."
    if pair.p <= ALPHA:
        ahead = pair.first if pair.difference >= 0 else pair.second
        return (
            f"{text}; this is not claimed, since {ahead} used more seconds, and the recipes it had at equal "
            "seconds have not been confirmed."
        )
    if not _possible(pair, comparisons):
        return f"{text}. {_too_few(len(pair.values[0]), len(pair.values[1]), comparisons)}"
    return f"{text}: no difference is shown. {_how_many(pair, comparisons)}"


def _how_many(pair: Pair, comparisons: int) -> str:
    deviation = pooled_deviation(pair.values)
    if not pair.difference or deviation is None:
        return "They do not differ at all."
    needed = studies_for_power(abs(pair.difference), deviation, ALPHA / comparisons)
    if needed is None:
        return (
            "If the true difference is what was seen, more than 50 studies each would be needed to show it."
        )
    return (
        f"If the true difference is what was seen, {needed} studies each would show it in four cases of five."
    )


def _interval(campaign: Campaign, pair: Pair) -> str:
    if pair.interval is None or pair.difference is None:
        return ""
    low, high = pair.interval if pair.difference >= 0 else (-pair.interval[1], -pair.interval[0])
    return f" (95 % interval {span(campaign, low, high)})"


def _about_reference(ends: list[Final]) -> list[str]:
    kept = [final for final in ends if final.kept]
    better, none = [final for final in kept if final.better], len(ends) - len(kept)
    text = f"{len(better)} of {len(ends)} winners beat the reference on fresh seeds"
    return [f"{text}; {none} kept nothing." if none else f"{text}."]


def _optimism(campaign: Campaign, ends: list[Final]) -> list[str]:
    known = [final for final in ends if final.optimism is not None]
    if not known:
        return []
    promised = averages.fmean(final.promised or 0.0 for final in known)
    held = averages.fmean(final.confirmed or 0.0 for final in known)
    whose = "The winner" if len(known) == 1 else "Winners"
    text = f"{whose} looked {share(campaign, promised)} better than the reference in the search"
    if held <= 0:
        return [f"{text}; on fresh seeds nothing of it is left ({share(campaign, held)})."]
    return [f"{text} and {'is' if len(known) == 1 else 'are'} {share(campaign, held)} better on fresh seeds."]


def _longer(campaign: Campaign) -> list[str]:
    reference = campaign.level(campaign.reference_confirmed(LONGER))
    winners = [(s, s.winner.number) for s in campaign.studies if s.winner and s.winner != s.reference]
    levels = [campaign.level(study.confirmed(number, LONGER)) for study, number in winners]
    held = [
        campaign.gain(level, reference) for level in levels if level is not None and reference is not None
    ]
    if not held:
        return []
    whose = "the winner is" if len(held) == 1 else f"{len(held)} winners are on average"
    size = share(campaign, averages.fmean(held))
    return [f"With four times the training time {whose} {size} better than the reference."]


def _charges(campaign: Campaign, found: list[Pair]) -> list[str]:
    medians = {
        name: averages.median(study.charges.seconds for study in campaign.of(name))
        for name in campaign.searchers
    }
    spent = ", ".join(f"{name} {duration(value)}" for name, value in medians.items())
    if len(medians) == 1:
        return [f"Charged: {spent}{_dollars(campaign)}."]
    equal = max(medians.values()) <= TOLERANCE * min(medians.values())
    text = f"Charged seconds a study {'are about equal' if equal else 'differ'} ({spent}){_dollars(campaign)}"
    if equal:
        return [f"{text}."]
    cut = [f"{pair.first} and {pair.second}" for pair in found if pair.limit]
    open_ = [f"{pair.first} and {pair.second}" for pair in found if pair.only]
    said = f"; {_list(cut)} are compared at equal seconds" if cut else ""
    said += (
        f"; {_list(open_)} at their ends, where only the thriftier one can be called better" if open_ else ""
    )
    return [f"{text}{said}."]


def _dollars(campaign: Campaign) -> str:
    spent = {name: sum(s.charges.usd for s in campaign.of(name)) for name in campaign.searchers}
    return "".join(f"; {name} also ${value:.2f}" for name, value in spent.items() if value)


def share(campaign: Campaign, gain: float) -> str:
    """A gain in words: "12.3 %" on a log scale, "0.0123" on a linear one."""
    value = campaign.ratio(gain)
    return f"{_minus(100 * value, '.1f')}{SPACE}%" if campaign.scale == "log" else _minus(value, ".4g")


def span(campaign: Campaign, low: float, high: float) -> str:
    """An interval in words: "−1.2 to 4.5 %"."""
    return f"{share(campaign, low).removesuffix(f'{SPACE}%')} to {share(campaign, high)}"


def duration(seconds: float | None) -> str:
    """Seconds in words: "48 s", "12 min", "3.4 h"."""
    value = seconds or 0.0
    if value < 120:
        return f"{value:.0f}{SPACE}s"
    return f"{value / 60:.0f}{SPACE}min" if value < 7200 else f"{value / 3600:.1f}{SPACE}h"


def _minus(value: float, form: str) -> str:
    text = f"{value:{form}}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def _range(values: list[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
