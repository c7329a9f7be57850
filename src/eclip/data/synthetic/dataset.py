"""A folder and a seed go in; drawn prints in the file layout of Ukiyo-eVG come out, complete or not at all.

The prints are drawn into a hidden folder beside the destination and renamed into place when the last is done,
under a lock, so that a killed run leaves nothing to mistake for a data set and two runs at once leave one.
`dataset.json` in the folder says what was drawn: asking for the same again costs nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eclip.data.synthetic.workshop import draw_all

VERSION = 2  # counts changes of what is drawn or written: data sets of another version are drawn anew
MARKER = "dataset.json"
VALIDATION_SHARE = 9  # one print in nine of the pool is written to the validation file: 8 : 1
FILES = {
    "train": "annotations/Ukiyo-eVG/refined/ukiyoe_vg_train_pgt_odvg.jsonl",
    "val": "annotations/Ukiyo-eVG/refined/ukiyoe_vg_val_pgt_odvg.jsonl",
    "test": "annotations/Ukiyo-eVG/ukiyoe_vg_test_annotated.jsonl",
}


@dataclass(frozen=True)
class DatasetSummary:
    """What stands in a drawn folder; equal summaries mean equal files."""

    version: int
    seed: int
    prints: int
    test_prints: int

    @property
    def counts(self) -> dict[str, int]:
        """Prints in each split."""
        val = self.prints // VALIDATION_SHARE
        return {"train": self.prints - val, "val": val, "test": self.test_prints}


def draw_dataset(
    root: Path,
    *,
    prints: int = 6000,
    test_prints: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> DatasetSummary:
    """Draw `prints` prints for training and validation and `test_prints` for the test under `root`.

    Print i of a seed depends on (seed, i) alone: neither `workers` (None: one per core) nor the machine
    changes it. A folder that this function wrote with other parameters is replaced; any other folder that is
    not empty is refused with a FileExistsError.
    """
    if prints < VALIDATION_SHARE or test_prints < 1:
        least = f"at least prints={VALIDATION_SHARE} and test_prints=1"
        raise ValueError(f"prints={prints} and test_prints={test_prints}: draw {least}")
    root = Path(root).absolute()
    wanted = DatasetSummary(VERSION, seed, prints, test_prints)
    with _locked(root):
        if _summary(root) == wanted:
            return wanted
        _refuse_foreign(root)
        for left in root.parent.glob(f".{root.name}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)  # by a killed run, whose children may still be writing
        partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.partial-", dir=root.parent))
        partial.chmod(0o755)
        try:
            _write(partial, wanted, workers or os.cpu_count() or 1, progress)
            _move_into_place(partial, root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return wanted


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Only one process at a time draws this folder; the others wait and then find it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f".{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _summary(root: Path) -> DatasetSummary | None:
    """What the marker says, None without a readable one."""
    try:
        fields: dict[str, Any] = json.loads((root / MARKER).read_text())
        return DatasetSummary(**{key: fields[key] for key in ("version", "seed", "prints", "test_prints")})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not (root.is_dir() and (_summary(root) or not any(root.iterdir()))):
        raise FileExistsError(
            f"{root} holds something that draw_dataset did not write (no readable {MARKER}): "
            "choose another folder or remove this one"
        )


def _write(folder: Path, wanted: DatasetSummary, workers: int, progress: bool) -> None:
    """All images, the annotation files and, last, the marker."""
    (folder / "images").mkdir()
    total = wanted.prints + wanted.test_prints
    lines: list[str] = [""] * total
    drawn = draw_all(folder / "images", wanted.seed, total, workers)
    silent = None if progress else True  # None: only where the output is a terminal
    for index, line in tqdm(drawn, total=total, desc="drawing prints", unit="print", disable=silent):
        lines[index] = line
    for split, indices in _splits(wanted).items():
        file = folder / FILES[split]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines[index] + "\n" for index in indices), encoding="utf-8")
    (folder / MARKER).write_text(json.dumps({**asdict(wanted), "counts": wanted.counts}, indent=2) + "\n")


def _splits(wanted: DatasetSummary) -> dict[str, list[int]]:
    """The pool's prints, every ninth of them to validation; the test prints follow the pool."""
    pool = range(wanted.prints)
    return {
        "train": [i for i in pool if i % VALIDATION_SHARE != VALIDATION_SHARE - 1],
        "val": [i for i in pool if i % VALIDATION_SHARE == VALIDATION_SHARE - 1],
        "test": list(range(wanted.prints, wanted.prints + wanted.test_prints)),
    }


def _move_into_place(partial: Path, root: Path) -> None:
    old = root.with_name(f".{root.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if root.exists():
        root.rename(old)
    partial.rename(root)
    shutil.rmtree(old, ignore_errors=True)
