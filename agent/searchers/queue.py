"""The queue: lines of JSON enter, one a proposal, and leave in their order; for people, tests and replays.

A line is an object with the fields of `Proposal`, all optional: {"overrides": {"optimizer.lr": 1e-3}}. Which
line comes next is the first of which the history holds no trial, so a resumed study goes on where it stopped
(standard input must then be given from its beginning again). A line that cannot be read is a proposal all the
same: an invalid one, with the line's number and what is wrong, to be rejected and charged. Blank lines do not
count. A file is read anew at each ask, so a person may append to it while the study runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from agent.codec import RecordError, from_json, loads
from agent.records import Proposal, Trial
from agent.searchers.base import Direction, Searcher, Space

LINE = "@line"
LONGEST_LINE = 1 << 20


class QueueSearcher(Searcher):
    """Proposals from lines of bytes; `lines` gives them from the first on, `source` names them in errors."""

    name = "queue"

    def __init__(self, lines: Callable[[], Iterator[bytes]], source: str) -> None:
        self.source = source
        self._lines = lines

    def ask(self, history: Sequence[Trial]) -> Proposal | None:
        """The next line as a proposal, its overrides laid over the recipe unless it says otherwise."""
        tried = {trial.proposal.params.get(LINE) for trial in history if trial.proposal.route == self.name}
        for number, line in enumerate(self._lines(), start=1):
            if line.strip() and number not in tried:
                return self._proposal(number, line)
        return None

    def tell(self, trial: Trial) -> None:
        """Nothing to keep: `ask` reads the history."""

    def _proposal(self, number: int, line: bytes) -> Proposal:
        try:
            if len(line) > LONGEST_LINE:
                raise RecordError(f"longer than {LONGEST_LINE} bytes")
            proposal = from_json(Proposal, loads(line.decode("utf-8-sig")), "proposal")
        except (RecordError, UnicodeDecodeError) as error:
            proposal = Proposal(invalid=f"{self.source}, line {number}: {error}")
        return replace(proposal, searcher=self.name, route=self.name, params={LINE: number})


def queue(*, space: Space, seed: int, direction: Direction = "minimize", path: str) -> QueueSearcher:
    """`path` is a JSONL file, or "-" for standard input. Raises ValueError where there is no such file.

    The proposals are what they are: `space`, `seed` and `direction` are taken because every searcher is made
    alike; the lab checks a queue's proposals against the space as it checks everyone's.
    """
    if path == "-":
        return QueueSearcher(_Remembered(sys.stdin.buffer).lines, "standard input")
    file = Path(path)
    if not file.is_file():
        raise ValueError(
            f"searcher.path={path}: no such file; a queue needs a JSONL file, or - for standard input"
        )
    return QueueSearcher(lambda: iter(file.read_bytes().splitlines()), file.name)


class _Remembered:
    """A stream that can be read from its beginning again, and is read no further than needed."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.seen: list[bytes] = []

    def lines(self) -> Iterator[bytes]:
        yield from self.seen
        for line in self.stream:
            self.seen.append(line)
            yield line
