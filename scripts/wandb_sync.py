"""A study's W&B runs on disk go in; they are uploaded within a time limit, and a table says what was.

    python scripts/wandb_sync.py study=NAME [seconds=600] [runs=runs]

Needs a key: WANDB_API_KEY, or `wandb login`. A run that was uploaded is skipped the next time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.wandb_upload import Upload, complete, uploaded

ROOT = Path(__file__).resolve().parent.parent
SECONDS, SECONDS_A_RUN = 60.0, 5.0


def main(words: Sequence[str] | None = None) -> int:
    """Uploads, prints the table; 0 if nothing is left to upload."""
    parser = argparse.ArgumentParser(usage="wandb_sync.py study=NAME [seconds=600] [runs=runs]")
    parser.add_argument("words", nargs="*", metavar="study=NAME")
    given = dict(word.partition("=")[::2] for word in parser.parse_args(words).words)
    if not given.get("study") or given.keys() - {"study", "seconds", "runs"}:
        parser.error("expected study=NAME, and perhaps seconds=600 or runs=FOLDER")
    folder = ROOT / given.get("runs", "runs") / given["study"]
    runs = complete(folder)
    if not runs:
        print(
            f"{folder / 'wandb'} holds no runs; studies with tracker.name=wandb write them", file=sys.stderr
        )
        return 1
    waiting = [run for run in runs if not uploaded(run)]
    problem = ""
    if waiting:
        seconds = float(given.get("seconds") or SECONDS + SECONDS_A_RUN * len(waiting))
        print(f"uploading {len(waiting)} runs, for at most {seconds:.0f} s …", file=sys.stderr)
        problem = send(waiting, seconds)
    Console().print(result(runs, waiting))
    if problem:
        print(f"not all is uploaded: {problem}", file=sys.stderr)
    return 1 if problem else 0


def send(runs: Sequence[Path], seconds: float) -> str:
    """Why not all was uploaded; empty if all was. Ctrl-C ends the upload, too."""
    upload = Upload.start(runs, seconds)
    try:
        upload.wait()
    finally:
        upload.kill()
    return upload.problem()


def result(runs: Sequence[Path], waiting: Sequence[Path]) -> Table:
    """One line a run."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "kB", "result"):
        grid.add_column(name, justify="right" if name == "kB" else "left")
    for run in runs:
        file = next(run.glob("run-*.wandb"))
        word, style = ("uploaded", "green") if uploaded(run) else ("not uploaded", "red")
        if run not in waiting:
            word, style = "was uploaded before", "dim"
        cells = (file.stem.removeprefix("run-"), f"{file.stat().st_size / 1000:.0f}", word)
        grid.add_row(*(Text(cell, style=style) for cell in cells))
    return grid


if __name__ == "__main__":
    sys.exit(main())
