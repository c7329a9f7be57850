"""What the tools say and refuse, asked in one process beside one study of the toy task."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.external.chair import Client
from agent.external.room import Room, Said, Waiting
from agent.external.server import Service
from agent.records import Proposal
from agent.researcher import tools as built_in
from tests.agent.external.place import Place, proposes, toy_place

ME = Client("tester 1.2", "me")


class Seat:
    """A client in the room."""

    def __init__(self, place: Place) -> None:
        self.place, self.room = place, Room(place.settings, "mcp")

    def __call__(self, tool: str, client: Client = ME, **given: Any) -> Said:
        answer = self.room.call(tool, given, client)
        while isinstance(answer, Waiting):
            found = answer.peek()
            if found is not None:
                return found
            time.sleep(0.05)
        return answer

    def text(self, tool: str, client: Client = ME, **given: Any) -> str:
        said = self(tool, client, **given)
        assert not said.fault, said.text
        return said.text

    def refused(self, tool: str, client: Client = ME, **given: Any) -> str:
        said = self(tool, client, **given)
        assert said.fault, said.text
        return said.text


@pytest.fixture(scope="module")
def seat(tmp_path_factory: pytest.TempPathFactory) -> Seat:
    found = Seat(toy_place(tmp_path_factory.mktemp("room"), "budget.trials=3"))
    found.text("start_study", study="blue")
    return found


def test_the_program_has_all_that_the_built_in_researcher_is_told(seat: Seat) -> None:
    told = seat.text("program")
    for part in (
        "You are the researcher of a study",
        "# The program",
        "optimizer.lr: number in [0.001, 1], log scale; reference 0.01",
        "class FeatureMap",
        "Locked keys: data.*",
    ):
        assert part in told
    assert "0 |  |  | 33" in seat.text("history")


def test_files_are_read_from_the_recipes_branch(seat: Seat) -> None:
    assert not (seat.place.root / "runs/blue/workspace").exists()  # nobody is at work
    assert "class FeatureMap" in seat.text("read_file", path="src/toy/model.py")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../ledger.db",
        "src/toy/data.py",
        ".git/config",
        "runs/ledger.db",
        "",
        "src/toy",
        ":train.py",
    ],
)
def test_no_other_file_is_shown(seat: Seat, path: str) -> None:
    said = seat.refused("read_file", path=path)
    assert "neither editable nor readable; there are: src/toy/__init__.py, src/toy/model.py, train.py" in said


def test_memory_outlives_the_call(seat: Seat) -> None:
    assert seat.text("write_scratchpad", text="The rate matters.") == "written"
    assert "shorten it" in seat.refused("write_scratchpad", text="x" * 7000)
    idea = {"hypothesis": "raise the rate", "category": "optimisation", "expected_gain": "10", "cost": "1"}
    assert seat.text("revise_plan", ideas=[idea]) == "written"
    assert "the list is empty" in seat.refused("revise_plan", ideas=[])
    status = seat.text("status")
    assert "The rate matters." in status
    assert "raise the rate" in status


MODEL = "src/toy/model.py"
LONG = built_in.MOST_EDIT_CHARS
REFUSED: dict[str, dict[str, Any]] = {
    "hypothesis is missing": {},
    "expected one of optimisation, other": proposes({"optimizer.lr": 0.1}, category="magic"),
    "not accepted: data.seed is locked (by 'data.*')": proposes({"data.seed": 1}),
    "not accepted: the proposal changes nothing": proposes(),
    "4 changes; phase 'all' allows 3": proposes(
        {"optimizer.lr": 0.1, "optimizer.decay": 0.1, "optimizer.steps": 20, "model.width": 16}
    ),
    "not accepted: optimizer.lr: 7": proposes({"optimizer.lr": 7.0}),
    "the value is not a finite number": proposes({"optimizer.lr": float("nan")}),
    "interpolations are not allowed": proposes({"model.activation": "${oc.env:HOME}"}),
    f"at most {LONG}": proposes(edits=[{"path": MODEL, "old": "import math", "new": "x" * LONG}]),
    "edits of 20011 characters; at most 16384": proposes(
        edits=[{"path": MODEL, "old": "import math", "new": "x" * 20_000}]
    ),
    "src/toy/data.py": proposes(edits=[{"path": "src/toy/data.py", "old": "a", "new": "b"}]),
    "does not occur": proposes(edits=[{"path": MODEL, "old": "nowhere to be found", "new": "b"}]),
    "unknown field 'shell'": proposes({"optimizer.lr": 0.1}, shell="ls"),
    "usage: unknown field 'euros'; it takes model": proposes({"optimizer.lr": 0.1}, usage={"euros": 1}),
    "usage.usd: expected a number from 0": proposes({"optimizer.lr": 0.1}, usage={"usd": -1}),
    "usage: expected object": proposes({"optimizer.lr": 0.1}, usage=3),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_check_refuses_with_the_reason_and_costs_nothing(seat: Seat, words: str) -> None:
    ledger = seat.place.ledger("blue")
    before = ledger.spent()
    assert words in seat.refused("check_proposal", **REFUSED[words])
    assert ledger.spent() == before
    assert len(ledger.trials()) == 1
    assert "refused" not in [event["event"] for event in ledger.events()]


def test_a_check_accepts_what_could_run(seat: Seat) -> None:
    assert (
        seat.text("check_proposal", **proposes({"optimizer.lr": 0.1})) == "propose_trial would accept this."
    )
    edit = {"path": MODEL, "old": "import math\n", "new": "import math\n\n"}
    assert "tried out before the trial" in seat.text("check_proposal", **proposes(edits=[edit]))


def test_a_call_that_is_too_large_starts_nothing(seat: Seat) -> None:
    said = seat.refused("propose_trial", **proposes(hypothesis="x" * 1_000_001))
    assert "at most 1000000 in a call" in said
    assert seat.place.workers("blue") == []


def test_wrong_calls_say_what_to_do(seat: Seat) -> None:
    assert "there is no tool 'shell'; there are start_study, resume_study" in seat.refused(
        "shell", command="ls"
    )
    assert "unknown field 'all'; it takes wait_seconds" in seat.refused("status", all=True)
    assert "expected a number from 0 to 600" in seat.refused("status", wait_seconds=-1)
    assert "there is no trial 7" in seat.text("look_up_trial", number=7)
    assert "not before 50%: propose a trial" in seat.refused("conclude", reason="tired")
    assert "no external study 'red' in the ledger; there are: blue" in seat.refused(
        "resume_study", study="red"
    )
    assert "expected a short name" in seat.refused("start_study", study="-rf")
    assert "study 'blue' exists: call resume_study" in seat.refused("start_study", study="blue")


def test_another_searchers_study_is_out_of_reach(seat: Seat) -> None:
    ledgers = seat.place.settings.ledgers
    ledgers.study("tpe", create=replace(ledgers.study("blue").spec, searcher="tpe"))
    assert "no external study 'tpe'" in seat.refused("resume_study", study="tpe")


def test_the_second_client_is_told_who_holds_the_study(seat: Seat) -> None:
    seat.text("status")
    other = Client("other 3", "other")
    said = seat.refused("resume_study", other, study="blue")
    assert said.startswith("the study is held by tester 1.2, since 20")
    assert "resume_study first" in seat.refused("propose_trial", other, **proposes({"optimizer.lr": 0.1}))
    # one who was there before the chair was lost may look, and do nothing
    seat.room.chosen["other"] = "blue"
    assert "class FeatureMap" in seat.text("read_file", other, path=MODEL)
    for tool, given in {
        "write_scratchpad": {"text": "mine"},
        "propose_trial": proposes({"optimizer.lr": 0.1}),
    }.items():
        assert "held by tester 1.2" in seat.refused(tool, other, **given)
    seat.room.leave("me")
    assert "Recipe" not in seat.text("resume_study", other, study="blue")
    seat.room.leave("other")
    seat.text("resume_study", study="blue")


def test_dollars_are_unknown_where_nobody_says(seat: Seat) -> None:
    assert "unknown to the lab" in seat.text("status")
    said = Proposal(by="tester 1.2")
    assert not said.dollars_known
    assert Proposal(by="tester 1.2", claimed={"usd": 0.0}).dollars_known
    assert Proposal(searcher="tpe").dollars_known


def test_words_of_a_study_that_the_server_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="searcher=tpe: searcher is set for every external study"):
        Service(Place(tmp_path, ("searcher=tpe",)).settings, "0", http=False)
    with pytest.raises(ValueError, match="nonsense"):
        Service(Place(tmp_path, ("nonsense=1",)).settings, "0", http=False)
