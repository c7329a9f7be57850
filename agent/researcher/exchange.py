"""A prompt goes to the model, and one bounded conversation later an ending comes out. It always ends.

Three failed tries end it, six look-ups are free. A reply that cannot be used (no call, a refusal, a cut-off,
nonsense) is not sent back to the model: it is told why, and asked again. A call that is merely wrong gets its
reason as the tool's result.

A conversation may be for several trials that run side by side. What was accepted stands, whatever comes after
it; tries count anew for the next one, and a reply without a call says that these are all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.records import Proposal
from agent.researcher.calling import BudgetReached, Line
from agent.researcher.client import Block, Reply
from agent.researcher.failures import LLMRefused, LLMUnavailable
from agent.researcher.hygiene import one_line
from agent.researcher.prompt import Prompt
from agent.researcher.rules import TRIES
from agent.researcher.toolbox import Answer, Concluded, Planned, Proposed, Toolbox
from agent.researcher.transcript import sendable

LOOKUPS = 6
PAUSES = 6
MOST_CALLS = 12
END = {
    "propose_trial": "End with one call of propose_trial",
    "revise_plan": "End with one call of revise_plan",
}
STOPS = {
    "refusal": "you declined to answer",
    "max_tokens": "it was cut off: think and write less",
    "model_context_window_exceeded": "it was cut off: the conversation is too long",
}


@dataclass(frozen=True)
class GaveUp:
    """All tries failed. `reason` has each failure; `attempt` is the last proposal that could be read."""

    reason: str
    attempt: Proposal | None = None
    accepted: tuple[Proposal, ...] = ()


Ending = Proposed | Planned | Concluded | GaveUp


class Exchange:
    """One conversation. `run` returns how it ended."""

    def __init__(self, line: Line, prompt: Prompt, toolbox: Toolbox) -> None:
        self._line, self._toolbox = line, toolbox
        self._messages: list[Block] = [{"role": "user", "content": list(prompt.opening)}]
        self._faults: list[str] = []
        self._attempt: Proposal | None = None
        self._accepted: list[Proposal] = []
        self._lookups = self._pauses = 0

    def run(self) -> Ending:
        """Raises LLMUnavailable, LLMRefused and BudgetReached, unless something was accepted before."""
        while len(self._faults) < TRIES:
            try:
                reply = self._line.send(self._messages)
            except (BudgetReached, LLMUnavailable, LLMRefused):
                if not self._accepted:
                    raise
                return Proposed(tuple(self._accepted))
            if ending := self._heard(reply):
                return ending
        if self._full():
            return Proposed(tuple(self._accepted))
        said = "; ".join(f"try {n}: {fault}" for n, fault in enumerate(self._faults, 1))
        return GaveUp(said, self._attempt, tuple(self._accepted))

    def _heard(self, reply: Reply) -> Ending | None:
        if self._accepted and reply.stop_reason == "end_turn" and not reply.calls():
            return Proposed(tuple(self._accepted))
        if reason := unusable(reply, MOST_CALLS + self._toolbox.count):
            self._discard(reason)
        elif reply.stop_reason == "pause_turn":
            self._go_on(reply)
        else:
            return self._answer(reply)
        return None

    def _full(self) -> bool:
        return len(self._accepted) >= self._toolbox.count

    def _discard(self, reason: str) -> None:
        self._faults.append(reason)
        while self._messages[-1]["role"] == "assistant":
            # paused, and part of the reply: a search without its result may not stand before our message
            self._messages.pop()
        ending = (
            "Propose the next trial, or end without a call" if self._accepted else END[self._toolbox.goal]
        )
        self._say([_text(f"Your last reply was discarded: {reason}. {ending}.")])

    def _go_on(self, reply: Reply) -> None:
        """A long web search pauses; the same conversation sent again continues it."""
        self._pauses += 1
        if self._pauses > PAUSES:
            self._discard("it paused too often")
        else:
            self._messages.append({"role": "assistant", "content": echo(reply)})

    def _answer(self, reply: Reply) -> Ending | None:
        goals = sum(call["name"] == self._toolbox.goal for call in reply.calls())
        room = self._toolbox.count - len(self._accepted)
        answers = [(call["id"], self._toolbox_answer(call, 0 < room < goals)) for call in reply.calls()]
        faults = [answer.text for _, answer in answers if answer.fault]
        for _, answer in answers:
            if answer.ending is not None and not faults:
                return answer.ending
            self._attempt = answer.attempt or self._attempt
        if self._full() and not faults:
            return Proposed(tuple(self._accepted))
        self._messages.append({"role": "assistant", "content": echo(reply)})
        self._say([_result(identity, answer) for identity, answer in answers])
        if faults:
            self._faults.append(one_line("; ".join(faults), 1500))
        elif not any(answer.accepted for _, answer in answers):
            self._count_lookup()
        return None

    def _toolbox_answer(self, call: Block, too_many: bool) -> Answer:
        goal, count = self._toolbox.goal, self._toolbox.count
        if call["name"] == goal and too_many:
            most = "once only" if count == 1 else f"{count} times in all"
            return Answer(f"{goal} may be called {most}", fault=True)
        answer = self._toolbox.answer(call["name"], call["input"], self._accepted)
        if answer.accepted is not None:
            self._accepted.append(answer.accepted)
            self._faults, self._attempt = [], None
        return answer

    def _count_lookup(self) -> None:
        self._lookups += 1
        if self._lookups > LOOKUPS:
            self._discard(f"no look-ups are left after {LOOKUPS}")

    def _say(self, content: list[Block]) -> None:
        self._messages.append({"role": "user", "content": content})


def unusable(reply: Reply, most_calls: int = MOST_CALLS) -> str | None:
    """Why nothing in a reply can be acted on, or None."""
    if reply.unreadable:
        return reply.unreadable
    if reply.stop_reason in STOPS:
        return STOPS[reply.stop_reason]
    calls = reply.calls()
    if not calls and reply.stop_reason != "pause_turn":
        return "it holds no tool call"
    identities = [call.get("id") for call in calls]
    if len(calls) > most_calls or len(set(map(str, identities))) < len(calls):
        return "it holds too many tool calls, or calls without an id of their own"
    for call in calls:
        if not isinstance(call.get("id"), str) or not isinstance(call.get("name"), str):
            return "it holds a tool call without id or name"
        if not isinstance(call.get("input"), dict):
            return f"the input of {one_line(call['name'], 60)} is no object"
    return None


def echo(reply: Reply) -> list[Block]:
    """The reply as the next request sends it back: as it came, less what a server would refuse."""
    kept = [block for block in reply.content if block.get("type") != "text" or str(block.get("text")).strip()]
    echoed: list[Block] = sendable(kept)
    return echoed


def _result(identity: str, answer: Answer) -> Block:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": identity, "content": answer.text or "-"}
    return {**result, "is_error": True} if answer.fault else result


def _text(text: str) -> Block:
    return {"type": "text", "text": text}
