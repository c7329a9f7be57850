"""The verdict against campaigns whose truth is known: as real ledgers, and in large numbers for the rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.report.campaign import Campaign, Study, load
from agent.report.comparison import differing, finals, pairs, to_confirm
from agent.report.evidence import judge
from agent.report.verdict import Verdict, verdict
from agent.report.words import compared, share, span
from tests.agent.report.ledgers import fill
from tests.agent.report.synthetic import Kind, Maker

# truth -> (searchers, the claim that is right; None: no claim is)
TRUTHS: dict[str, tuple[dict[str, Kind], tuple[str, str] | None]] = {
    "no difference": ({"tpe": Kind(), "random": Kind()}, None),
    "a large one": ({"tpe": Kind(gain=0.8), "random": Kind()}, ("tpe", "random")),
    "only lucky in the search": ({"tpe": Kind(promised=0.4), "random": Kind()}, None),
    "crashes": ({"tpe": Kind(crashes=0.6), "random": Kind()}, None),
    # twice the seconds, and better only in the second half of them
    "unequal charges": (
        {"tpe": Kind(gain=0.6, seconds=120, late=True), "random": Kind()},
        ("random", "tpe"),
    ),
}


def made(seed: int, kinds: dict[str, Kind], studies: int = 5, trials: int = 6) -> Campaign:
    return Maker(np.random.default_rng([4, seed]), trials=trials).campaign(kinds, studies)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Verdict]]:
    """Ten campaigns for each truth, written to ledgers and read back: what the report says of them."""
    found: dict[str, list[Verdict]] = {}
    folder = tmp_path_factory.mktemp("ledgers")
    for place, (name, (kinds, _)) in enumerate(TRUTHS.items()):
        campaigns = [_named(f"{seed}-", made(100 * place + seed, kinds, 4, trials=3)) for seed in range(10)]
        ledger = fill(folder / f"{place}.db", [study for c in campaigns for study in c.studies])
        found[name] = [verdict(load(ledger, [s.name for s in c.studies])) for c in campaigns]
    return found


def _named(prefix: str, campaign: Campaign) -> Campaign:
    return replace(campaign, studies=tuple(replace(s, name=prefix + s.name) for s in campaign.studies))


@pytest.mark.parametrize("truth", TRUTHS)
def test_fifty_ledgers_with_a_known_truth(truth: str, verdicts: dict[str, list[Verdict]]) -> None:
    right = TRUTHS[truth][1]
    said = verdicts[truth]
    assert all(v.final for v in said)
    if right:
        assert sum(v.claims == (right,) for v in said) >= 9
        where = " at equal charges" if truth == "unequal charges" else ""
        headline = f"{right[0]} searched better than {right[1]}{where}."
        assert all(v.headline == headline for v in said if v.claims)
    claims = [claim for v in said for claim in v.claims if claim != right]
    # one of ten at most here; the rate is measured below
    assert len(claims) <= 1
    assert all(bool(v.claims) == ("searched better" in v.headline) for v in said)


NOTHING: dict[str, dict[str, Kind]] = {
    "two": {"a": Kind(), "b": Kind()},
    "three": {"a": Kind(), "b": Kind(), "c": Kind()},
    "unequal spread": {"a": Kind(between=0.0), "b": Kind(between=0.15)},
    "lucky": {"a": Kind(promised=0.4), "b": Kind()},
    "unequal charges": {"a": Kind(seconds=100.0, early=True), "b": Kind(early=True)},
    "nothing works": {"a": Kind(gain=0.0, between=0.0, promised=0.3), "b": Kind(gain=0.0, between=0.0)},
}


def test_false_claims_are_at_most_one_in_twenty() -> None:
    """60 campaigns of 4 or 6 studies in each of six worlds without a difference; 2.5 standard errors."""
    claims = dict.fromkeys(NOTHING, 0)
    improved = 0
    for name, kinds in NOTHING.items():
        for seed in range(60):
            found = judge(made(seed, kinds, 4 if seed % 2 else 6, trials=3))
            claims[name] += bool(found.claims)
            improved += bool(found.improved) and name == "nothing works"
    assert sum(claims.values()) <= _most(60 * len(NOTHING)), claims
    assert max(claims.values()) <= _most(60), claims
    assert improved <= _most(60)


def test_what_studies_share_is_not_known_to_the_last_digit() -> None:
    """Two searchers without chance in them: all studies of one end with the same recipe, measured once.

    No two of the 60 pairs of recipes differ in truth. Counted as five measurements of one value each, nearly
    every pair would be told apart.
    """
    claims = 0
    for seed in range(60):
        once = made(seed, {"a": Kind(between=0.0), "b": Kind(between=0.0)}, 1, trials=3)
        copies = [replace(s, name=f"{s.name}-{copy}") for s in once.studies for copy in range(5)]
        found = judge(replace(once, studies=tuple(copies)))
        claims += bool(found.claims)
        [pair] = found.pairs
        assert pair.interval
        assert pair.interval[0] < pair.difference < pair.interval[1]  # type: ignore[operator]
    assert claims <= _most(60)


def test_shared_recipes_that_truly_differ_are_told_apart() -> None:
    once = made(3, {"a": Kind(gain=0.6), "b": Kind(gain=0.1)}, 1, trials=3)
    copies = [replace(s, name=f"{s.name}-{copy}") for s in once.studies for copy in range(5)]
    assert judge(replace(once, studies=tuple(copies))).claims == (("a", "b"),)


def _most(count: int) -> float:
    return 0.05 * count + 2.5 * (0.05 * 0.95 * count) ** 0.5


def test_lucky_search_is_named() -> None:
    said = verdict(made(1, {"tpe": Kind(gain=0.0, between=0.0, promised=0.4)}, studies=1))
    assert said.headline == "tpe is not shown to have improved on the reference."
    assert any("looked 3" in s and "fresh seeds" in s for s in said.sentences)
    assert not said.improved


def test_too_few_studies_say_how_many_it_takes() -> None:
    said = verdict(made(2, {"tpe": Kind(gain=0.8), "random": Kind()}, studies=3))
    assert said.headline.startswith("Too few studies to say who searched better")
    assert "3 studies against 3 cannot give a p below 0.1: at least 4 studies" in " ".join(said.sentences)
    assert not said.claims


def test_small_difference_says_how_many_studies_would_show_it() -> None:
    said = verdict(made(3, {"tpe": Kind(gain=0.36), "random": Kind()}, studies=5))
    assert said.headline == "No searcher is shown to be better than another."
    assert any("studies each would" in sentence for sentence in said.sentences)


def test_more_seconds_are_compared_at_equal_seconds() -> None:
    """What had more is cut to what the other had; without a confirmation there, it cannot be called better."""
    maker = Maker(np.random.default_rng(5), trials=8)
    campaign = maker.campaign({"tpe": Kind(gain=0.8, seconds=120, late=True), "random": Kind()}, 5)
    [pair] = pairs(campaign)
    assert pair.p is not None
    assert pair.p < 0.05
    assert (pair.only, pair.better) == ("random", None)
    said = verdict(campaign)
    assert not said.claims
    assert said.headline == "No searcher is shown to be better at equal charges."
    assert "used more seconds" in " ".join(said.sentences)
    wanted = to_confirm(campaign)
    assert all(len(wanted[s.name]) == 2 for s in campaign.of("tpe"))
    assert all(len(wanted[s.name]) == 1 for s in campaign.of("random"))
    confirmed = [_confirm(maker, s, wanted[s.name], gain=0.75) for s in campaign.studies]
    [pair] = pairs(replace(campaign, studies=tuple(confirmed)))
    assert pair.limit is not None
    assert pair.better == "tpe"
    assert "at equal charges" in verdict(replace(campaign, studies=tuple(confirmed))).headline


def _confirm(maker: Maker, study: Study, trials: list[int], gain: float) -> Study:
    """The study with its earlier recipe confirmed too."""
    assert study.winner is not None
    event = next(e for e in study.events if e["event"] == "confirmed" and e["role"] == "winner")
    measured = maker.noise.measure(maker.random, np.log(340) - gain, (100, 101, 102, 103, 104))
    data = [vars(m) | {"metrics": {}} for m in measured]
    earlier = [t for t in trials if t != study.winner.number]
    return replace(
        study, events=(*study.events, *({**event, "trial": t, "measurements": data} for t in earlier))
    )


def test_a_recipe_at_equal_seconds_that_fails_on_fresh_seeds_is_not_called_better() -> None:
    maker = Maker(np.random.default_rng(5), trials=8)
    campaign = maker.campaign({"tpe": Kind(gain=0.8, seconds=120, late=True), "random": Kind()}, 5)
    wanted = to_confirm(campaign)
    confirmed = [_confirm(maker, s, wanted[s.name], gain=0.75) for s in campaign.studies]
    first = confirmed[0]
    assert first.winner is not None
    [earlier] = set(wanted[first.name]) - {first.winner.number}
    said = verdict(replace(campaign, studies=(_failing(first, 104, trial=earlier), *confirmed[1:])))
    assert not said.claims
    assert "since fresh trainings of tpe's recipes failed" in " ".join(said.sentences)
    # its last winner never failed, and is better than the reference all the same
    assert first.name in said.improved


def test_the_thrifty_one_may_be_called_better() -> None:
    kinds = {"dear": Kind(gain=0.1, seconds=200, late=True), "thrifty": Kind(gain=0.7)}
    assert verdict(made(6, kinds)).claims == (("thrifty", "dear"),)


def test_nothing_is_claimed_before_the_end() -> None:
    campaign = made(7, {"tpe": Kind(gain=0.8), "random": Kind()})
    assert verdict(campaign).claims
    running = replace(campaign.studies[0], events=campaign.studies[0].events[:-1])
    said = verdict(replace(campaign, studies=(running, *campaign.studies[1:])))
    assert said.headline == "No verdict yet: 1 study has not ended."
    assert not said.claims
    unconfirmed = tuple(replace(s, events=s.events[-1:]) for s in campaign.studies)
    said = verdict(replace(campaign, studies=unconfirmed))
    assert said.headline == "No verdict yet: nothing has been trained again on fresh seeds."
    assert not said.claims


def test_a_half_done_confirmation_waits() -> None:
    campaign = made(7, {"tpe": Kind(gain=0.8), "random": Kind()})
    first = campaign.studies[0]
    assert first.winner is not None
    plan = {"event": "confirming", "time": 9e4, "trials": [0, first.winner.number], "budget_factors": [1, 4]}

    def planned(*seeds: int) -> Verdict:
        study = replace(first, events=({**plan, "seeds": list(seeds)}, *first.events))
        return verdict(replace(campaign, studies=(study, *campaign.studies[1:])))

    assert planned(100, 101, 102, 103, 104).claims == (("tpe", "random"),)
    # one more seed for the reference and the winner under both budgets
    said = planned(100, 101, 102, 103, 104, 105)
    assert not said.claims
    assert said.headline == (
        "No verdict yet: the confirmation of 1 study is not done, with 4 of its 24 trainings still to come."
    )
    assert not any("better" in sentence for sentence in said.sentences)


def test_a_seed_that_lacks_folds_is_still_to_come() -> None:
    campaign = made(7, {"tpe": Kind(gain=0.8)}, studies=1)
    [study] = campaign.studies
    assert study.winner is not None
    number, events = study.winner.number, []
    for event in study.events:
        if event["event"] == "confirmed" and event["trial"] == number and event["budget_factor"] == 1:
            event = {**event, "measurements": event["measurements"][:-1]}
        events.append(event)
    seeds = [100, 101, 102, 103, 104]
    plan = {"event": "confirming", "time": 9e4, "trials": [0, number], "seeds": seeds, "budget_factors": [1]}
    cut = replace(study, events=(plan, *events))
    assert cut.open_confirmations == (1, 10)
    assert {item.seed for item in cut.confirmed(number)} == {100, 101, 102, 103}


def _failing(study: Study, *seeds: int, factor: int = 1, trial: int | None = None) -> Study:
    """The study, its winner or another trial diverged on some of the fresh seeds."""
    events: list[Mapping[str, Any]] = []
    assert study.winner is not None
    number = study.winner.number if trial is None else trial
    for event in study.events:
        if event["event"] == "confirmed" and (event["trial"], event["budget_factor"]) == (number, factor):
            why = {"fold": 1, "status": "diverged", "reason": "loss is nan at step 3"}
            left = [item for item in event["measurements"] if item["seed"] not in seeds]
            events += [{**event, "measurements": [], "failed": {**why, "seed": seed}} for seed in seeds]
            event = {**event, "measurements": left}
        events.append(event)
    return replace(study, events=tuple(events))


@pytest.mark.parametrize("seeds", [(104,), (100, 101, 102, 103, 104)])
def test_who_fails_on_fresh_seeds_is_not_called_better(seeds: tuple[int, ...], tmp_path: Path) -> None:
    campaign = made(2, {"tpe": Kind(gain=0.8), "random": Kind()})
    assert verdict(campaign).claims == (("tpe", "random"),)
    studies = (_failing(campaign.studies[0], *seeds), *campaign.studies[1:])
    read = load(fill(tmp_path / "ledger.db", studies), [study.name for study in studies])
    said = verdict(read)
    assert said.final
    assert not said.claims
    assert f"1 winner of tpe failed in {len(seeds)} of 5 fresh trainings." in " ".join(said.sentences)
    assert "since fresh trainings of tpe's recipes failed" in " ".join(said.sentences)
    assert campaign.studies[0].name not in said.improved
    # what the other one failed at takes nothing from the claim
    studies = (*campaign.studies[:-1], _failing(campaign.studies[-1], *seeds))
    assert verdict(replace(campaign, studies=studies)).claims == (("tpe", "random"),)


def test_sentences_at_the_edges() -> None:
    kinds = {"tpe": Kind(gain=-0.1, between=0.01, promised=0.4), "random": Kind(gain=0.0, between=0.0)}
    said = verdict(made(6, kinds))
    assert said.headline == (
        "random searched better than tpe, but is not shown to have improved on the reference."
    )
    assert " worse" in " ".join(said.sentences)
    names = dict.fromkeys("abc", Kind(seconds=60)) | {"dear": Kind(gain=0.0, between=0.0, seconds=90)}
    said = verdict(made(3, names, studies=2))
    assert "and b and" not in " ".join(said.sentences)
    both = verdict(_keeping_nothing(made(2, {"tpe": Kind(), "random": Kind()})))
    assert "tpe's and random's recipes do not differ at all." in both.sentences
    assert "None of the 10 studies kept anything: the reference stands." in both.sentences


def _keeping_nothing(campaign: Campaign) -> Campaign:
    def reverted(study: Study) -> Study:
        trials = [
            replace(t, verdict=replace(t.verdict, decision="reverted"))
            if t.verdict and t.verdict.decision == "kept"
            else t
            for t in study.trials
        ]
        return replace(study, trials=tuple(trials))

    return replace(campaign, studies=tuple(map(reverted, campaign.studies)))


def test_no_minus_before_a_zero() -> None:
    campaign = made(1, {"tpe": Kind()}, studies=1)
    assert share(campaign, -0.0001).replace("\u00a0", " ") == "0.0 %"
    assert share(replace(campaign, scale="linear"), -0.0) == "0"
    assert span(campaign, -0.0101, 0.0).replace("\u00a0", " ") == "−1.0 to 0.0 %"
    assert [compared(campaign, gain)[-6:] for gain in (0.2, -0.2, 0.0)] == ["better", " worse", "better"]
    assert compared(campaign, -0.00001) == "no better"


def test_confirmation_on_the_searchs_own_seeds_does_not_count() -> None:
    campaign = made(8, {"tpe": Kind(gain=0.8), "random": Kind()})
    reused = replace(campaign.studies[0].spec, training_seeds=(0, 100, 101, 102, 103, 104))
    study = replace(campaign.studies[0], spec=reused)
    found = finals(replace(campaign, studies=(study,)))
    assert found[0].confirmed is None


def test_different_budgets_forbid_a_claim() -> None:
    campaign = made(9, {"tpe": Kind(gain=0.8), "random": Kind()})
    specs = [replace(s.spec, budget=replace(s.spec.budget, seconds=40.0)) for s in campaign.of("tpe")]
    changed = [replace(s, spec=spec) for s, spec in zip(campaign.of("tpe"), specs, strict=True)]
    said = verdict(replace(campaign, studies=(*changed, *campaign.of("random"))))
    assert "cannot be compared: they differ in seconds a trial" in said.headline
    assert not said.claims


def test_different_tasks_are_refused() -> None:
    campaign = made(10, {"tpe": Kind(), "random": Kind()}, studies=1)
    other = replace(campaign.studies[0], spec=replace(campaign.studies[0].spec, task="toy"))
    with pytest.raises(ValueError, match="studies differ in task \\(eclip, toy\\)"):
        replace(campaign, studies=(other, campaign.studies[1]))
    with pytest.raises(ValueError, match="at least one study"):
        replace(campaign, studies=())


def test_a_study_that_keeps_nothing_ends_at_the_reference(tmp_path: Path) -> None:
    campaign = made(11, {"tpe": Kind(gain=0.7), "random": Kind()})
    first = campaign.of("random")[0]
    campaign = replace(
        campaign,
        studies=(*_keeping_nothing(replace(campaign, studies=(first,))).studies, *campaign.of("tpe")),
    )
    read = load(fill(tmp_path / "ledger.db", campaign.studies), [s.name for s in campaign.studies])
    final = finals(read)[0]
    assert (final.kept, final.confirmed, final.p) == (False, 0.0, None)


def test_failures_on_the_longer_budget_are_said() -> None:
    """Those that are left would look like all of them."""
    campaign = made(2, {"tpe": Kind(gain=0.8), "random": Kind()})

    def longer(*studies: Study) -> str:
        said = verdict(replace(campaign, studies=(*studies, *campaign.studies[len(studies) :])))
        return " ".join(said.sentences)

    assert "With four times the training time 10 winners are on average" in longer()
    assert "failed" not in longer()
    seeds = (100, 101, 102, 103, 104)
    found = longer(
        _failing(campaign.studies[0], 104, factor=4), _failing(campaign.studies[1], *seeds, factor=4)
    )
    assert "With four times the training time 9 winners are on average" in found
    assert "2 winners failed in 6 of 10 such trainings, which are left out of this." in found
    assert longer(*(_failing(s, *seeds, factor=4) for s in campaign.studies)).count("winner") >= 1
    everyone = [_failing(study, *seeds, factor=4) for study in campaign.studies]
    assert "With four times the training time 10 winners failed in 50 of 50 trainings." in longer(*everyone)


@pytest.mark.parametrize(("detail", "said"), [("folds", "folds"), ("space", "the search space")])
def test_other_folds_forbid_a_claim_and_other_spaces_are_said(detail: str, said: str) -> None:
    campaign = made(9, {"tpe": Kind(gain=0.8), "random": Kind()})

    def other(study: Study, value: object) -> Study:
        return replace(study, spec=replace(study.spec, details={**study.spec.details, detail: value}))

    assert said not in differing(campaign)
    studies = [other(study, [0] if study in campaign.of("tpe") else [0, 1]) for study in campaign.studies]
    mixed = replace(campaign, studies=tuple(studies))
    assert differing(mixed)[said] is (detail == "folds")
    assert bool(verdict(mixed).claims) is (detail == "space")


def test_studies_from_different_code_are_not_compared() -> None:
    """One reference is measured for all: it must be everyone's."""
    campaign = made(9, {"tpe": Kind(gain=0.8), "random": Kind()})
    first = campaign.studies[0]
    trials = (replace(first.trials[0], commit="f" * 40), *first.trials[1:])
    mixed = replace(campaign, studies=(replace(first, trials=trials), *campaign.studies[1:]))
    assert "they differ in the commit they started from" in verdict(mixed).headline
    assert not verdict(mixed).claims
