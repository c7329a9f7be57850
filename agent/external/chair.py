"""A client and the time go in; whether it holds the study's chair, and how long it thought, comes out.

One client at a time holds the chair of a study. It is written in the ledger, so that clients of other servers,
and the shell, see it, too. It is free when the holder's process is gone, when the holder gave it up, or when
nothing was heard of it for LEASE_SECONDS.

Time between an answer and the client's next call is thinking, up to AWAY_SECONDS each time; what goes beyond is
absence (a closed laptop, a lunch). Thinking is charged to the next trial, as the built-in researcher's calls
are: otherwise a client could buy a better search with time that the others pay for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from agent.codec import from_json, to_json
from agent.ledger import Owner, StudyLedger

KEY = "chair"
LEASE_SECONDS = 1800.0
AWAY_SECONDS = 600.0


class Occupied(RuntimeError):
    """Another client holds the chair; the message names it, since when, and what to do."""


@dataclass(frozen=True)
class Client:
    """Who asks.

    by: name and version, as the client itself says. seat: what tells two clients of one name apart: a process,
    a session, or the name again. owner: the process whose end frees the chair; empty where none does.
    """

    by: str
    seat: str
    owner: str = ""


@dataclass(frozen=True)
class Holding:
    """The chair as the ledger has it. Times in Unix seconds.

    heard: the last call, answered: the last answer. thinking, away: seconds since the last trial began.
    """

    client: Client
    since: float
    heard: float
    answered: float
    thinking: float = 0.0
    away: float = 0.0

    def told(self) -> str:
        return f"{self.client.by}, since {_clock(self.since)}, last heard at {_clock(self.heard)}"


@dataclass(frozen=True)
class Chair:
    """One study's chair. now: Unix seconds."""

    ledger: StudyLedger
    now: Callable[[], float]

    def holding(self) -> Holding | None:
        """Who holds it, be it still there or not."""
        written = self.ledger.study.user_attrs.get(KEY)
        return from_json(Holding, written) if written else None

    def take(self, client: Client, take_over: bool = False) -> Holding:
        """Sits down, or stays. Raises Occupied; `take_over` lets a client follow another one of its own name."""
        now, held = self.now(), self.holding()
        if held and held.client.seat != client.seat:
            if self._there(held, now) and not (take_over and held.client.by == client.by):
                raise Occupied(_occupied(held, client))
            held = None
        sits = held or Holding(client, now, now, now)
        return self._write(replace(sits, client=client))

    def heard(self, client: Client) -> Holding:
        """A call has come in: the time since the last answer was thinking. Raises Occupied.

        While a trial is under way nobody is waited for.
        """
        held = self.take(client)
        now = self.now()
        gap = 0.0 if running(self.ledger) else max(now - held.answered, 0.0)
        # the first minutes of an absence count, or who thinks longer than that would think for nothing
        thought = min(gap, AWAY_SECONDS)
        return self._write(
            replace(
                held,
                heard=now,
                answered=now,
                thinking=held.thinking + thought,
                away=held.away + gap - thought,
            )
        )

    def answered(self, client: Client) -> None:
        """An answer goes out."""
        held = self.holding()
        if held and held.client.seat == client.seat:
            self._write(replace(held, answered=self.now()))

    def settle(self) -> None:
        """What was thought so far is in the ledger; the clock begins anew for whoever holds the chair."""
        if held := self.holding():
            self._write(replace(held, answered=self.now(), thinking=0.0, away=0.0))

    def leave(self, seat: str) -> None:
        """Gives the chair up, if it is the seat's."""
        held = self.holding()
        if held and held.client.seat == seat:
            self.ledger.study.set_user_attr(KEY, None)

    def _write(self, held: Holding) -> Holding:
        self.ledger.study.set_user_attr(KEY, to_json(held))
        return held

    def _there(self, held: Holding, now: float) -> bool:
        if held.client.owner and Owner.parse(held.client.owner).alive() is False:
            return False
        return now - held.heard < LEASE_SECONDS or running(self.ledger) is not None


def running(ledger: StudyLedger) -> Owner | None:
    """The process that is at work on the study, if one is."""
    lease = ledger.holder()
    return Owner.parse(lease.owner) if lease and lease.alive() else None


def _occupied(held: Holding, client: Client) -> str:
    text = f"the study is held by {held.told()}. "
    if held.client.by == client.by:
        return text + "If that was you, before a disconnect: resume_study with take_over=true"
    minutes = LEASE_SECONDS / 60
    return (
        text + f"It is free when that client ends, or after {minutes:g} minutes of silence; or begin another"
    )


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"
