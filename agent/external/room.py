"""A call of a client enters: a tool's name and its input. What the tool says leaves, or an errand that is under way.

MCP and the shell come here, so what one is told, allowed and refused, the other is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.external import texts, tools
from agent.external.chair import Chair, Client, running
from agent.external.errand import Errand, Reply, Request, at_work
from agent.external.settings import Settings
from agent.external.visit import Visit
from agent.ledger import LedgerError
from agent.researcher.hygiene import clean, one_line, unmarked
from agent.researcher.memory import Memory
from agent.researcher.toolbox import Concluded, Planned, Toolbox
from agent.searchers.external import NAME, toolbox

MOST_WAIT = 600.0
MOST_CHARS = 1_000_000


@dataclass(frozen=True)
class Said:
    """A tool's answer. fault: it was refused. data: the same as JSON, where there is more to say than text."""

    text: str
    fault: bool = False
    data: Mapping[str, Any] | None = None


@dataclass
class Waiting:
    """A call that has no answer yet. `peek` gives it, or None; `progress` says in a line what is going on."""

    peek: Callable[[], Said | None]
    progress: Callable[[], str]


@dataclass
class Room:
    """All studies of one server or shell. `chosen`: the study at which each seat works."""

    settings: Settings
    route: str
    now: Callable[[], float] = time.time
    chosen: dict[str, str] = field(default_factory=dict)

    def call(self, name: str, given: Mapping[str, Any], client: Client) -> Said | Waiting:
        """Never raises for what a client asked."""
        opening = {"start_study": self._start, "resume_study": self._resume}
        try:
            if own := next((tool for tool in tools.OWN if tool["name"] == name), None):
                tools.optional(own["input_schema"], given, name)
            if name in opening:
                return opening[name](given, client)
            if name not in (known := tools.names()):
                raise ValueError(f"there is no tool {one_line(name, 60)!r}; there are {', '.join(known)}")
            visit = self.visit(client)
            chair = Chair(visit.ledger, self.now)
            if name not in tools.READING or _sits(chair, client):
                chair.heard(client)
            answer = self._answer(name, given, client, visit)
            if isinstance(answer, Said):
                chair.answered(client)
            return answer
        except (ValueError, RuntimeError) as error:
            return Said(unmarked(clean(str(error), 4000)), fault=True)

    def visit(self, client: Client) -> Visit:
        """The study at which the client works. Raises RuntimeError where it has chosen none."""
        study = self.chosen.get(client.seat)
        if study is None:
            known = ", ".join(self.settings.studies()) or "none yet"
            raise RuntimeError(
                f"call start_study or resume_study first; studies that can be resumed: {known}"
            )
        return self.visit_of(study)

    def visit_of(self, study: str) -> Visit:
        """Raises LedgerError for a study that is not there, or is another searcher's."""
        self.settings.require_external(study)
        return Visit(self.settings.config(study), self.settings.root, self.settings.ledgers, study)

    def leave(self, seat: str) -> None:
        """A client has gone for good: its study is free at once."""
        study = self.chosen.pop(seat, None)
        if study in self.settings.ledgers.studies():
            Chair(self.settings.ledgers.study(study), self.now).leave(seat)

    def _start(self, given: Mapping[str, Any], client: Client) -> Waiting:
        study = given.get("study") or self.settings.default
        self.settings.folder(study)
        if study in self.settings.ledgers.studies():
            raise LedgerError(f"study {study!r} exists: call resume_study, or take another name")
        self.settings.keep(study)
        self.chosen[client.seat] = study
        return self._errand(study, client)

    def _resume(self, given: Mapping[str, Any], client: Client) -> Said | Waiting:
        study, take_over = given.get("study") or self.settings.default, bool(given.get("take_over"))
        visit = self.visit_of(study)
        Chair(visit.ledger, self.now).take(client, take_over)
        self.chosen[client.seat] = study
        left_behind = any(trial.outcome is None for trial in visit.ledger.trials())
        if (left_behind or visit.ledger.best() is None) and not _busy(visit):
            return self._errand(study, client)
        return _status(visit)

    def _errand(self, study: str, client: Client, **more: Any) -> Waiting:
        settings = self.settings
        request = Request(str(settings.root), settings.words, study, client, self.route, **more)
        errand = Errand.start(settings.folder(study), request)

        def peek() -> Said | None:
            reply = errand.peek()
            return None if reply is None else self._ended(study, client, reply)

        return Waiting(peek, lambda: self._progress(study))

    def _ended(self, study: str, client: Client, reply: Reply) -> Said:
        if reply.fault:
            return Said(unmarked(clean(reply.text, 6000)), fault=True)
        visit = self.visit_of(study)
        Chair(visit.ledger, self.now).answered(client)
        return _status(visit) if reply.trial in (None, 0) else Said(*texts.ended(visit, reply.trial or 0))

    def _progress(self, study: str) -> str:
        ledger = self.settings.ledgers
        known = study in ledger.studies()
        return (texts.under_way(ledger.study(study)) if known else "") or "opening the study"

    def _answer(self, name: str, given: Mapping[str, Any], client: Client, visit: Visit) -> Said | Waiting:
        if name == "propose_trial":
            return self._propose(given, client, visit)
        if name == "status":
            return self._status(given, visit)
        if name in ("program", "history", "report"):
            return Said(*getattr(texts, name)(visit))
        if name == "check_proposal":
            return _check(given, visit)
        if name == "revise_plan":
            return _plan(given, visit)
        if name == "conclude":
            return self._conclude(given, client, visit)
        answer = _toolbox(visit).answer(name, given)
        return Said(answer.text, answer.fault)

    def _propose(self, given: Mapping[str, Any], client: Client, visit: Visit) -> Waiting:
        if _busy(visit):
            raise RuntimeError(f"{_what(visit)} is under way; wait for it with status (wait_seconds)")
        size = len(str(given))
        if size > MOST_CHARS:
            raise ValueError(f"propose_trial: {size} characters; at most {MOST_CHARS} in a call")
        proposal, usage = tools.split_usage(given)
        return self._errand(visit.study, client, asked=True, given=proposal, usage=usage)

    def _status(self, given: Mapping[str, Any], visit: Visit) -> Said | Waiting:
        wait = float(given.get("wait_seconds", 0.0))
        if not 0 <= wait <= MOST_WAIT:
            raise ValueError(f"status: wait_seconds={wait:g}: expected a number from 0 to {MOST_WAIT:g}")
        until = self.now() + wait

        def peek() -> Said | None:
            return None if _busy(visit) and self.now() < until else _status(visit)

        return Waiting(peek, lambda: self._progress(visit.study)) if wait else _status(visit)

    def _conclude(self, given: Mapping[str, Any], client: Client, visit: Visit) -> Said:
        if _busy(visit):
            raise RuntimeError(f"{_what(visit)} is under way; conclude when it has ended")
        answer = _toolbox(visit).answer("conclude", given)
        if isinstance(answer.ending, Concluded):
            number = visit.next_trial
            visit.log("concluded", trial=number, reason=answer.ending.reason, by=client.by)
            visit.log("ended", reason=f"{NAME} has nothing more to propose")
        return Said(answer.text, answer.fault)


def _check(given: Mapping[str, Any], visit: Visit) -> Said:
    proposal, _ = tools.split_usage(given)
    answer = _toolbox(visit).answer("propose_trial", proposal)
    if answer.accepted is None:
        return Said(answer.text, fault=True)
    tried = " Its edits apply; whether they run is tried out before the trial." if given.get("edits") else ""
    return Said(f"propose_trial would accept this.{tried}")


def _plan(given: Mapping[str, Any], visit: Visit) -> Said:
    toolbox = replace(_toolbox(visit), goal="revise_plan")
    answer = toolbox.answer("revise_plan", given)
    if not isinstance(answer.ending, Planned):
        return Said(answer.text, answer.fault)
    number, ideas = visit.next_trial, answer.ending.ideas
    Memory(visit.folder).write_plan(number, toolbox.phase.name, "by the client", ideas)
    visit.log("planned", trial=number, reason="by the client", ideas=len(ideas))
    return Said("written")


def _toolbox(visit: Visit) -> Toolbox:
    return toolbox(visit, texts.program_of(visit), visit.history())


def _status(visit: Visit) -> Said:
    return Said(*texts.status(visit))


def _sits(chair: Chair, client: Client) -> bool:
    held = chair.holding()
    return held is not None and held.client.seat == client.seat


def _busy(visit: Visit) -> bool:
    return running(visit.ledger) is not None or at_work(visit.folder)


def _what(visit: Visit) -> str:
    return one_line(texts.under_way(visit.ledger) or "another request", 200)
