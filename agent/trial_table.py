"""Trials go in, rows of a table for a terminal come out: the live table and `status` show the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.ledger import StudyLedger
from agent.records import Trial, Value

WORDS = {"out_of_memory": "no memory", "completed": "reverted"}
STYLES = {"kept": "green", "reference": "bold", "reverted": "dim", "cut short": "dim", "duplicate": "yellow",
          "interrupted": "yellow", "running": "cyan"}  # fmt: skip
# for terminals that know no Unicode
ASCII = str.maketrans({"→": "->", "·": "|", "–": "-", "…": "...", "━": "=", "▸": ">", "↓": "v", "↑": "^"})


@dataclass(frozen=True)
class Row:
    """One trial as it is shown. `parts` say what was changed, `word` how it ended, `note` why."""

    number: int
    parts: tuple[str, ...]
    word: str
    score: float | None = None
    delta: float | None = None
    probability: float | None = None
    seconds: float = 0.0
    runs: int = 0
    best: float | None = None
    note: str = ""


def row_of(trial: Trial, recipe: Trial | None, best: Trial | None, reference: Mapping[str, Value]) -> Row:
    """The row of a trial proposed over `recipe`; `best` is the recipe since. reference: values by key."""
    outcome, verdict = trial.outcome, trial.verdict
    return Row(
        number=trial.number,
        parts=changes(trial, recipe, reference),
        word=word_for(trial),
        score=outcome.score if outcome else None,
        delta=verdict.delta if verdict else None,
        probability=verdict.probability if verdict else None,
        seconds=trial.charges.seconds,
        runs=trial.charges.runs,
        best=best.outcome.score if best and best.outcome else None,
        note=plain(_note(trial)),
    )


def changes(trial: Trial, recipe: Trial | None, reference: Mapping[str, Value]) -> tuple[str, ...]:
    """`lr 0.001→0.0003` for each value that differs from what the proposal was laid over, then its edits."""
    over = recipe.overrides if recipe is not None and trial.proposal.base == "recipe" else {}
    before = {**reference, **over}
    names, parts = {*before, *trial.proposal.overrides}, []
    for key, value in trial.proposal.overrides.items():
        if key not in before:
            parts.append(f"{_short(key, names)} {shown(value)}")
        elif before[key] != value:
            parts.append(f"{_short(key, names)} {shown(before[key])}→{shown(value)}")
    files = dict.fromkeys(PurePosixPath(edit.path).name for edit in trial.proposal.edits)
    return tuple(plain(part) for part in [*parts, *(f"edit {name}" for name in files)])


def word_for(trial: Trial) -> str:
    """How a trial ended, in one word that needs no colour."""
    if trial.outcome is None:
        return "running"
    if trial.verdict and trial.verdict.decision != "reverted":
        return trial.verdict.decision
    if trial.outcome.stopped_early:
        return "cut short"
    return WORDS.get(trial.outcome.status, trial.outcome.status)


def reference_values(ledger: StudyLedger) -> dict[str, Value]:
    """What the reference sets for the keys of the search space; they stand in its trial's parameters."""
    trials = ledger.study.get_trials(deepcopy=False)
    return dict(trials[0].params) if trials else {}


def table(rows: Iterable[Row], console: Console, *, header: bool = True) -> Table:
    """Rows in columns whose widths follow from the console's alone, so that separate tables align."""
    wide = console.width >= 110
    gap = 2 if wide else 1
    columns = [
        ("#", 4),
        ("change", 0),
        ("score", 8),
        ("delta", 8),
        ("P", 4),
        ("verdict", 11),
        ("time", 7),
        ("best", 8),
    ]
    if wide:
        columns.insert(6, ("runs", 4))
    rest = console.width - sum(width for _, width in columns) - gap * (len(columns) - 1)
    grid = Table(box=None, show_header=header, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for name, width in columns:
        left = name in ("change", "verdict")
        grid.add_column(
            name,
            width=width or max(rest, 8),
            no_wrap=True,
            justify="left" if left else "right",
            overflow="crop" if console.options.ascii_only else "ellipsis",
        )
    for row in rows:
        cells = {
            "#": str(row.number),
            "change": _change(row, max(rest, 8)),
            "score": figure(row.score, 5),
            "delta": figure(row.delta, 3, "+"),
            "P": "" if row.probability is None else f"{row.probability:.2f}",
            "verdict": row.word,
            "runs": str(row.runs),
            "time": clock(row.seconds),
            "best": figure(row.best, 5),
        }
        style = STYLES.get(row.word, "red")
        grid.add_row(*(Text(readable(cells[name], console), style=style) for name, _ in columns))
    return grid


def fitted(parts: Sequence[str], width: int) -> str:
    """As many parts as fit into `width` cells, and how many more there are: `lr 0.1, wd 0.2 +3`."""
    for count in range(len(parts), 0, -1):
        more = f" +{len(parts) - count}" if count < len(parts) else ""
        text = ", ".join(parts[:count]) + more
        if cell_len(text) <= width or count == 1:
            return text
    return ""


def figure(value: float | None, digits: int, sign: str = "") -> str:
    """A number with so many significant digits, never in scientific notation: 151.20, -0.0312."""
    if value is None or not math.isfinite(value):
        return ""
    size = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:{sign}.{min(max(digits - 1 - size, 0), 6)}f}"


def clock(seconds: float) -> str:
    """1:02, 1:01:02."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shown(value: Value) -> str:
    """An override's value, short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plain(text: str) -> str:
    """One line without control characters: searchers and runs write what they like."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def readable(text: str, console: Console) -> str:
    """The text as the console's encoding can show it."""
    if not console.options.ascii_only:
        return text
    return text.translate(ASCII).encode("ascii", "replace").decode()


def _change(row: Row, width: int) -> str:
    """What was changed and why it failed or what it hoped for; where there is no room for both, the first need."""
    if row.word == "reference":
        return "the reference"
    failed = row.word not in STYLES or row.word in ("duplicate", "interrupted")
    if width < 50 or not row.note or not row.parts:
        return row.note if failed and row.note else fitted(row.parts, width) or row.note
    return f"{fitted(row.parts, width // 2)} · {row.note}"


def _note(trial: Trial) -> str:
    """Why it failed; else what its author expected. Verdicts explain themselves by their figures."""
    if trial.outcome is not None and (trial.outcome.status != "completed"):
        return trial.outcome.reason[:300]
    return trial.proposal.hypothesis[:300]


def _short(key: str, others: Iterable[str]) -> str:
    """`optimizer.lr` is `lr`, and `optimizer.warmup` stays that where there is an `expert.warmup` too."""
    last = key.rsplit(".", 1)[-1]
    shared = sum(other.rsplit(".", 1)[-1] == last for other in others)
    return last if shared <= 1 else ".".join(key.split(".")[-2:])
