"""Campaigns of the toy task: turns, one shared reference, refusals, a kill at random moments, what a person sees."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from agent.campaign import CampaignError, Entry, ended, entries_of, open_from, studies_of
from agent.campaign_view import CampaignView
from agent.composition import composed_file
from agent.git import Git
from agent.ledger import Ledger
from agent.records import Charges
from agent.searchers.base import Searcher, SearcherStopped
from agent.space import Space
from agent.task import Task
from agent.validation import validate
from scripts import campaign as script
from tests.agent.campaign import NAMES, ledger_of, toy_campaign
from tests.agent.study import accounts

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def order_of(folder: Path, names=NAMES) -> list[tuple[str, int]]:
    """(study, trial) in the order in which they ran; adopted references are none."""
    started = []
    for name in names:
        ledger = ledger_of(folder, name)
        adopted = {event["trial"] for event in ledger.events() if event["event"] == "reference_adopted"}
        frozen = ledger.study.get_trials(deepcopy=False)
        started += [
            (trial.datetime_start, name, trial.number) for trial in frozen if trial.number not in adopted
        ]
    return [(name, number) for _, name, number in sorted(started)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three studies of two trials on one fold, as seen without a terminal."""
    folder, text = tmp_path_factory.mktemp("campaign"), io.StringIO()
    campaign = toy_campaign(
        folder, console=Console(file=text, width=40), loop={n: {"folds": (0,)} for n in NAMES}
    )
    return folder, campaign.run(), text.getvalue()


def test_every_study_uses_its_budget(finished):
    folder, reasons, _ = finished
    assert reasons == dict.fromkeys(reasons, "all 2 trials are used")
    assert set(reasons) == set(NAMES)
    for name in NAMES:
        accounts(ledger_of(folder, name))
        assert ended(ledger_of(folder, name))


def test_studies_take_turns(finished):
    assert order_of(finished[0]) == [
        ("a", 0), ("b", 1), ("c", 1), ("a", 1), ("b", 2), ("c", 2), ("a", 2),
    ]  # fmt: skip


def test_the_reference_is_measured_once_and_charged_to_each(finished):
    folder = finished[0]
    first, *others = [ledger_of(folder, name).reference() for name in NAMES]
    assert first.charges.seconds > 0
    for name, other in zip(NAMES[1:], others, strict=True):
        assert other.outcome == first.outcome
        assert other.charges == first.charges
        assert "in study a" in other.verdict.reason
        [event] = [e for e in ledger_of(folder, name).events() if e["event"] == "reference_adopted"]
        assert event["source"] == "a"
        assert not (folder / "runs" / name / "0000").exists()


def test_an_adopted_reference_is_known_as_such_to_the_loop(tmp_path):
    """A proposal that is the reference itself is a duplicate of the trial that was never run here."""
    same = [{"overrides": {"optimizer.steps": 30}}]
    options = {"a": {"proposals": [], "folds": (0,)}, "b": {"proposals": same, "folds": (0,)}}
    toy_campaign(tmp_path, names=("a", "b"), loop=options).run()
    trial = ledger_of(tmp_path, "b").trials()[1]
    assert (trial.outcome.status, trial.outcome.reason) == (
        "duplicate", "the same configuration and code as trial 0",
    )  # fmt: skip


def test_lines_without_a_terminal(finished):
    lines = finished[2].splitlines()
    assert lines[0].startswith("a    0/2  reference ")
    assert sum("all 2 trials are used" in line for line in lines) == 3
    assert len(lines) == 7 + 3


def test_a_finished_campaign_runs_nothing_again(finished):
    folder, _, _ = finished
    before = order_of(folder)
    reasons = toy_campaign(folder, loop={n: {"folds": (0,)} for n in NAMES}).run()
    assert reasons == dict.fromkeys(NAMES, "had ended")
    assert order_of(folder) == before


def test_in_turn_and_each_with_a_reference_of_its_own(tmp_path):
    loop = {name: {"folds": (0,)} for name in NAMES[:2]}
    toy_campaign(tmp_path, 1, names=NAMES[:2], order="in_turn", share_reference=False, loop=loop).run()
    assert order_of(tmp_path, NAMES[:2]) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"training_seeds": (1, 2)}, "training_seeds"),
        ({"seconds": 31.0}, "budget"),
        ({"folds": (0, 1)}, "folds"),
    ],
)
def test_studies_that_cannot_be_compared_are_refused_before_anything_runs(tmp_path, other, named):
    with pytest.raises(CampaignError, match=f"b has {named} .*campaign=ANOTHER_NAME"):
        toy_campaign(tmp_path, names=("a", "b"), loop={"b": other}).run()
    assert ledger_of(tmp_path, "a").trials() == []


def test_a_commit_between_two_sittings_refuses_the_studies_that_would_start_from_it(tmp_path):
    loop = {name: {"folds": (0,)} for name in NAMES}
    toy_campaign(tmp_path, 1, names=("a",), loop=loop).run()
    root = tmp_path / "repository"
    (root / "src" / "toy" / "model.py").open("a").write("\n# another start\n")
    Git(root / ".git", root, root / ".git")("commit", "-aqm", "Another start")
    with pytest.raises(CampaignError, match="b has commit"):
        toy_campaign(tmp_path, 1, names=("a", "b"), loop=loop).run()


class OutOfCredit(Searcher):
    """A searcher that has to stop when it is first asked."""

    name = "claude"

    def ask(self, history):
        raise SearcherStopped("no credit left")

    def tell(self, trial): ...


def test_a_searcher_that_stops_leaves_and_the_others_go_on(tmp_path):
    campaign = toy_campaign(tmp_path, 1, names=("a", "b"), loop={name: {"folds": (0,)} for name in NAMES})
    opened = campaign.open

    def without_credit(entry, stack, observer):
        loop = opened(entry, stack, observer)
        if entry.name == "a":
            loop.searcher = OutOfCredit()
        return loop

    campaign.open = without_credit
    assert campaign.run() == {
        "a": "the searcher stopped: no credit left",
        "b": "all 1 trials are used",
    }
    assert not ended(ledger_of(tmp_path, "a"))
    assert ledger_of(tmp_path, "a").holder() is None


def test_ctrl_c_stops_all_studies_and_the_campaign_goes_on_later(tmp_path):
    loop = {name: {"folds": (0,)} for name in NAMES[:2]}
    campaign = toy_campaign(tmp_path, names=NAMES[:2], loop=loop)
    told = campaign.view.trial_finished

    def stop_after_the_second(line, trial):
        told(line, trial)
        if line.entry.name == "b":
            campaign.request_stop()

    campaign.view.trial_finished = stop_after_the_second
    assert campaign.run() == {"a": "stopped", "b": "stopped"}
    assert len(order_of(tmp_path, NAMES[:2])) == 2
    assert toy_campaign(tmp_path, names=NAMES[:2], loop=loop).run() == dict.fromkeys(
        "ab", "all 2 trials are used"
    )
    for name in NAMES[:2]:
        accounts(ledger_of(tmp_path, name))


def test_a_kill_between_adoption_and_its_end_charges_nothing_twice(tmp_path):
    """The adopted trial was begun and never ended: it is ended as interrupted, and adopted anew."""
    loop = {name: {"folds": (0,)} for name in NAMES[:2]}
    toy_campaign(tmp_path, 1, names=("a",), loop=loop).run()
    begun = ledger_of(tmp_path, "a").trials()[0]
    campaign = toy_campaign(tmp_path, 1, names=("a", "b"), loop=loop)
    opened = campaign.open

    def with_a_beginning(entry, stack, observer):
        made = opened(entry, stack, observer)
        if entry.name == "b" and not made.ledger.trials():
            made.ledger.start(begun.proposal, owner=made.owner)
        return made

    campaign.open = with_a_beginning
    campaign.run()
    first, second, third = ledger_of(tmp_path, "b").trials()
    assert (first.outcome.status, first.charges.seconds) == ("interrupted", 0)
    assert second.verdict.decision == "reference"
    assert third.outcome.status in ("completed", "diverged")


def test_kill_minus_nine_at_random_moments(tmp_path):
    """The campaign's whole process tree loses its head again and again; in the end the account is right."""
    dice, kills = random.Random(3), 0
    command = [sys.executable, "-m", "tests.agent.campaign", str(tmp_path), "2"]
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd() / 'src'}:{Path.cwd()}"}
    for _ in range(30):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + dice.uniform(1.5, 4)
        while kills < 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        if kills < 2 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        output, _ = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output.decode()
    assert kills == 2
    references = []
    for name in NAMES:
        ledger = ledger_of(tmp_path, name)
        accounts(ledger)
        assert ended(ledger)
        counted = [
            t
            for t in ledger.trials()
            if t.outcome.status != "interrupted" and t.proposal.route != "reference"
        ]
        assert len(counted) == 2
        references.append(ledger.reference().outcome)
    assert references[0] == references[1] == references[2]


def settings(**more):
    return OmegaConf.create(
        {"searchers": ["tpe", "thrifty"], "seeds": [0, 1], "campaign": "c", "order": "interleaved", "studies": [],
         "variants": {"thrifty": ["searcher=claude", "llm=haiku"]}, **more}
    )  # fmt: skip


def test_settings_name_the_studies():
    entries = entries_of(settings())
    assert [entry.name for entry in entries] == ["c-tpe-0", "c-thrifty-0", "c-tpe-1", "c-thrifty-1"]
    assert entries[0].overrides[0] == "searcher=tpe"
    assert entries[1].overrides[:2] == ("searcher=claude", "llm=haiku")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"searchers": []}, "searchers="),
        ({"seeds": [0, 0]}, "seeds=.*different"),
        ({"seeds": ["x"]}, "whole numbers"),
        ({"order": "random"}, "order=random"),
    ],
)
def test_settings_that_make_no_campaign(more, message):
    with pytest.raises(CampaignError, match=message):
        entries_of(settings(**more))


@pytest.mark.parametrize("override", ["searcher=tpe", "seed=3", "study=mine", "+study=mine"])
def test_what_a_campaign_sets_itself_is_refused_on_the_command_line(override):
    with pytest.raises(CampaignError, match="a campaign sets"):
        open_from(CONFIGS.parent, "compare", [override], "smoke")


def test_studies_by_pattern(finished):
    ledger = Ledger.open(f"sqlite:///{finished[0]}/ledger.db")
    assert [s.name for s in studies_of(settings(studies=["[ab]", "b"]), ledger)] == ["a", "b"]
    with pytest.raises(CampaignError, match=r"no study x\*, c-tpe-0|no study x\*"):
        studies_of(settings(studies=["x*"]), ledger)


@pytest.mark.parametrize("name", ["compare", "demo", "confirm", "ablate"])
def test_the_real_settings_compose_for_every_searcher(name):
    outer = composed_file(CONFIGS, name, ["campaign=c", "budget_name=smoke"])
    for entry in entries_of(outer):
        config = composed_file(CONFIGS, name, ["budget_name=smoke", "campaign=c", *entry.overrides])
        plain = OmegaConf.to_container(config, resolve=True)
        assert plain["study"] == entry.name
        assert plain["searcher_name"] == entry.searcher
        assert entry.searcher in plain["searcher"]["_target_"]
        assert not set(plain["confirm"]["seeds"]) & set(plain["training_seeds"])
    task = Task.from_mapping(plain["task"], CONFIGS.parent)
    assert Space.from_mapping(plain["space"], task).defaults["model.logit_scale.max"] == 2
    assert validate(task, {}, dict.fromkeys(task.longer, 4)).arguments


def test_the_table_on_a_terminal_shows_every_study(finished):
    folder, _, _ = finished
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    campaign = toy_campaign(folder, console=console, loop={n: {"folds": (0,)} for n in NAMES})
    for entry in campaign.entries:
        campaign.view.observer(entry).started(ledger_of(folder, entry.name))
    with campaign.view:
        pass
    shown = text.getvalue()
    assert shown.count("2/2") == 3
    assert "6 of 6 trials" in shown


def test_what_a_campaign_says_of_its_tracker_holds_for_its_report():
    """Or a campaign with tracker.name=none would upload its table, where there is a key."""
    words = ["tracker.name=none", "tracker.project=mine", "budget_name=demo"]
    told = script.told(composed_file(CONFIGS, "demo", words), "runs/demo")
    report = composed_file(CONFIGS, "report", told)
    assert (report.tracker.name, report.tracker.project) == ("none", "mine")
    assert report.studies[0] == "demo-random-0"


@pytest.mark.parametrize("width", [80, 120])
def test_names_and_figures_are_whole_on_any_terminal_and_the_total_is_known_from_the_start(width: int):
    entries = [Entry(f"compare-cpu-{searcher}-0", searcher, 0, ()) for searcher in ("random", "playbook")]
    text = io.StringIO()
    view = CampaignView(Console(file=text, force_terminal=True, width=width), entries, 8)
    line = view.lines["compare-cpu-playbook-0"]
    line.used, line.best, line.reference, line.spent = 3, 140.8, 179.2, Charges(4000.0)
    line.last, line.state = "interrupted: the study was stopped", "trial 4: seed 0, fold 1 of 1"
    with view:
        pass
    row = next(row for row in text.getvalue().splitlines() if "compare-cpu-playbook-0" in row)
    for whole in ("3/8", "140.80", "−21.4%", "1:06:40", "interr", "trial 4"):
        assert whole in row
    assert "3 of 16 trials" in text.getvalue()


STEP = """
import sys, time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1.0)  # what is under way is stopped, charged and noted
    print("in order", flush=True)
    sys.exit(3)
"""


def test_an_interrupt_leaves_the_script_under_way_its_time(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "one.py").write_text(STEP)
    program = f"import pathlib; from scripts import campaign; campaign.ROOT = pathlib.Path({str(tmp_path)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}; campaign.step('A step.', 'one', [])"],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.communicate(timeout=30)[0] == "in order\n"
    assert process.returncode == 3
