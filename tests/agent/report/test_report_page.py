"""The page and the summary: complete, escaped, small and quick, whatever the ledger holds."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from agent.records import Charges, Edit, Outcome
from agent.report.campaign import Campaign, Study, load
from agent.report.files import write
from agent.report.page import page
from agent.report.summary import summary
from tests.agent.report.ledgers import fill
from tests.agent.report.synthetic import FRESH, START, Kind, Maker, ablated

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }} $\\frac{ | `x` \x1b[31m"


class Reader(HTMLParser):
    """Tags that are open at the end, and what a page could load or run."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def made(studies: int = 2, trials: int = 9, **kinds: Kind) -> Campaign:
    maker = Maker(np.random.default_rng(3), trials=trials, curve_points=12)
    return maker.campaign(
        kinds or {"tpe": Kind(gain=0.5, crashes=0.3), "claude": Kind(usd=0.1, route="llm")}, studies
    )


def test_a_campaigns_page_has_every_part() -> None:
    campaign = made()
    maker = Maker(np.random.default_rng(0))
    studies = (
        ablated(maker, campaign.studies[0], {"optimizer.lr": 0.2, "loss.x": 0.0}),
        *campaign.studies[1:],
    )
    text = page(replace(campaign, studies=studies), "made today", {"W&B": "https://wandb.ai/x"}, overlay=True)
    reader = read(text)
    for part in (
        "Too few studies to say who searched better",
        "The race",
        "Who beats whom",
        "What the winners are worth",
        "What each change of tpe-0's recipe is worth",
        "Not shown to be needed, nor to be needless: loss.x",
        "Time to the published levels",
        "How the recipe came to be",
        "Traceback",
        "suits the small batches",
        "made today",
    ):
        assert part in reader.text, part
    trials = [a for tag, a in reader.seen if tag == "details" and (a.get("class") or "").startswith("trial")]
    assert len(trials) == sum(len(study.trials) for study in studies)
    assert len([1 for tag, _ in reader.seen if tag == "svg"]) > len(studies) + 5


def test_one_studys_page() -> None:
    campaign = made(1, tpe=Kind(gain=0.5))
    reader = read(page(campaign, "now"))
    assert re.search(
        r"tpe improved on the reference by \d\d\.\d\s% \(95 % interval \d\d\.\d to \d\d\.\d\s%\)\.",
        reader.text,
    )
    assert "Who beats whom" not in reader.text
    assert "No dollars were spent" in reader.text


def test_nothing_is_loaded_and_no_foreign_script_runs() -> None:
    text = page(made(), "now")
    reader = read(text)
    for _tag, attributes in reader.seen:
        for name in ("src", "srcset", "data", "action"):
            assert name not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    [policy] = [
        a["content"]
        for t, a in reader.seen
        if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(scripts) == 1
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "url(http" not in text
    assert "@import" not in text


def test_what_untrusted_programs_wrote_stays_text() -> None:
    campaign = made(1, trials=5, tpe=Kind(gain=0.5))
    study = campaign.studies[0]
    trials = []
    for trial in study.trials:
        proposal = replace(
            trial.proposal,
            hypothesis=EVIL,
            category=EVIL,
            phase=EVIL,
            edits=(Edit(EVIL, EVIL, EVIL + "\nnew"),),
            overrides={"a.b": EVIL},
        )
        assert trial.outcome is not None
        outcome = replace(trial.outcome, reason=EVIL, log_tail=EVIL)
        trials.append(
            replace(trial, proposal=proposal, outcome=outcome, overrides={"a.b": f"{EVIL}{trial.number}"})
        )
    campaign = replace(campaign, studies=(replace(study, trials=tuple(trials)),), metric="mean <$rank")
    reader = read(page(campaign, "now <i>", overlay=True))
    assert "alert(1)" in reader.text
    assert "{{ 7 * 7 }}" in reader.text
    assert sum(tag == "script" for tag, _ in reader.seen) == 1
    assert not any(tag == "img" for tag, _ in reader.seen)
    assert "\x1b" not in reader.text
    assert "<img" not in summary(campaign).replace("\\<img", "")


def test_links_are_https_only() -> None:
    with pytest.raises(ValueError, match=r"links\.x='javascript:alert\(1\)'"):
        page(made(1), "now", {"x": "javascript:alert(1)"})


def test_honest_marks() -> None:
    campaign = made(1)
    study = campaign.studies[0]
    interrupted = replace(study.trials[2], outcome=Outcome("interrupted", reason="killed"))
    events = [
        *study.events[:-1],
        {"event": "test_read", "time": 1.0, "trial": 3, "metrics": {"mean_rank": 34.3}, "again": False},
        {"event": "test_read", "time": 2.0, "trial": 3, "metrics": {"mean_rank": 31.0}, "again": True},
        {"event": "versions changed", "time": 3.0},
    ]
    spec = replace(study.spec, sandbox="none")
    trials = (*study.trials[:2], interrupted, *study.trials[3:])
    other = replace(study, spec=spec, events=tuple(events), trials=trials)
    text = read(page(replace(campaign, studies=(other, *campaign.studies[1:])), "now")).text
    for mark in (
        "tpe-0: not ended.",
        "tpe-0: no sandbox: the searcher's code could reach the host.",
        "tpe-0: 1 trial interrupted.",
        "tpe-0: test set read 2 times; the first reading is shown.",
        "tpe-0: software or workers changed during the study.",
        "The studies differ in sandbox.",
        "No verdict yet: 1 study has not ended.",
    ):
        assert mark in text, mark
    assert "34.3" in text
    assert "31.0" not in text


@pytest.mark.parametrize("reference", [0.0, -2.5])
def test_a_reference_that_has_no_shares_ends_no_report(reference: float, tmp_path: Path) -> None:
    """An accuracy of 0, a log-likelihood: 80 % of -2.5 would be better, and look worse."""
    campaign = made(1, 6, tpe=Kind())
    [study] = campaign.studies
    first = study.trials[0]
    assert first.outcome is not None
    measured = tuple(replace(item, score=reference) for item in first.outcome.measurements)
    outcome = replace(first.outcome, score=reference, measurements=measured)
    trials = (replace(first, outcome=outcome), *study.trials[1:])
    linear = Campaign((replace(study, trials=trials, events=()),), "linear", "accuracy")
    text = read(page(linear, "now")).text
    assert "the reference's score is not above 0, so it stands in no picture" in text
    assert "in % of the reference;" not in text
    write(linear, tmp_path, "now")
    assert not list((tmp_path / "figures").glob("race-*"))
    assert summary(linear)


def test_a_test_score_of_another_trial_is_not_the_winners() -> None:
    """An external study that was concluded and confirmed may go on, and keep more."""
    [study] = made(1, 9, tpe=Kind()).studies
    assert study.winner is not None
    for number, shown in ((study.winner.number, True), (study.winner.number - 1, False)):
        read_by = {"event": "test_read", "time": 2e5, "trial": number, "metrics": {"mean_rank": 33.125}}
        campaign = Campaign((replace(study, events=(*study.events, {**read_by, "again": False})),))
        text = read(page(campaign, "now")).text
        assert ("33.12" in text) is shown
        assert (f"the test set was read by trial {number}, which is not the winner" in text) is not shown


def test_same_trials_by_different_seeds_are_named() -> None:
    campaign = made(1, playbook=Kind())
    twin = replace(campaign.studies[0], name="playbook-1")
    text = read(page(replace(campaign, studies=(*campaign.studies, twin)), "now")).text
    assert "playbook-0, playbook-1 tried exactly the same" in text


def moments() -> list[Study]:
    """A study as it stands at several moments, from before its first trial on."""
    maker = Maker(np.random.default_rng(3), trials=6)
    whole = maker.study("tpe", 0, Kind(crashes=0.4), maker.noise.measure(maker.random, START, FRESH))
    running = replace(whole.trials[1], outcome=None, verdict=None, charges=Charges(5.0))
    return [
        replace(whole, trials=(), events=()),
        replace(whole, trials=(replace(whole.trials[0], outcome=None, verdict=None),), events=()),
        replace(
            whole, trials=(replace(whole.trials[0], outcome=Outcome("crashed"), verdict=None),), events=()
        ),
        replace(whole, trials=whole.trials[:1], events=()),
        replace(whole, trials=(whole.trials[0], running), events=()),
        replace(whole, events=whole.events[:0]),
        replace(whole, events=whole.events[:2]),
        whole,
    ]


@pytest.mark.parametrize("moment", range(8))
def test_the_report_can_be_made_at_any_moment(moment: int, tmp_path: Path) -> None:
    """Alone, and beside a finished study of another searcher."""
    study = moments()[moment]
    other = made(1, random=Kind()).studies[0]
    ledger = fill(tmp_path / "ledger.db", [study, other])
    for names in ([study.name], [study.name, other.name]):
        campaign = load(ledger, names)
        read(page(campaign, "now", overlay=True))
        assert summary(campaign).startswith("### ")


def test_summary() -> None:
    text = summary(made())
    assert text.startswith("### Too few studies to say who searched better")
    assert "| tpe-0 | 9 |" in text
    assert text.count("\n| ") == 5


def test_ten_studies_of_two_hundred_trials(tmp_path: Path) -> None:
    """Under ten seconds of one core and five megabytes, with long logs; processor time, as machines are shared."""
    maker = Maker(np.random.default_rng(3), trials=200, log_lines=400)
    campaign = maker.campaign(
        {"tpe": Kind(crashes=0.5), "claude": Kind(crashes=0.2, usd=0.1, route="llm")}, 5
    )
    curve = [
        {"fold": float(f), "step": float(s), "loss": 3.0 / (s + 1)} for f in range(3) for s in range(200)
    ]
    ledger = fill(tmp_path / "ledger.db", campaign.studies, curve)
    began = time.process_time()
    write(load(ledger, [s.name for s in campaign.studies]), tmp_path, "now", overlay=True)
    assert time.process_time() - began < 10
    assert 1e6 < (tmp_path / "report.html").stat().st_size < 5e6
    assert (tmp_path / "figures" / "race-seconds-dark.svg").is_file()
