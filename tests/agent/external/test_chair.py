"""Who holds a study, for how long, and what of the time between calls is thinking."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.external.chair import AWAY_SECONDS, LEASE_SECONDS, Chair, Client, Occupied
from agent.ledger import Owner
from tests.agent.scripted import ScriptedStudy

HERE = str(Owner.here())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study(tmp_path: Path) -> ScriptedStudy:
    return ScriptedStudy(tmp_path / "ledger.db")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chair(study: ScriptedStudy, clock: Clock) -> Chair:
    return Chair(study.ledger, clock)


def client(name: str = "one", owner: str = HERE, seat: str = "") -> Client:
    return Client(f"{name} 1", seat or name, owner)


def test_it_is_taken_once(chair: Chair, clock: Clock) -> None:
    chair.take(client())
    clock.now += 60
    with pytest.raises(
        Occupied, match=r"held by one 1, since 1970-01-01 .*last heard at .*30 minutes of silence"
    ):
        chair.take(client("two"))
    assert chair.take(client()).since == 1000.0


def test_it_is_free_when_it_was_left(chair: Chair) -> None:
    chair.take(client())
    chair.leave("two")
    assert chair.holding() is not None
    chair.leave("one")
    assert chair.take(client("two")).client.by == "two 1"


def test_it_is_free_after_a_long_silence_but_not_during_a_trial(
    chair: Chair, clock: Clock, study: ScriptedStudy
) -> None:
    chair.take(client())
    clock.now += LEASE_SECONDS + 1
    study.begin()  # this process is at work on the study
    with pytest.raises(Occupied):
        chair.take(client("two"))
    study.ledger.release(study.owner)
    assert chair.take(client("two")).client.seat == "two"


def test_it_is_free_when_the_holders_process_is_gone(chair: Chair) -> None:
    process = subprocess.Popen(["sleep", "60"])
    owner = Owner.of(process.pid)
    chair.take(client(owner=str(owner)))
    with pytest.raises(Occupied):
        chair.take(client("two"))
    process.kill()
    process.wait()
    chair.take(client("two"))


def test_only_ones_own_name_may_be_followed(chair: Chair) -> None:
    chair.take(client(seat="old"))
    with pytest.raises(Occupied, match="take_over=true"):
        chair.take(client(seat="new"))
    with pytest.raises(Occupied):
        chair.take(client("two"), take_over=True)
    assert chair.take(client(seat="new"), take_over=True).client.seat == "new"
    with pytest.raises(Occupied):
        chair.heard(client(seat="old"))


def test_thinking_is_the_time_between_answer_and_call_and_absence_is_not(chair: Chair, clock: Clock) -> None:
    chair.take(client())
    clock.now += 20  # thinks
    chair.heard(client())
    clock.now += 5  # the tool is at work
    chair.answered(client())
    clock.now += AWAY_SECONDS + 50  # who thinks longer does not think for less
    chair.heard(client())
    chair.answered(client())
    clock.now += 7
    held = chair.heard(client())
    assert (held.thinking, held.away) == (27.0 + AWAY_SECONDS, 50.0)
    chair.settle()
    held = chair.heard(client())
    assert (held.thinking, held.away) == (0.0, 0.0)


def test_nobody_is_waited_for_while_a_trial_is_under_way(
    chair: Chair, clock: Clock, study: ScriptedStudy
) -> None:
    chair.take(client())
    study.begin()
    clock.now += 100
    assert chair.heard(client()).thinking == 0.0
