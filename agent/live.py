"""What a study does goes in, a table that grows comes out: drawn anew on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.ledger import StudyLedger, StudySpec
from agent.progress import curve, used
from agent.records import Budget, Charges, Trial
from agent.trial_table import Row, clock, figure, fitted, plain, readable, reference_values, row_of, table

# lines around the rows: title, header, the trial under way, the footer, and what the shell wants
FRAME = 9
BAR = 24


@dataclass(frozen=True)
class Running:
    """A trial under way: since when (the table's clock), and the run of it that ended last."""

    row: Row
    began: float
    phase: str = ""


class LiveTable:
    """An observer that shows the study on `console`. `now` gives seconds.

    Rows that no longer fit the terminal are printed above the live part and stay in its scroll-back. A
    terminal that goes away ends the showing, not the study.
    """

    def __init__(self, console: Console, budget: Budget, now: Callable[[], float] = time.monotonic) -> None:
        self.console, self.budget, self.now = console, budget, now
        self.ledger: StudyLedger | None = None
        self.live: Live | None = None
        self.rows: tuple[Row, ...] = ()
        self.running: tuple[Running, ...] = ()
        self.reference: Trial | None = None
        self.best: Trial | None = None
        self.spent, self.used, self.idle_since = Charges(), 0, now()
        self.scrolled, self._gone = False, False

    def started(self, ledger: StudyLedger) -> None:
        self.ledger, self.idle_since = ledger, self.now()
        values, points = reference_values(ledger), curve(ledger)
        earlier = [row_of(point.trial, point.recipe, point.best, values) for point in points]
        self.best, self.spent = ledger.best(), ledger.spent()
        self.used = used(ledger.trials())
        self.reference = next((p.trial for p in points if p.trial.proposal.route == "reference"), None)
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            self._print(title(ledger.name, ledger.spec, self.console))
            if earlier:
                self._print(f"resumed after {len(earlier)} trials; {self._standing()}")
            return
        self._print("")
        self._print(title(ledger.name, ledger.spec, self.console))
        self.live = _Live(
            console=self.console, get_renderable=self._render, refresh_per_second=4, vertical_overflow="crop"
        )
        self.live.start()
        self._add(*earlier)

    def trial_started(self, trial: Trial) -> None:
        assert self.ledger is not None
        row = row_of(trial, self.best, self.best, reference_values(self.ledger))
        self.running = (*self.running, Running(row, self.now()))
        self._refresh()

    def progress(self, number: int, phase: str) -> None:
        self.running = tuple(
            replace(item, phase=plain(phase)) if item.row.number == number else item for item in self.running
        )
        self._refresh()

    def trial_finished(self, trial: Trial, ledger: StudyLedger) -> None:
        recipe, self.best = self.best, ledger.best()
        self.spent, self.used, self.idle_since = ledger.spent(), used(ledger.trials()), self.now()
        if trial.proposal.route == "reference":
            self.reference = trial
        self.running = tuple(item for item in self.running if item.row.number != trial.number)
        self._show(row_of(trial, recipe, self.best, reference_values(ledger)))

    def paused(self, reason: str, seconds: float) -> None:
        self._print(plain(f"paused for {seconds:.0f} s, uncharged: {reason}"))

    def ended(self, ledger: StudyLedger) -> None:
        self.running = ()
        if self.live is not None:
            live, self.live = self.live, None
            self._draw(live.stop)
        elif self.ledger is not None:
            self._print(self._standing())

    def _show(self, row: Row) -> None:
        """One more row: on a terminal at the end of the live part, elsewhere as a line."""
        if self.live is None:
            self._print(line(row, max(self.budget.trials - self.used, 0)))
        else:
            self._add(row)

    def _add(self, *rows: Row) -> None:
        """The last rows that fit are live; those before them move up into the scroll-back."""
        room = max(self.console.height - FRAME, 1)
        together = (*self.rows, *rows)
        above, self.rows = together[:-room], together[-room:]
        if above:
            self._print(table(above, self.console, header=not self.scrolled))
            self.scrolled = True
        self._refresh()

    def _refresh(self) -> None:
        if self.live is not None:
            self._draw(self.live.refresh)

    def _print(self, what: RenderableType) -> None:
        shown = readable(what, self.console) if isinstance(what, str) else what
        self._draw(
            lambda: self.console.print(shown, soft_wrap=isinstance(what, str), highlight=False, markup=False)
        )

    def _draw(self, action: Callable[[], None]) -> None:
        """Rich ends the program where a pipe is closed, and a closed terminal is an OSError: neither counts."""
        if self._gone:
            return
        try:
            action()
        except (OSError, ValueError, SystemExit):
            self._gone = True

    def _render(self) -> RenderableType:
        lines: list[RenderableType] = []
        # once rows have scrolled, the header stands above the first of them, and here while this is drawn anew
        if self.rows or not self.scrolled:
            lines.append(table(self.rows, self.console, header=not self.scrolled or self.live is not None))
        lines.append(Text(""))
        lines += [self._line(item) for item in self.running]
        if self.live is not None and not self.running:
            waited = clock(self.now() - self.idle_since)
            searcher = self.ledger.spec.searcher if self.ledger else ""
            lines.append(self._text(f"   ▸ {searcher} chooses the next trial · {waited}", "cyan"))
        if self.live is not None:
            lines.append(Text(""))
        return Group(*lines, self._text(self._budget_bar()), self._text(self._standing(), "bold"))

    def _line(self, item: Running) -> Text:
        head = f"{item.row.number:4d} ▸ {clock(self.now() - item.began)} · "
        what = "the reference" if self.best is None else ""
        phase = f"{item.phase} done" if item.phase else "first run"
        room = self.console.width - len(head) - len(phase) - 4
        what = what or fitted(item.row.parts, room)
        return self._text(f"{head}{phase} · {what}", "cyan")

    def _budget_bar(self) -> str:
        done = min(round(BAR * self.used / max(self.budget.trials, 1)), BAR)
        return f"{'━' * done}{'·' * (BAR - done)}  {left(self.budget, self.used, self.spent)}"

    def _standing(self) -> str:
        if self.best is None or self.best.outcome is None or self.best.outcome.score is None:
            return "no score yet"
        score, found = self.best.outcome.score, f"trial {self.best.number}"
        text = f"best {figure(score, 5)} ({'the reference' if self.best.number == 0 else found})"
        start = self.reference.outcome.score if self.reference and self.reference.outcome else None
        if start and self.best is not self.reference and self.best.number:
            text += f", {(score - start) / abs(start):+.1%} against the reference"
        return text + self._to_go()

    def _to_go(self) -> str:
        """How long the trials that are left will take if they are like those so far."""
        left, reference = (
            self.budget.trials - self.used,
            self.reference.charges.seconds if self.reference else 0.0,
        )
        if self.live is None or left <= 0 or self.used < 2:
            return ""
        return f" · about {clock((self.spent.seconds - reference) / self.used * left)} to go"

    def _text(self, text: str, style: str = "") -> Text:
        return Text(readable(text, self.console), style=style, no_wrap=True, overflow="crop")


class _Live(Live):
    """Draws until the terminal is gone, and then no more: its thread has nobody to tell."""

    def refresh(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().refresh()


def left(budget: Budget, used: int, spent: Charges) -> str:
    """What is left of the budget: trials, seconds and dollars, the last two only where they are limited."""
    parts = [f"{max(budget.trials - used, 0)} of {budget.trials} trials left"]
    if budget.study_seconds is None:
        parts.append(f"{clock(spent.seconds)} used")
    else:
        parts.append(
            f"{clock(max(budget.study_seconds - spent.seconds, 0))} of {clock(budget.study_seconds)} left"
        )
    if budget.usd is not None:
        parts.append(f"${max(budget.usd - spent.usd, 0):.2f} of ${budget.usd:.2f} left")
    elif spent.usd:
        parts.append(f"${spent.usd:.2f} used")
    return " · ".join(parts)


def title(name: str, spec: StudySpec, console: Console) -> Text:
    """Which study this is; a study without a sandbox says so."""
    better = "lower" if spec.direction == "minimize" else "higher"
    text = f"{name} · {spec.searcher}, seed {spec.searcher_seed} · {spec.task}, {better} is better"
    title = Text(readable(text, console), style="bold")
    if spec.sandbox == "none":
        title.append(readable(" · ", console)).append(" sandbox=none ", style="bold white on red")
    return title


def line(row: Row, left: int) -> str:
    """A trial as a line of a log; `left`: how many more may follow."""
    figures = [
        f"trial {row.number:4d}  {row.word:<11}",
        f"{figure(row.score, 5) or '–':>8}",
        f"{figure(row.delta, 3, '+'):>8}",
        f"{'' if row.probability is None else f'P {row.probability:.2f}':6}",
        f"{clock(row.seconds):>7}",
        f"best {figure(row.best, 5) or '–'}",
        f"{left} left",
    ]
    why = ": ".join(part for part in (fitted(row.parts, 100), row.note) if part)
    return f"{'  '.join(figures)}  {why}".rstrip()
