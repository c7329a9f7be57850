"""The file of an offline W&B run goes in; whether W&B has written the run's end comes out.

W&B's own process writes the file, and says that a run has ended before the end is on the disk: tens of
milliseconds pass on a busy machine, and on a full disk it never gets there.

The file is a log as LevelDB writes it (doc/log_format.md there): blocks of 32 KiB hold pieces, a piece is checksum
(4 bytes), length (2), kind (1) and data, and a record is one piece or several. The last record of a whole run is an
`exit`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

BLOCK, HEAD = 32_768, 7
FILE_HEAD = 7  # of the file as a whole, in its first block
WHOLE, FIRST, LAST = 1, 2, 4  # kinds of pieces; others are in the middle of a record
POLL_SECONDS = 0.005


def written(file: Path, seconds: float) -> bool:
    """Whether the run's last record is in the file, at the latest after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ended(file):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def ended(file: Path) -> bool:
    """Whether the last whole record of the file is a run's end. A file that is not there has none."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

    try:
        with file.open("rb") as stream:
            # the last two blocks: a run's end is short, and may lie across their border
            start = max(file.stat().st_size // BLOCK - 1, 0) * BLOCK
            stream.seek(start)
            records = list(_records(stream.read(), FILE_HEAD if start == 0 else 0))
    except FileNotFoundError:
        return False
    return bool(records) and Record.FromString(records[-1]).WhichOneof("record_type") == "exit"


def _records(data: bytes, at: int) -> Iterator[bytes]:
    """Records that begin and end in `data`, which begins at a block's border."""
    parts: bytes | None = None
    while at + HEAD <= len(data):
        if (room := BLOCK - at % BLOCK) < HEAD:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        piece = data[at + HEAD : at + HEAD + length]
        if len(piece) < length:
            return
        at += HEAD + length
        if kind in (WHOLE, FIRST):
            parts = b""
        if parts is not None:
            parts += piece
            if kind in (WHOLE, LAST):
                yield parts
                parts = None
