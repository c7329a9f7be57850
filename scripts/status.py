"""The ledger goes in; where its studies stand comes out. It only reads, also beside a study that runs.

python scripts/status.py                  all studies
python scripts/status.py NAME             one study: its trials, its recipe, what is left, who runs it
python scripts/status.py NAME --json      for programs
python scripts/status.py ledger=postgresql+psycopg://…    another ledger than runs/ledger.db
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.codec import to_json
from agent.external.chair import Chair
from agent.ledger import Ledger, LedgerError, Owner, StudyLedger
from agent.live import left, title
from agent.progress import curve, used
from agent.recipe_file import how_to_run
from agent.records import Trial, lineage
from agent.task import Task
from agent.trial_table import clock, figure, plain, readable, reference_values, row_of, shown, table

ROOT = Path(__file__).resolve().parent.parent
LEDGER = f"sqlite:///{ROOT / 'runs' / 'ledger.db'}"
COLUMNS = ("study", "searcher", "seed", "trials", "best", "change", "spent", "usd", "state")
ENDS = ("ended", "stopped", "resumed")


def main(words: Sequence[str] | None = None) -> int:
    """Prints what was asked for; 1 with a reason where there is no such ledger or study."""
    parser = argparse.ArgumentParser(
        usage="status.py [[study=]NAME] [ledger=URL] [--json]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="study=NAME")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(words)
    # NAME alone is a study's; ledger.url is what the commands that Hydra composes call it
    words = [word if "=" in word else f"study={word}" for word in given.words]
    chosen = dict(word.replace("ledger.url=", "ledger=", 1).partition("=")[::2] for word in words)
    if unknown := sorted(chosen.keys() - {"study", "ledger"}):
        parser.error(f"unknown {', '.join(unknown)}; known are study=NAME and ledger=URL")
    try:
        ledger = existing(chosen.get("ledger", LEDGER))
        names = [chosen["study"]] if chosen.get("study") else ledger.studies()
        studies = [ledger.study(name) for name in names]
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    if given.json:
        found = [described(study, trials=bool(chosen.get("study"))) for study in studies]
        print(json.dumps(found[0] if chosen.get("study") else found, indent=1, ensure_ascii=False))
    elif chosen.get("study"):
        print_study(studies[0], Console())
    else:
        print_studies(studies, Console())
    return 0


def existing(url: str) -> Ledger:
    """Opens a ledger without making one. Raises LedgerError."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).is_file():
        raise LedgerError(
            f"there is no ledger at {path} yet; a study makes it: make optuna-sweep budget=smoke"
        )
    return Ledger.open(url)


def state(study: StudyLedger) -> str:
    """Running and where, or how it ended."""
    if holder := study.holder():
        owner = Owner.parse(holder.owner)
        if owner.alive() is None:
            held = f"held on {owner.machine}, seen {clock(holder.seen)} ago"
            return held if holder.left > 0 else f"{held}; the same command resumes it"
        return f"running, process {owner.pid}" if owner.alive() else "killed; the same command resumes it"
    last = next((event for event in reversed(study.events()) if event["event"] in ENDS), {"event": ""})
    if last["event"] in ("ended", "stopped"):
        reason = plain(str(last.get("reason", "")))
        return reason if reason.startswith(last["event"]) else f"{last['event']}: {reason}"
    if study.spec.searcher == "external" and study.trials():
        seated = Chair(study, lambda: 0.0).holding()
        return f"waits for its researcher{f', {plain(seated.client.by)}' if seated else ''}"
    return "broken off; the same command resumes it" if study.trials() else "not begun"


def described(study: StudyLedger, *, trials: bool) -> dict[str, Any]:
    """A study as JSON values, with every trial or without."""
    best, all_trials = study.best(), study.trials()
    found = {
        "study": study.name,
        "state": state(study),
        "spec": to_json(study.spec),
        "trials_used": used(all_trials),
        "spent": to_json(study.spent()),
        "best": None
        if best is None
        else {"trial": best.number, "score": score_of(best), "commit": best.commit},
        "recipe": {} if best is None else to_json(best.overrides),
        "recipe_edits": [] if best is None else edited(best, all_trials),
    }
    return found | ({"trials": to_json(all_trials), "events": to_json(study.events())} if trials else {})


def print_studies(studies: Sequence[StudyLedger], console: Console) -> None:
    """One line a study."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    # a study's name holds its searcher and seed, as a rule: where there is no room, the state needs it more
    spared = ("searcher", "seed") if console.width < 100 else ()
    if not any(study.spent().usd or unknown_dollars(study) for study in studies):
        spared = (*spared, "usd")
    columns = [name for name in COLUMNS if name not in spared]
    for name in columns:
        words_ = name in ("study", "searcher", "state")
        grid.add_column(
            name, justify="left" if words_ else "right", no_wrap=name != "state", min_width=len(name)
        )
    for study in studies:
        spent, best, trials = study.spent(), study.best(), study.trials()
        start = next((t for t in trials if t.proposal.route == "reference" and score_of(t)), None)
        dollars = "?" if unknown_dollars(study) else f"{spent.usd:.2f}"
        cells = {
            "study": study.name,
            "searcher": study.spec.searcher,
            "seed": str(study.spec.searcher_seed),
            "trials": f"{used(trials)}/{study.spec.budget.trials}",
            "best": figure(score_of(best), 5),
            "change": gain(best, start),
            "spent": clock(spent.seconds),
            "usd": dollars,
            "state": state(study) + (" · sandbox=none" if study.spec.sandbox == "none" else ""),
        }
        style = "green" if cells["state"].startswith("running") else ""
        grid.add_row(*(Text(readable(cells[name], console), style=style) for name in columns))
    console.print(grid if studies else "the ledger holds no study yet")


def unknown_dollars(study: StudyLedger) -> bool:
    """Whether a client has not said what its model cost."""
    return not all(trial.proposal.dollars_known for trial in study.trials())


def print_study(study: StudyLedger, console: Console) -> None:
    """Title, all trials, the recipe, what is left and who holds it."""
    values, points, best = reference_values(study), curve(study), study.best()
    rows = [row_of(point.trial, point.recipe, point.best, values) for point in points]
    console.print(title(study.name, study.spec, console))
    console.print(table(rows, console))
    holder = study.holder()
    alive = holder is not None and holder.alive()
    for trial in (trial for trial in study.trials() if trial.outcome is None):
        phase = plain(str(study.progress(trial.number).get("phase", "started")))
        where = "under way" if alive else "left behind by a killed process"
        say(
            console,
            f"{trial.number:4d} {where}: {phase} · {clock(trial.charges.seconds)}",
            "cyan" if alive else "yellow",
        )
    say(console, "")
    if best is not None:
        print_recipe(study, best, console)
    say(console, f"{left(study.spec.budget, used(study.trials()), study.spent())}")
    say(console, state(study), "bold")


def print_recipe(study: StudyLedger, best: Trial, console: Console) -> None:
    """What the best so far sets, against the reference."""
    values = reference_values(study)
    reference = study.trials()[0]
    say(
        console,
        f"recipe: trial {best.number}, {figure(score_of(best), 5)} {gain(best, reference)}",
        "bold green",
    )
    for key, value in sorted(best.overrides.items()):
        before = values.get(key)
        if before != value:
            say(
                console,
                f"  {key} = {shown(value)}" + (f" (reference: {shown(before)})" if key in values else ""),
            )
    for path in edited(best, study.trials()):
        say(console, f"  edited: {path}")
    if best.commit:
        say(console, f"  commit {best.commit[:12]} · git log lab/{study.name}")
    task_file = ROOT / "configs" / "task" / f"{study.spec.task}.yaml"
    if task_file.is_file():
        base = study.spec.details.get("base", ())
        say(console, f"  {how_to_run(study.name, Task.load(task_file, ROOT), base, best)}")


def edited(best: Trial, trials: Sequence[Trial]) -> list[str]:
    """The files that the recipe's line of kept trials has edited."""
    return sorted({edit.path for step in lineage(best, trials) for edit in step.proposal.edits})


def score_of(trial: Trial | None) -> float | None:
    return trial.outcome.score if trial is not None and trial.outcome is not None else None


def gain(best: Trial | None, reference: Trial | None) -> str:
    """The change against the reference's score, signed as the score goes."""
    score, start = score_of(best), score_of(reference)
    return "" if score is None or not start or best is reference else f"{(score - start) / abs(start):+.1%}"


def say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(readable(plain_end(text), console), style=style), soft_wrap=True)


def plain_end(text: str) -> str:
    """The text without control characters, its indentation kept."""
    indent = len(text) - len(text.lstrip(" "))
    return " " * indent + plain(text)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `status.py --json | head` is no error
    sys.exit(main())
