"""What a campaign's studies do goes in, a table of them that fills comes out; without a terminal, a line a trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.campaign import Entry
from agent.ledger import StudyLedger
from agent.records import Charges, Trial
from agent.trial_table import clock, figure

BAR = 12


@dataclass
class Line:
    """One study as it stands."""

    entry: Entry
    budget: int = 0
    used: int = 0
    reference: float | None = None
    best: float | None = None
    spent: Charges = field(default_factory=Charges)
    last: str = ""
    state: str = "waiting"

    def read(self, ledger: StudyLedger) -> None:
        """What the ledger says of it."""
        trials, best = ledger.trials(), ledger.best()
        self.budget, self.spent = ledger.spec.budget.trials, ledger.spent()
        counted = [t for t in trials if t.proposal.route != "reference" and t.outcome]
        self.used = sum(not trial.interrupted for trial in counted)
        for trial in trials:
            if trial.verdict and trial.verdict.decision == "reference" and trial.outcome:
                self.reference = trial.outcome.score
        self.best = best.outcome.score if best and best.outcome else None

    @property
    def change(self) -> str:
        """The recipe against the reference."""
        if not self.reference or self.best is None or self.best == self.reference:
            return ""
        return f"{(self.best - self.reference) / abs(self.reference):+.1%}".replace("-", "−")


class CampaignView:
    """Shows a campaign on `console` while in its `with` block. `now` gives seconds.

    trials: of each study's budget, until its ledger, once it is opened, says so itself.
    """

    def __init__(
        self,
        console: Console,
        entries: Sequence[Entry],
        trials: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.now, self.began = console, now, now()
        self.lines = {entry.name: Line(entry, trials) for entry in entries}
        self.done_here = 0
        self.live: Live | None = None

    def __enter__(self) -> CampaignView:
        if self.console.is_terminal:
            self.live = Live(get_renderable=self._render, console=self.console, refresh_per_second=2)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def observer(self, entry: Entry) -> StudyLine:
        return StudyLine(self, self.lines[entry.name])

    def ended(self, entry: Entry, reason: str) -> None:
        line = self.lines[entry.name]
        line.state = reason
        self.say(line, reason)

    def trial_finished(self, line: Line, trial: Trial) -> None:
        self.done_here += 1
        line.state, line.last = "waiting", what_became(trial)
        self.say(line, f"{line.used:3d}/{line.budget}  {line.last}")

    def say(self, line: Line, text: str) -> None:
        """A line of its own where nothing is drawn anew."""
        if self.live is None:
            best = f"   best {line.best:.6g} {line.change}" if line.best is not None else ""
            self.console.print(
                f"{line.entry.name}  {text}{best}", highlight=False, markup=False, soft_wrap=True
            )

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="bold")
        bars = self.console.width >= 100
        name = max(map(len, self.lines), default=0)
        # what is cut where there is no room is the words of `last` and `now`, never a name or a figure
        rest = max(self.console.width - name - (BAR + 7 if bars else 6) - 6 - 6 - 7 - 6 * 2, 16)
        widths = {"study": name, "trials": BAR + 7 if bars else 6, "best": 6, "": 6}
        widths |= {"last": rest // 2, "charged": 7, "now": rest - rest // 2}
        for title, width in widths.items():
            words = title in ("study", "trials", "last", "now")
            table.add_column(title, width=width, no_wrap=True, justify="left" if words else "right")
        for line in self.lines.values():
            done = min(round(BAR * line.used / max(line.budget, 1)), BAR)
            bar = f"{'━' * done}{'·' * (BAR - done)} " if bars else ""
            bar += f"{line.used}/{line.budget}"
            best = figure(line.best, 5)
            cells = (
                line.entry.name,
                bar,
                best,
                line.change,
                line.last,
                clock(line.spent.seconds),
                line.state,
            )
            style = "cyan" if line.state.startswith("trial") else ""
            table.add_row(*(Text(cell) for cell in cells), style=style)
        return Group(table, Text(self.footer(), style="dim"))

    def footer(self) -> str:
        """How far the campaign is, and how long the rest takes if it is like what was done in this sitting."""
        used = sum(line.used for line in self.lines.values())
        whole = sum(line.budget for line in self.lines.values())
        passed = self.now() - self.began
        left = (
            f" · about {clock(passed / self.done_here * (whole - used))} to go" if self.done_here > 2 else ""
        )
        return f"{used} of {whole} trials · {clock(passed)}{left}"


@dataclass
class StudyLine:
    """Hears of one study for the view."""

    view: CampaignView
    line: Line

    def started(self, ledger: StudyLedger) -> None:
        self.line.read(ledger)

    def trial_started(self, trial: Trial) -> None:
        note = ": the reference" if trial.proposal.route == "reference" else ""
        self.line.state = f"trial {trial.number}{note}"

    def progress(self, number: int, phase: str) -> None:
        self.line.state = f"trial {number}: {phase}"

    def trial_finished(self, trial: Trial, ledger: StudyLedger) -> None:
        self.line.read(ledger)
        self.view.trial_finished(self.line, trial)

    def ended(self, ledger: StudyLedger) -> None:
        self.line.read(ledger)


def what_became(trial: Trial) -> str:
    """A trial's end in a few words."""
    outcome, verdict = trial.outcome, trial.verdict
    if outcome is None or verdict is None:
        return ""
    if outcome.status != "completed" or outcome.score is None:
        return f"{outcome.status}: {outcome.reason}"
    return (
        f"{verdict.decision} {figure(outcome.score, 5)}{' (stopped early)' if outcome.stopped_early else ''}"
    )
