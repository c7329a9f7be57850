"""The official client over stdio: a whole study of the toy task, disconnects and kills in the middle of trials."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent.external.chair import Chair
from tests.agent.external.place import Caller, Place, caller, proposes, toy_place
from tests.agent.study import accounts

# waits until the test lets it go on
SLOW = {"fault.kind": "gate", "fault.seconds": 60}
BROKEN = {"path": "src/toy/model.py", "old": "import math\n", "new": "import math\nimport nowhere\n"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return toy_place(tmp_path, "budget.trials=2")


def test_a_whole_study(place: Place) -> None:
    anyio.run(_whole_study, place)
    ledger = place.ledger("blue")
    accounts(ledger)
    reference, kept, rejected = ledger.trials()
    assert [reference.proposal.route, reference.proposal.searcher] == ["reference", "external"]
    for trial in (kept, rejected):
        assert [trial.proposal.searcher, trial.proposal.route] == ["external", "mcp"]
        assert trial.proposal.by == "tester 1.2"
    assert ledger.study.get_trials()[1].user_attrs["by"] == "tester 1.2"
    assert kept.verdict is not None
    assert kept.verdict.decision == "kept"
    assert kept.proposal.claimed == {"usd": 0.25, "model": "m"}
    assert kept.charges.usd == 0.25
    assert rejected.outcome is not None
    assert rejected.outcome.status == "rejected"
    assert rejected.outcome.reason.count("try ") == 3
    # the code that failed its first step was run for nothing but its second of compute
    assert rejected.charges.seconds > 0.05
    assert ledger.events()[-1]["event"] == "ended"
    assert ledger.study.user_attrs["chair"] is None  # the client left


async def _whole_study(place: Place) -> None:
    async with caller(place.stdio()) as call:
        assert "start_study or resume_study first" in await call.refused("status")
        assert "expected a short name" in await call.refused("start_study", study="../out")
        assert "the reference as it is" in await call.text("start_study", study="blue")
        assert any("reference 0" in said for said in call.heard)
        assert "exists" in await call.refused("start_study", study="blue")
        better = proposes({"optimizer.lr": 0.1})
        assert "would accept" in await call.text("check_proposal", **better)
        ended = await call("propose_trial", **better, usage={"usd": 0.25, "model": "m"})
        assert ended.structured_content is not None
        assert ended.structured_content["trial"]["verdict"]["decision"] == "kept"
        assert ended.structured_content["recipe"]["overrides"] == {"optimizer.lr": 0.1}
        same = await call.refused("check_proposal", **better)
        assert same == "not accepted: the same configuration and code as trial 1"
        await _lose_a_trial(call)
        late = await call.refused("propose_trial", **proposes({"model.width": 16}))
        assert late == "the study is over: all 2 trials are used"
        assert "all 2 trials are used" in await call.text("status")


async def _lose_a_trial(call: Caller) -> None:
    """Two refusals are free; the third is a trial."""
    first = await call.refused("propose_trial", **proposes({"data.seed": 1}))
    assert "data.seed is locked" in first
    assert "2 more such tries" in first
    second = await call.refused("propose_trial", **proposes(edits=[BROKEN]))
    assert "fails its first step" in second
    assert "No module named 'nowhere'" in second
    third = await call.text("propose_trial", **proposes({"model.colour": 1}))
    assert third.startswith("trial 2 ended: rejected, reverted")


def test_a_disconnect_loses_nothing(place: Place) -> None:
    anyio.run(_disconnects, place)
    ledger = place.ledger("blue")
    accounts(ledger)
    outcomes = [trial.outcome.status for trial in ledger.trials() if trial.outcome]
    assert outcomes == ["completed", "completed", "interrupted", "completed"]
    assert ledger.events()[-1]["event"] == "ended"  # the interrupted one used up no trial


async def _disconnects(place: Place) -> None:
    async with caller(place.stdio(), mode="legacy") as call:
        await call.text("start_study", study="blue")
        async with anyio.create_task_group() as group:
            group.start_soon(_propose, call, SLOW)
            await place.under_way("blue", 1)
            # charged with the trial; what is left here, a killed trial's successor would be charged again
            held = Chair(place.ledger("blue"), time.time).holding()
            assert held is not None
            assert held.thinking == 0.0
            group.cancel_scope.cancel()
    # the client is gone, and with it its server; the trial is not
    assert place.servers() == []
    assert place.workers("blue")
    async with caller(place.stdio()) as call:
        assert "Under way: trial 1" in await call.text("resume_study", study="blue")
        refused = await call.refused("propose_trial", **proposes({"model.width": 16}))
        assert "trial 1: started" in refused
        assert "is under way; wait for it" in refused
        assert "Under way: trial 1" in await call.text("status", wait_seconds=0.3)
        assert "class FeatureMap" in await call.text("read_file", path="src/toy/model.py")
        place.open_gate("blue")
        assert "Under way" not in await call.text("status", wait_seconds=60)
        assert "outcome: completed" in await call.text("look_up_trial", number=1)
        async with anyio.create_task_group() as group:
            group.start_soon(_killed, call)
            await place.under_way("blue", 2)
            os.kill(place.workers("blue")[0], signal.SIGKILL)
        brought_in_order = await call.text("resume_study", study="blue")
        assert "1 of 2 trials are left" in brought_in_order
        assert "Under way" not in brought_in_order
        async with anyio.create_task_group() as group:
            group.start_soon(_propose, call, SLOW | {"model.width": 16})
            await place.under_way("blue", 3)
            place.kill_servers()
            group.cancel_scope.cancel()
    place.open_gate("blue")
    with anyio.fail_after(60):
        while place.workers("blue"):
            await anyio.sleep(0.05)


async def _propose(call: Caller, overrides: dict[str, Any]) -> None:
    await call("propose_trial", **proposes(overrides))


async def _killed(call: Caller) -> None:
    said = await call.refused("propose_trial", **proposes(SLOW | {"model.width": 24}))
    assert "was killed; what it used is charged" in said
