"""What a person sees of a study: on terminals of several sizes, in a log, without colour, without Unicode."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from agent.live import LiveTable
from agent.records import Budget, Proposal, Trial
from agent.trial_table import changes, clock, figure, fitted, plain
from tests.agent.scripted import REFERENCE, ScriptedStudy, edit


def terminal(width: int = 100, height: int = 30, **options: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, **options)  # type: ignore[arg-type]


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen(text: str) -> list[str]:
    """The lines a terminal ends up with, scroll-back included: it knows newline, return, up and erase."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b"):
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + len(token) :]
            column += len(token)
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n")


def played(path: Path, console: Console, trials: int = 8, **options: object) -> ScriptedStudy:
    """A study of so many trials, every fourth of them kept."""
    budget = Budget(trials=20, seconds=60, study_seconds=3600, usd=2.0)
    study = ScriptedStudy(path, LiveTable(console, budget), budget=budget, **options).begin()  # type: ignore[arg-type]
    study.reference()
    for number in range(1, trials + 1):
        kept = number % 4 == 0
        study.trial(
            {"optimizer.lr": 0.002 + number / 1000}, 101.0 - number * kept, "kept" if kept else "reverted"
        )
    return study


@pytest.mark.parametrize(("width", "height"), [(80, 12), (80, 24), (140, 40), (60, 5)])
def test_every_trial_stays_on_the_terminal_once(tmp_path: Path, width: int, height: int) -> None:
    console = terminal(width, height)
    played(tmp_path / "ledger.db", console).end()
    lines = screen(written(console))
    numbers = [int(line[:4]) for line in lines if re.match(r" *\d+ ", line[:5])]
    assert numbers == list(range(9))
    assert all(len(line) <= width for line in lines)
    assert sum("verdict" in line for line in lines) == 1
    assert not any("▸" in line for line in lines), "the line of the trial under way is gone at the end"
    assert "best 93.000 (trial 8), -7.0% against the reference" in lines[-1]


def test_columns_align_with_the_header(tmp_path: Path) -> None:
    console = terminal(90, 12)
    played(tmp_path / "ledger.db", console).end()
    lines = screen(written(console))
    header = next(line for line in lines if "verdict" in line)
    rows = [line for line in lines if re.match(r" *\d+ ", line[:5])]
    for row in rows:
        assert row[header.index("verdict") :].startswith(("kept", "reverted", "reference"))
        assert row[: header.index("score") + 5].endswith(("100.00", "101.00", "97.000", "93.000"))


def test_what_others_print_stands_above_the_table(tmp_path: Path) -> None:
    console = terminal(90, 30)
    study = played(tmp_path / "ledger.db", console, trials=1)
    print("stopping")
    study.trial({"optimizer.lr": 0.5}, 99.0)
    study.end()
    lines = screen(written(console))
    places = [index for index, line in enumerate(lines) if re.search("stopping|verdict|^   [012] ", line)]
    assert ["stopping" in lines[places[0]], "verdict" in lines[places[1]]] == [True, True]
    assert places[1:] == list(range(places[1], places[1] + 4))


def test_live_part_tells_of_the_trial_under_way_and_of_the_budget(tmp_path: Path) -> None:
    seconds = iter([float(second) for second in range(1000)])
    console, budget = terminal(120), Budget(trials=20, seconds=60, study_seconds=3600, usd=2.0)
    table = LiveTable(console, budget, now=lambda: next(seconds))
    study = ScriptedStudy(tmp_path / "ledger.db", table, budget=budget).begin()
    study.reference()
    study.trial({"optimizer.lr": 0.01}, 95.0, "kept")
    trial = study.start(Proposal({"optimizer.lr": 0.02}))
    study.observers.progress(trial.number, "seed 0, fold 1 of 3")
    lines = screen(written(console))
    assert re.search(r"2 ▸ 0:\d\d · seed 0, fold 1 of 3 done · lr 0.01→0.02", "\n".join(lines))
    # the reference used 60 seconds and a cent, trial 1 used 30 and a cent; trial 2 is under way
    assert "19 of 20 trials left · 58:30 of 1:00:00 left · $1.98 of $2.00 left" in "\n".join(lines)
    study.end()


def test_a_log_gets_one_plain_line_a_trial(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    played(tmp_path / "ledger.db", console, trials=4).end()
    lines = written(console).splitlines()
    assert "\x1b" not in written(console)
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["trial", "0", "reference"], ["trial", "1", "reverted"], ["trial", "2", "reverted"],
        ["trial", "3", "reverted"], ["trial", "4", "kept"],
    ]  # fmt: skip
    assert lines[5].split()[3:] == [
        "97.000",
        "-3.00",
        "P",
        "0.95",
        "0:30",
        "best",
        "97.000",
        "16",
        "left",
        "lr",
        "0.001→0.006",
    ]
    assert len(lines) == 7


def test_resumed_study_shows_what_was_there(tmp_path: Path) -> None:
    played(tmp_path / "ledger.db", terminal()).end()
    console = terminal(100, 10)
    study = ScriptedStudy(tmp_path / "ledger.db", LiveTable(console, Budget(20, 60, 3600, 2.0)))
    study.begin().trial({"optimizer.lr": 0.5}, 105.0)
    study.end()
    numbers = [int(line[:4]) for line in screen(written(console)) if re.match(r" *\d+ ", line[:5])]
    assert numbers == list(range(10))
    log = Console(file=io.StringIO())
    ScriptedStudy(tmp_path / "ledger.db", LiveTable(log, Budget(20, 60, 3600, 2.0))).begin().end()
    assert "resumed after 10 trials; best 93.000 (trial 8)" in written(log)


def test_failures_say_why_and_need_no_colour(tmp_path: Path) -> None:
    console = terminal(130, no_color=True)
    budget = Budget(20, 60)
    study = ScriptedStudy(tmp_path / "ledger.db", LiveTable(console, budget), budget=budget).begin()
    study.reference()
    study.failed({"optimizer.lr": 1.0}, "diverged", "loss is nan at step 3")
    study.failed({"optimizer.lr": 7.0}, "rejected", "optimizer.lr: 7.0 is above 1.0")
    study.failed({}, "out_of_memory", "used more memory than the sandbox allows and was killed")
    study.end()
    text = "\n".join(screen(written(console)))
    assert re.search(r"lr 0.001→1 · loss is nan at step 3 .*diverged", text)
    assert re.search(r"optimizer.lr: 7.0 is above 1.0 .*rejected", text)
    assert re.search(r"used more memory than the sandbox allows.* no memory", text)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", written(console))


def test_text_of_searchers_and_runs_cannot_steer_the_terminal(tmp_path: Path) -> None:
    console = terminal(160)
    study = played(tmp_path / "ledger.db", console, trials=0)
    evil = "\x1b]0;title\x07\x1b[2J[red]a\nb\r\u202egnp.exe"
    study.failed({"optimizer.lr": 0.5}, "crashed", evil)
    study.trial({"model.pooling": "mean"}, 99.0, hypothesis=evil)
    study.observers.progress(study.start(Proposal({})).number, evil)
    study.end()
    assert not re.search(r"\x1b\]|\x1b\[2J|\x07|\u202e", written(console))
    assert "[red]a b gnp.exe" in "\n".join(screen(written(console)))


def test_study_without_sandbox_says_so_in_its_title(tmp_path: Path) -> None:
    for sandbox, said in (("none", True), ("bubblewrap", False)):
        console = Console(file=io.StringIO())
        played(tmp_path / f"{sandbox}.db", console, trials=0, sandbox=sandbox).end()
        assert ("sandbox=none" in written(console).splitlines()[0]) is said


def test_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    study = played(tmp_path / "ledger.db", Console(file=file, force_terminal=True, width=100, height=12))
    study.trial({"optimizer.lr": 0.5}, 90.0, hypothesis="浮世絵 " * 30)
    study.end()
    file.flush()
    assert b"lr 0.001->0.006" in file.buffer.getvalue()  # type: ignore[attr-defined]


def test_closed_pipe_or_terminal_does_not_end_the_study(tmp_path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        console = Console(file=pipe)
        study = played(tmp_path / "pipe.db", console, trials=0)
        os.close(read)
        study.trial({"optimizer.lr": 0.5}, 99.0)
        study.trial({"optimizer.lr": 0.6}, 98.0)
        study.end()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    assert len(study.ledger.trials()) == 3
    closed = terminal()
    study = played(tmp_path / "closed.db", closed, trials=0)
    closed.file.close()
    study.trial({"optimizer.lr": 0.5}, 99.0)
    study.end()
    assert len(study.ledger.trials()) == 2


def test_ending_before_the_start_is_nothing(tmp_path: Path) -> None:
    console = terminal()
    study = ScriptedStudy(tmp_path / "ledger.db", LiveTable(console, Budget(20, 60, 3600, 2.0)))
    study.observers.ended(study.ledger)
    assert written(console) == ""


def test_changes_are_told_against_what_the_proposal_was_laid_over() -> None:
    recipe = Trial(4, Proposal(), {"optimizer.lr": 0.01})
    over = {"optimizer.lr": 0.02, "loss.scale": 1.0, "aug.scale": 0.25}
    laid = Trial(5, Proposal(over, edit("src/toy/model.py")), over)
    # loss.scale is what it was; two keys end in scale, so that one is told with its section
    assert changes(laid, recipe, REFERENCE) == ("lr 0.01→0.02", "aug.scale 0.5→0.25", "edit model.py")
    sampled = Trial(5, Proposal(over, base="reference"), over)
    assert changes(sampled, recipe, REFERENCE)[0] == "lr 0.001→0.02"


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (151.2, 5, "", "151.20"), (0.8231, 5, "", "0.82310"), (-0.03124, 3, "+", "-0.0312"), (12.0, 3, "+", "+12.0"),
        (123456.0, 5, "", "123456"), (0.0, 3, "+", "+0.00"), (1e-9, 3, "", "0.000000"), (None, 5, "", ""),
        (float("nan"), 5, "", ""),
    ],
)  # fmt: skip
def test_figures_have_significant_digits_and_no_exponent(
    value: float | None, digits: int, sign: str, text: str
) -> None:
    assert figure(value, digits, sign) == text


def test_small_text_helpers() -> None:
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]
    assert fitted(["lr 1", "decay 2", "width 3"], 16) == "lr 1, decay 2 +1"
    assert fitted(["a long first part that has no room"], 5) == "a long first part that has no room"
    assert plain("a\x1b[31m\tb\n") == "a [31m b"
