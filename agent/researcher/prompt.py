"""A study's state goes in; the prompt of a conversation comes out, what changes least standing first.

The order is that of the cache: tools, role and program (the same until a person edits the program), code
and space (until an edit is kept), the history's finished blocks, and only then what is new. So a round pays
for its news alone. Tokens are estimated as bytes over 3.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from agent.desk import Desk
from agent.records import Trial
from agent.researcher.arm import Arm, allowed
from agent.researcher.history import (
    HEADER,
    LEGEND,
    NEUTRAL_LEGEND,
    change,
    curves,
    number,
    patch,
    running,
    spread,
    table,
)
from agent.researcher.hygiene import as_data, clean, one_line, own_frames, unmarked
from agent.researcher.memory import Memory
from agent.researcher.names import space_table
from agent.researcher.prices import CHARS_PER_TOKEN, tokens_estimate
from agent.researcher.program import Phase, Program
from agent.researcher.rules import barred_category, proposed
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
            now = self._now(program, phase, history, points, task, extra)
            prompt = Prompt(self._system(program), tuple(tools), (*past, _text(now)))
            if prompt.tokens() <= self.settings.prompt_tokens:
                break
        return self._marked(prompt)

    def _system(self, program: Program) -> tuple[Block, ...]:
        if not self.arm.knowledge:
            return (_text(self.arm.role),)
        return (_text(self.arm.role), _text(program.text))

    def _past(self, history: Sequence[Trial]) -> tuple[Block, ...]:
        """Task, space and code, then the history's blocks."""
        parts = [self._task(), f"# Parameters\n\n{space_table(self.desk.space, self.arm.names)}"]
        if self.arm.code:
            parts.append(self._code())
        legend = NEUTRAL_LEGEND if self.arm.names.neutral else LEGEND
        blocks = [_text("\n\n".join(parts)), _text(f"# History\n\n{legend}\n\n{HEADER}")]
        return (*blocks, *(_text(rows) for rows in table(history, self.arm.names)))

    def _task(self) -> str:
        task = self.desk.task
        better = "lower" if task.direction == "minimize" else "higher"
        if not self.arm.knowledge:
            return f"# Goal\n\nThe score: {better} is better."
        locked = f"Locked keys: {', '.join(_patterns(task.locked))}." if self.arm.whole_config else ""
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

    def _now(
        self, program: Program, phase: Phase, history: Sequence[Trial], points: int, task: str, extra: str
    ) -> str:
        parts = [self._recipe(history), self._curves(history, points), self._last(history)]
        if under_way := running(history, self.arm.names):
            parts.append(f"# Running now, beside what you propose\n\n{under_way}")
        plan, scratchpad, inbox = self.memory.plan(), self.memory.scratchpad(), self.memory.inbox()
        if plan and plan.text:
            parts.append(f"# Plan (of trial {plan.trial})\n\n{as_data('plan', plan.text, 8000)}")
        if scratchpad:
            parts.append(f"# Scratchpad\n\n{as_data('scratchpad', scratchpad, 6000)}")
        if inbox and self.arm.knowledge:
            parts.append(f"<note>\n{unmarked(inbox)}\n</note>")
        parts += [self._budget(program, phase, history), extra, f"# Now\n\n{task}"]
        return "\n\n".join(part for part in parts if part)

    def _recipe(self, history: Sequence[Trial]) -> str:
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
        measured = {t.number: f"trial {t.number}: {spread(t, names)}" for t in (history[0], best)}
        noise = "\n".join(["All that was measured, one score a run:", *measured.values()])
        return "\n\n".join([title, settings or "the reference as it is", noise])

    def _curves(self, history: Sequence[Trial], recent: int) -> str:
        if not (recent and self.arm.knowledge):
            return ""
        ended = [trial for trial in history if trial.outcome and trial.outcome.curve]
        chosen = {trial.number: trial for trial in [self.desk.recipe(), *ended[-recent:]]}
        shown = [text for _, trial in sorted(chosen.items()) if (text := curves(trial))]
        return (
            "# Learning curves of one fold: the recipe's and the latest, start to end\n\n" + "\n".join(shown)
            if shown
            else ""
        )

    def _last(self, history: Sequence[Trial]) -> str:
        """What was expected of the last trial, and what it failed of: a new conversation remembers neither."""
        last = next((trial for trial in reversed(history) if trial.outcome), None)
        if last is None or last.outcome is None or last.number == history[0].number:
            return ""
        failed = last.outcome.status != "completed"
        ended = f"failed: {last.outcome.status}" if failed else last.verdict.decision if last.verdict else ""
        lines = [f"# The last trial ({last.number}) {ended}\n\nIts change: {change(last, self.arm.names)}"]
        if last.proposal.hypothesis:
            lines.append(f"Its hypothesis: {one_line(last.proposal.hypothesis, 600)}")
            lines.append(f"What was expected: {one_line(last.proposal.expected_effect, 400)}")
        if failed and not self.arm.names.neutral:
            lines += [patch(edit, 3000) for edit in last.proposal.edits]
            said = f"{one_line(last.outcome.reason, 600)}\n{clean(own_frames(last.outcome.log_tail), 2500)}"
            lines.append(as_data("reason and end of the log", said))
        return "\n".join(lines)

    def _budget(self, program: Program, phase: Phase, history: Sequence[Trial]) -> str:
        budget, spent = self.desk.budget, self.desk.spent()
        left = budget.trials - proposed(history)
        lines = [f"Trial {self.desk.next_trial} is next; {left} of {budget.trials} trials are left."]
        if self.arm.knowledge:
            lines.append(f"A trial trains for {budget.seconds:g} s, shared by its folds.")
        if budget.usd is not None:
            lines.append(f"{budget.usd - spent.usd:.2f} of {budget.usd:g} dollars are left.")
        lines.append(
            f"Allowed now{self._phase(program, phase, history)}: {allowed(self.arm, phase, self.desk)}"
        )
        if self.arm.phases and (barred := barred_category(history, program.most_in_a_row)):
            lines.append(
                f"Not now: category {barred!r}; the latest trials were all of it, and none was kept."
            )
        return "# Budget\n\n" + "\n".join(lines)

    def _phase(self, program: Program, phase: Phase, history: Sequence[Trial]) -> str:
        if not self.arm.phases:
            return ""
        trials = self.desk.budget.trials
        left = sum(program.phase(number, trials) == phase for number in range(proposed(history), trials))
        return f" (phase {phase.name!r}, for {left} more trial{'s' * (left != 1)})"

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


def _patterns(locked: Sequence[str]) -> list[str]:
    """The patterns, less the single keys that another one covers, and in their order."""
    wide = [pattern for pattern in locked if "*" in pattern]
    return [
        key
        for key in dict.fromkeys(locked)
        if key in wide or not any(fnmatchcase(key, pattern) for pattern in wide)
    ]


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _mark(block: Block, ttl: str) -> Block:
    return {**block, "cache_control": {"type": "ephemeral", "ttl": ttl}}
