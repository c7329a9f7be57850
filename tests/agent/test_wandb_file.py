"""When a W&B run is on the disk as a whole: files by W&B's rules and by W&B itself, cut and still being written."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import HistoryRecord, Record, RunExitRecord

from agent import wandb_runs
from agent.records import Outcome, Proposal, Trial, Verdict
from agent.wandb_file import BLOCK, FILE_HEAD, HEAD, ended, written
from agent.wandb_runs import RunFolder, RunFolderError
from tests.agent.test_ledger import SPEC

EXIT = Record(num=7, exit=RunExitRecord(exit_code=0, runtime=12)).SerializeToString()


def history(size: int) -> bytes:
    """A record that is no run's end, of at least so many bytes."""
    record = Record(num=3, history=HistoryRecord())
    record.history.item.add(key="x", value_json="1" * size)
    return record.SerializeToString()


def as_written(*records: bytes) -> bytes:
    """A file of these records, by LevelDB's rules."""
    data = bytes(FILE_HEAD)
    for record in records:
        begun = False
        while record or not begun:
            if (room := BLOCK - len(data) % BLOCK) < HEAD:
                data += bytes(room)
                continue
            piece, record = record[: room - HEAD], record[room - HEAD :]
            kind = (3 if record else 4) if begun else (2 if record else 1)
            data += bytes(4) + len(piece).to_bytes(2, "little") + bytes([kind]) + piece
            begun = True
    return data


def test_an_end_is_found_wherever_a_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "run.wandb"
    border = BLOCK - FILE_HEAD - HEAD - len(history(0))
    for size in (0, *range(border - 60, border + 20), 5 * BLOCK):
        file.write_bytes(as_written(history(10), history(size), EXIT))
        assert ended(file), size
        file.write_bytes(as_written(history(10), EXIT, history(size)))
        assert not ended(file), size


def test_a_file_without_its_last_bytes_has_no_end(tmp_path: Path) -> None:
    file, data = tmp_path / "run.wandb", as_written(history(BLOCK), EXIT)
    assert not ended(file)
    for length in (0, FILE_HEAD, 100, BLOCK, *range(len(data) - 60, len(data))):
        file.write_bytes(data[:length])
        assert not ended(file), length
    assert not written(file, 0.0)


def test_it_waits_for_what_is_still_being_written(tmp_path: Path) -> None:
    file, data = tmp_path / "run.wandb", as_written(history(100), EXIT)
    file.write_bytes(data[:-1])

    def the_rest() -> None:
        with file.open("ab") as stream:
            stream.write(data[-1:])

    timer = threading.Timer(0.05, the_rest)
    timer.start()
    assert written(file, 10.0)
    timer.join()


def test_a_run_of_wandbs_own_is_whole_and_half_of_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = RunFolder(tmp_path, "kento-test", "story", SPEC, "token")
    curve = tuple({"step": float(step), "loss": 1.0} for step in range(200))
    trial = Trial(0, Proposal(), outcome=Outcome("diverged", curve=curve), verdict=Verdict("reverted"))
    runs.write_trial(trial, {})
    assert runs.has(trial)
    [file] = tmp_path.glob("wandb/offline-run-*/run-token-0000.wandb")
    assert ended(file)
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(wandb_runs, "END_SECONDS", 0.0)
    with pytest.raises(RunFolderError, match="was not written, or not all of it"):
        runs._close(file.parent, "token-0000")
