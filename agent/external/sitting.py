"""A request's file goes in; the study is brought in order, the proposal decided on and run, and the answer written.

It is the same loop that every searcher is run by, for one trial.
"""

from __future__ import annotations

import time
import traceback
from contextlib import ExitStack
from pathlib import Path

from agent.codec import from_json
from agent.external.chair import Chair
from agent.external.errand import Reply, Request, read, write
from agent.external.settings import Settings
from agent.loop import Loop, StudyFailed
from agent.observers import Observers
from agent.sandbox import SandboxUnavailable
from agent.searchers import external
from agent.searchers.base import SearcherStopped
from agent.spending import over
from agent.study import open_study
from agent.tracking import WandbTracker, composed_config

# what a client is told as it is; anything else is a fault of the lab's, and its traceback is in the log
TOLD = (StudyFailed, SandboxUnavailable, ValueError, RuntimeError)


def sit(folder: Path) -> None:
    """`folder`: runs/<study>/requests/<id>/. Never raises for what a client asked."""
    try:
        reply = _done(from_json(Request, read(folder / "request.json")))
    except SearcherStopped as error:
        reply = Reply(str(error), fault=True)
    except TOLD as error:
        reply = Reply(str(error), fault=True)
        traceback.print_exc()
    except Exception as error:
        write(folder / "answer.json", {"text": f"{type(error).__name__}: {error}", "fault": True})
        raise
    write(folder / "answer.json", {"text": reply.text, "fault": reply.fault, "trial": reply.trial})


def _done(request: Request) -> Reply:
    settings = Settings(Path(request.root), request.words)
    with ExitStack() as stack:
        config = settings.config(request.study)
        loop = open_study(config, settings.root, stack)
        if config.tracker.name == "wandb":
            settings_of = composed_config(loop.workspace.task)
            loop.observers = Observers([WandbTracker(config.tracker.project, loop.folder, settings_of)])
        chair = Chair(loop.ledger, time.time)
        chair.take(request.client, request.take_over)
        if request.asked and (why := over(loop.ledger, loop.ledger.history(), loop.stop.is_set())):
            return Reply(f"the study is over: {why}", fault=True)
        if request.asked:
            _offer(loop, request, chair)
        try:
            return _turn(loop, request.asked)
        finally:
            chair.settle()


def _offer(loop: Loop, request: Request, chair: Chair) -> None:
    """The proposal waits for the loop; what the client thought, and says that it spent, waits to be charged."""
    assert loop.desk is not None
    assert isinstance(loop.searcher, external.External)
    held = chair.holding()
    thought, away = (held.thinking, held.away) if held else (0.0, 0.0)
    usd = float(request.usage.get("usd", 0.0))
    loop.desk.log(
        "external call",
        by=request.client.by,
        seconds=thought,
        away_seconds=away,
        usd=usd,
        claimed=request.usage,
    )
    loop.desk.charge(usd, thought)
    # at once: a process that is killed during the trial would leave it to be charged again
    chair.settle()
    events = loop.ledger.events()
    refused = [(event["trial"], event["reason"]) for event in events if event["event"] == external.REFUSED]
    loop.searcher.offer(
        external.Request(request.given, request.client.by, request.route, request.usage, refused)
    )


def _turn(loop: Loop, asked: bool) -> Reply:
    """The reference, if it has not run, and the proposal, if there is one; and the study's end, if it is over."""
    steps = loop.steps()
    try:
        for trial in steps:
            if trial is not None and (not asked or trial.proposal.route != "reference"):
                if over(loop.ledger, loop.ledger.history(), loop.stop.is_set()):
                    next(steps, None)  # writes down why
                return Reply(trial=trial.number)
        return Reply(fault=asked, text=over(loop.ledger, loop.ledger.history(), loop.stop.is_set()))
    except external.NothingAsked:
        return Reply()
    finally:
        steps.close()
