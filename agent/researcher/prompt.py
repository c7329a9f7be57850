"""A study's state goes in; the prompt of a conversation comes out, what changes least standing first.

The order is that of the cache: tools, role and program (the same until a person edits the program), code
and space (until an edit is kept), the history's finished blocks, and only then what is new. So a round pays
for its news alone. Tokens are estimated as bytes over 3.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.desk import Desk
from agent.records import Trial
from agent.researcher.arm import Arm, allowed
from agent.researcher.history import HEADER, change, curves, number, running, table
from agent.researcher.hygiene import as_data, clean, one_line, unmarked
from agent.researcher.memory import Memory
from agent.researcher.names import space_table
from agent.researcher.prices import CHARS_PER_TOKEN, tokens_estimate
from agent.researcher.program import Phase, Program
from agent.researcher.rules import next_number, proposed
from agent.researcher.settings import LLMSettings
from agent.researcher.tools import definitions

if TYPE_CHECKING:
    from agent.researcher.client import Block

# of the prompt's tokens: code that does not fit is left to read_file
CODE_SHARE = 0.4
RECENT_CURVES = 3


@dataclass(frozen=True)
class Prompt:
    """One conversation's beginning.

    `system` and `tools` as the API takes them, `opening` the first message.
    """

    system: tuple[Block, ...]
    tools: tuple[Block, ...]
    opening: tuple[Block, ...]

    def tokens(self) -> int:
        return tokens_estimate(json.dumps([self.system, self.tools, self.opening], ensure_ascii=False))


class Prompts:
    """Writes the prompts of one study."""

    def __init__(self, desk: Desk, arm: Arm, settings: LLMSettings, memory: Memory) -> None:
        self.desk, self.arm, self.settings, self.memory = desk, arm, settings, memory

    def write(
        self,
        program: Program,
        phase: Phase,
        history: Sequence[Trial],
        task: str,
        extra: str = "",
        shown: Sequence[Trial] | None = None,
    ) -> Prompt:
        """`task` is what this conversation is for, `extra` further material; `shown` the table, if not
        all.
        """
        past = self._past(history if shown is None else shown)
        searches = self.settings.web_searches if self.arm.phases and phase.web_search else 0
        categories = self.arm.categories(program)
        tools = definitions(
            categories,
            edits=self.arm.edits,
            files=self.arm.code,
            strict=self.settings.strict_tools,
            web_searches=searches,
        )
        for points in (RECENT_CURVES, 1, 0):
            now = self._now(phase, history, points, task, extra)
            prompt = Prompt(self._system(program), tuple(tools), (*past, _text(now)))
            if prompt.tokens() <= self.settings.prompt_tokens:
                break
        return self._marked(prompt)

    def _system(self, program: Program) -> tuple[Block, ...]:
        if not self.arm.knowledge:
            return (_text(self.arm.role),)
        return (_text(self.arm.role), _text(f"# The program\n\n{program.text}"))

    def _past(self, history: Sequence[Trial]) -> tuple[Block, ...]:
        """Task, space and code, then the history's blocks."""
        parts = [self._task(), f"# Parameters\n\n{space_table(self.desk.space, self.arm.names)}"]
        if self.arm.code:
            parts.append(self._code())
        blocks = [_text("\n\n".join(parts)), _text(f"# History\n\n{HEADER}")]
        return (*blocks, *(_text(rows) for rows in table(history, self.arm.names)))

    def _task(self) -> str:
        task = self.desk.task
        better = "lower" if task.direction == "minimize" else "higher"
        if not self.arm.knowledge:
            return f"# Goal\n\nThe score: {better} is better."
        locked = f"Locked keys: {', '.join(task.locked)}." if self.arm.whole_config else ""
        goal = f"Metric: {task.metric}, {better} is better. {task.description}"
        return f"# Task {task.name}\n\n{goal}\n{locked}".strip()

    def _code(self) -> str:
        """As many editable files as fit into their share, the smallest first; the others by name."""
        task, room = self.desk.task, self.settings.prompt_tokens * CODE_SHARE * CHARS_PER_TOKEN
        texts = {path: self.desk.read_file(path) for path in task.editable}
        shown = []
        for path in sorted(texts, key=lambda path: (len(texts[path]), path)):
            if len(texts[path]) > room:
                break
            room -= len(texts[path])
            shown.append(path)
        files = [f"## {path}\n```\n{clean(texts[path], 10**6)}\n```" for path in sorted(shown)]
        hidden = [f"{path} ({len(texts[path])} characters)" for path in texts if path not in shown]
        more = f"Editable, too (read_file shows them): {', '.join(hidden) or 'none'}."
        readable = f"Readable: {', '.join(task.readable) or 'nothing else'}."
        title = "# Code of the current recipe" + ("" if self.arm.edits else " (for reading)")
        return "\n\n".join([title, *files, f"{more} {readable}"])

    def _now(self, phase: Phase, history: Sequence[Trial], points: int, task: str, extra: str) -> str:
        parts = [self._recipe(), self._curves(history, points), self._trouble(history)]
        if under_way := running(history, self.arm.names):
            parts.append(f"# Running now, beside what you propose\n\n{under_way}")
        plan, scratchpad, inbox = self.memory.plan(), self.memory.scratchpad(), self.memory.inbox()
        if plan and plan.text:
            parts.append(f"# Plan (of trial {plan.trial})\n\n{as_data('plan', plan.text, 8000)}")
        if scratchpad:
            parts.append(f"# Scratchpad\n\n{as_data('scratchpad', scratchpad, 6000)}")
        if inbox and self.arm.knowledge:
            parts.append(f"<note>\n{unmarked(inbox)}\n</note>")
        parts += [self._budget(phase, history), extra, f"# Now\n\n{task}"]
        return "\n\n".join(part for part in parts if part)

    def _recipe(self) -> str:
        best = self.desk.recipe()
        score = best.outcome.score if best.outcome else None
        names = self.arm.names
        known = {
            key: v
            for key, v in best.overrides.items()
            if not names.neutral or key in self.desk.space.defaults
        }
        settings = "\n".join(f"{names.key(key)}={names.value(key, value)}" for key, value in known.items())
        title = f"# Current recipe: trial {best.number}, score {number(score)}"
        return f"{title}\n\n{settings or 'the reference as it is'}"

    def _curves(self, history: Sequence[Trial], recent: int) -> str:
        if not (recent and self.arm.knowledge):
            return ""
        ended = [trial for trial in history if trial.outcome and trial.outcome.curve]
        chosen = {trial.number: trial for trial in [self.desk.recipe(), *ended[-recent:]]}
        shown = [text for _, trial in sorted(chosen.items()) if (text := curves(trial))]
        return (
            "# Learning curves: the recipe's and the latest, start to end\n\n" + "\n".join(shown)
            if shown
            else ""
        )

    def _trouble(self, history: Sequence[Trial]) -> str:
        """What the last trial failed of, while it is news."""
        last = next((trial for trial in reversed(history) if trial.outcome), None)
        if (
            last is None
            or last.outcome is None
            or last.outcome.status == "completed"
            or self.arm.names.neutral
        ):
            return ""
        said = f"{one_line(last.outcome.reason, 600)}\n{clean(last.outcome.log_tail, 2500)}"
        head = f"# The last trial ({last.number}) failed: {last.outcome.status}\n\nIts change: {change(last)}"
        return f"{head}\n{as_data('reason and end of the log', said)}"

    def _budget(self, phase: Phase, history: Sequence[Trial]) -> str:
        budget, spent = self.desk.budget, self.desk.spent()
        left = budget.trials - proposed(history)
        lines = [f"Trial {next_number(history)} is next; {left} of {budget.trials} trials are left."]
        if self.arm.knowledge:
            lines.append(f"A trial trains for {budget.seconds:g} s, shared by its folds.")
        if budget.usd is not None:
            lines.append(f"{budget.usd - spent.usd:.2f} of {budget.usd:g} dollars are left.")
        name = f" (phase {phase.name!r})" if self.arm.phases else ""
        lines.append(f"Allowed now{name}: {allowed(self.arm, phase, self.desk)}")
        return "# Budget\n\n" + "\n".join(lines)

    def _marked(self, prompt: Prompt) -> Prompt:
        """Cache marks: after the program, after the code, after the history's last full block, at the end."""
        ttl = self.settings.cache_ttl
        if ttl is None:
            return prompt
        opening = list(prompt.opening)
        # blocks 0 and 1 are code and header; the last is what is new, the one before it may still grow
        marks = {0: ttl, len(opening) - 1: "5m"}
        if len(opening) > 4:
            marks[len(opening) - 3] = ttl
        for index, life in marks.items():
            opening[index] = _mark(opening[index], life)
        return Prompt((*prompt.system[:-1], _mark(prompt.system[-1], ttl)), prompt.tools, tuple(opening))


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _mark(block: Block, ttl: str) -> Block:
    return {**block, "cache_control": {"type": "ephemeral", "ttl": ttl}}
