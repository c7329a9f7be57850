"""The external researcher's place in the loop: one request of a client enters, one proposal or a refusal leaves.

The client is an agent that speaks MCP, a script or a person (agent/external/). It is refused what the built-in
researcher is refused, in the same words; and what costs the built-in one a trial costs it one, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.desk import Desk
from agent.records import Proposal, Trial
from agent.researcher import role
from agent.researcher.arm import Arm
from agent.researcher.hygiene import one_line
from agent.researcher.memory import Memory
from agent.researcher.names import PLAIN
from agent.researcher.program import Program, program_path, read_program
from agent.researcher.rules import TRIES, proposed
from agent.researcher.toolbox import Answer, Toolbox
from agent.searchers.base import Direction, Searcher, SearcherStopped, Space

NAME = "external"
REFUSED = "refused"
ARM = Arm(NAME, role.EXTERNAL_ROLE, True, True, code=True, knowledge=True, phases=True, names=PLAIN)


class NothingAsked(SearcherStopped):
    """No client has proposed anything; the study waits for the next one."""


class Refused(SearcherStopped):
    """The proposal is not accepted. No trial was run; the message says why, for the client."""


@dataclass(frozen=True)
class Request:
    """One call of propose_trial.

    given: its input. by: name and version of the client. route: mcp or shell. claimed: what it says that its
    model used. refused: the number of the trial that was asked for and the reason, of every refusal so far.
    """

    given: Mapping[str, Any]
    by: str
    route: str
    claimed: Mapping[str, Any] = field(default_factory=dict)
    refused: Sequence[tuple[int, str]] = ()


class External(Searcher):
    """`offer` a request, then `ask` for what becomes of it."""

    name = NAME

    def __init__(self, desk: Desk, program: Path) -> None:
        self.desk, self.program = desk, program
        self._request: Request | None = None

    def offer(self, request: Request) -> None:
        """The next `ask` decides on this one."""
        self._request = request

    def ask(self, history: Sequence[Trial]) -> Proposal | None:
        """The proposal that the request makes. Raises Refused, NothingAsked.

        The third refusal in a row is a trial: rejected, with every reason.
        """
        if self._request is None:
            raise NothingAsked(
                "searcher=external waits for a client: python -m agent.mcp_server serves MCP, "
                "python scripts/lab.py propose is for the shell"
            )
        request, self._request = self._request, None
        answer = toolbox(self.desk, read_program(self.program), history).answer(
            "propose_trial", request.given
        )
        proposal = answer.accepted or self._refused(answer, request, self.desk.next_trial)
        return replace(proposal, searcher=NAME, route=request.route, by=request.by, claimed=request.claimed)

    def ask_many(self, history: Sequence[Trial], count: int) -> list[Proposal]:
        """One: a client proposes when it has seen what came of its last."""
        proposal = self.ask(history)
        return [proposal] if proposal else []

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: the client reads the ledger."""

    def _refused(self, answer: Answer, request: Request, number: int) -> Proposal:
        said = [reason for asked, reason in request.refused if asked == number]
        said.append(one_line(answer.text, 1500))
        self.desk.log(REFUSED, trial=number, reason=said[-1], by=request.by)
        if len(said) < TRIES:
            left = TRIES - len(said)
            raise Refused(
                f"{answer.text}\n({left} more such tries before it is a trial, rejected and charged)"
            )
        reason = "; ".join(f"try {count}: {why}" for count, why in enumerate(said, 1))
        return replace(answer.attempt or Proposal(), invalid=reason)


def toolbox(desk: Desk, program: Program, history: Sequence[Trial]) -> Toolbox:
    """The built-in researcher's tools as they are before the next trial."""
    phase = program.phase(proposed(history), desk.budget.trials)
    return Toolbox(desk, ARM, Memory(desk.folder), program, phase, history, "propose_trial")


def external(
    *, space: Space, seed: int, desk: Desk, program: str, direction: Direction = "minimize"
) -> External:
    """`program`: path of program.md, relative to the checkout. Raises ProgramError.

    A client has no seed, and it reads the space and the direction from the desk; they are taken because every
    searcher is made alike.
    """
    read_program(program_path(program))
    return External(desk, program_path(program))
