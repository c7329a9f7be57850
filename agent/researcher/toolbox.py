"""One call of a tool goes in, its answer comes out, and with it the ending if the conversation is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.desk import Desk
from agent.records import Proposal, Trial
from agent.researcher import tools
from agent.researcher.arm import Arm
from agent.researcher.history import details
from agent.researcher.hygiene import as_data, clean, one_line, own_frames, unmarked
from agent.researcher.memory import Idea, Memory, ranked
from agent.researcher.program import Phase, Program
from agent.researcher.rules import forbidden, proposed
from agent.searchers.base import pending

FILE_CHARS = 30_000


@dataclass(frozen=True)
class Proposed:
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True)
class Planned:
    ideas: tuple[Idea, ...]


@dataclass(frozen=True)
class Concluded:
    reason: str


@dataclass(frozen=True)
class Answer:
    """`fault` counts as a failed try. `accepted` is a proposal that will be a trial, `attempt` one that could
    be read, but not accepted."""

    text: str
    fault: bool = False
    ending: Planned | Concluded | None = None
    accepted: Proposal | None = None
    attempt: Proposal | None = None


@dataclass(frozen=True)
class Toolbox:
    """What a conversation may do. `goal` names the tool that ends it, `count` is how many trials it may propose."""

    desk: Desk
    arm: Arm
    memory: Memory
    program: Program
    phase: Phase
    history: Sequence[Trial]
    goal: Literal["propose_trial", "revise_plan"]
    # what an arm makes of an allowed proposal before the lab checks it
    finish: Callable[[Proposal], Proposal] = lambda proposal: proposal
    # held while a tool is at work on the desk
    lock: AbstractContextManager[Any] = field(default_factory=nullcontext)
    count: int = 1

    def answer(self, name: str, given: Mapping[str, Any], beside: Sequence[Proposal] = ()) -> Answer:
        """Never raises for anything the model wrote. `beside`: what this conversation has proposed already."""
        handlers: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "propose_trial": lambda given: self._propose(given, beside),
            "look_up_trial": self._look_up,
            "write_scratchpad": self._scratchpad,
            "revise_plan": self._plan,
            "conclude": lambda given: self._conclude(given, beside),
        }
        if self.arm.code:
            handlers["read_file"] = self._read_file
        if name not in handlers:
            return Answer(
                f"there is no tool {one_line(name, 60)!r}; there are {', '.join(handlers)}", fault=True
            )
        try:
            tools.require(self._schema(name), given, name)
            with self.lock:
                return handlers[name](given)
        except ValueError as error:
            return Answer(unmarked(clean(str(error), 2000)), fault=True)

    def _schema(self, name: str) -> tools.Schema:
        defined = tools.definitions(
            self.arm.categories(self.program), edits=self.arm.edits, files=True, strict=False, web_searches=0
        )
        schema: tools.Schema = next(tool["input_schema"] for tool in defined if tool["name"] == name)
        return schema

    def _propose(self, given: Mapping[str, Any], beside: Sequence[Proposal]) -> Answer:
        if self.goal != "propose_trial":
            return Answer("no trial is run now; end with revise_plan", fault=True)
        if len(beside) >= self.count:
            return Answer("not needed: what was accepted stands")
        read = tools.read_proposal(given, self.arm.names)
        proposal = replace(read, phase=self.phase.name if self.arm.phases else "")
        history = list(self.history)
        for other in beside:
            history.append(pending(history, other))
        if broken := forbidden(proposal, history, self.arm, self.program, self.phase, self.desk.space):
            return Answer(f"not accepted: {broken}", fault=True, attempt=proposal)
        proposal = self.finish(proposal)
        if reason := self._unfit(proposal, beside):
            return Answer(f"not accepted: {reason}", fault=True, attempt=proposal)
        if proposal.edits and (traceback := self.desk.try_out(proposal)):
            said = as_data("traceback", own_frames(traceback), 3000)
            text = f"the code fails its first step; no trial was run, its seconds alone are charged:\n{said}"
            return Answer(text, fault=True, attempt=proposal)
        left = self.count - len(beside) - 1
        more = f"; up to {left} more may run beside it. A reply without a call ends the round" if left else ""
        return Answer(f"accepted{more}", accepted=proposal)

    def _unfit(self, proposal: Proposal, beside: Sequence[Proposal]) -> str | None:
        reason = self.desk.check(proposal, beside)
        if reason and self.arm.names.neutral:
            return "this point cannot be run, or was run before"
        return reason

    def _read_file(self, given: Mapping[str, Any]) -> Answer:
        text = self.desk.read_file(given["path"])
        if len(text) > FILE_CHARS:
            text = text[:FILE_CHARS] + f"\n… {len(text) - FILE_CHARS} more characters"
        return Answer(as_data(one_line(given["path"], 120), text, FILE_CHARS + 100))

    def _look_up(self, given: Mapping[str, Any]) -> Answer:
        for trial in self.history:
            if trial.number == given["number"]:
                return Answer(details(trial, self.arm.names))
        return Answer(f"there is no trial {str(given['number'])[:20]}; the history table has their numbers")

    def _scratchpad(self, given: Mapping[str, Any]) -> Answer:
        self.memory.write_scratchpad(given["text"])
        return Answer("written")

    def _plan(self, given: Mapping[str, Any]) -> Answer:
        ideas = tuple(tools.read_ideas(given))
        if self.goal == "revise_plan":
            ranked(ideas)  # raises if it is too long
            return Answer("planned", ending=Planned(ideas))
        self.memory.revise_plan(ideas)
        return Answer("written")

    def _conclude(self, given: Mapping[str, Any], beside: Sequence[Proposal]) -> Answer:
        if self.goal != "propose_trial":
            return Answer("this is a planning call; end with revise_plan", fault=True)
        if beside:
            return Answer("a trial was proposed already; conclude in a round of its own", fault=True)
        used = proposed(self.history) / self.desk.budget.trials
        if used < self.program.conclude_after:
            least = self.program.conclude_after
            return Answer(
                f"{used:.0%} of the trials are used; not before {least:.0%}: propose a trial", fault=True
            )
        return Answer("concluded", ending=Concluded(one_line(given["reason"], 2000)))
