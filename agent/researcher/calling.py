"""Messages go in, a reply comes out; between them the study's dollars are guarded, charged and noted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agent.desk import Desk
from agent.researcher.client import Block, Client, Reply, Request
from agent.researcher.hygiene import Scrubber
from agent.researcher.prompt import Prompt
from agent.researcher.settings import LLMSettings
from agent.researcher.transcript import Transcript


class BudgetReached(RuntimeError):
    """The next call could pass the study's budget of dollars, so it is not made."""


class Line:
    """One conversation's line to the model: prompt, purpose and transcript stay, messages grow."""

    def __init__(self, switchboard: Switchboard, prompt: Prompt, number: int, purpose: str) -> None:
        self._board, self._prompt, self._number, self._purpose = switchboard, prompt, number, purpose
        folder = switchboard.desk.trial_folder(number)
        self._transcript = Transcript(folder, purpose, switchboard.scrubber)
        self._transcript.add("prompt", {"system": prompt.system, "tools": prompt.tools})
        self._stored: list[Block] = []

    def send(self, messages: Sequence[Block]) -> Reply:
        """Raises BudgetReached, LLMUnavailable, LLMRefused."""
        searches = sum(tool.get("max_uses", 0) for tool in self._prompt.tools)
        request = Request(self._prompt.system, self._prompt.tools, messages, searches)
        news = [message for message in messages if not any(message is known for known in self._stored)]
        self._transcript.add("request", {"messages": news})
        self._stored = list(messages)
        reply = self._board.send(request, self._number, self._purpose)
        self._transcript.add("reply", asdict(reply))
        return reply


class Switchboard:
    """All of a study's lines. Advisors call at the same time, so sums are kept under a lock."""

    def __init__(
        self, settings: LLMSettings, key: str | None, desk: Desk, scrubber: Scrubber, **edges: Any
    ) -> None:
        self.desk, self.scrubber = desk, scrubber
        self._client = Client(settings, key, notice=self._trouble, stop=desk.stop, **edges)
        self._lock = threading.Lock()
        self._reserved = 0.0

    def send(self, request: Request, number: int, purpose: str) -> Reply:
        worst = self._reserve(request)
        try:
            reply = self._client.send(request)
        except BaseException:
            self._release(worst)
            raise
        with self._lock:
            # in one step, or another thread could see the dollars neither reserved nor spent
            self._reserved -= worst
            self.desk.charge(reply.usd, reply.seconds)
            self._note(reply, number, purpose)
        return reply

    def _note(self, reply: Reply, number: int, purpose: str) -> None:
        self.desk.log(
            "llm call",
            trial=number,
            purpose=purpose,
            model=self._client.settings.model,
            stop_reason=reply.stop_reason,
            unreadable=reply.unreadable,
            usage=asdict(reply.usage),
            usd=reply.usd,
            seconds=reply.seconds,
        )

    def _trouble(self, attempt: int, reason: str, pause: float, usd: float) -> None:
        """A call failed. What a broken stream was billed for is charged; the time is nobody's."""
        with self._lock:
            if usd:
                self.desk.charge(usd, 0.0)
            reason = self.scrubber.text(reason)  # a server may repeat the key that it refuses
            self.desk.log("llm trouble", attempt=attempt, reason=reason, pause=pause, usd=usd)

    def _reserve(self, request: Request) -> float:
        limit, worst = self.desk.budget.usd, self._client.worst_case(request)
        with self._lock:
            spent = self.desk.spent().usd + self._reserved
            if limit is not None and spent + worst > limit:
                raise BudgetReached(
                    f"{spent:.4f} of {limit:g} dollars are spent, and the next call could cost {worst:.4f}"
                )
            self._reserved += worst
        return worst

    def _release(self, worst: float) -> None:
        with self._lock:
            self._reserved -= worst
