"""`python train.py trainer=ddp` as a person types it: two processes that start, meet, fail and part together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eclip import lean_lightning  # noqa: F401  # isort: skip

import lightning.pytorch as L
import numpy as np
import pytest
from safetensors.numpy import load_file

from eclip.config import ConfigError, check
from eclip.launch import _placed_outside, devices, joined
from tests.eclip.conftest import SMALL, composed
from tests.eclip.test_entry import TRAIN, started

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
ROOT = TRAIN.parent


class Trouble(L.Callback):
    """What one rank meets after step 3: an error, or a signal that kills it."""

    def __init__(self, rank: int, kind: str) -> None:
        self.rank, self.kind = rank, kind

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank != self.rank or trainer.global_step != 3:
            return
        if self.kind == "error":
            raise ValueError("the print is upside down")
        os.kill(os.getpid(), signal.SIGKILL)


TROUBLES = {"error": 0, "kill": 1}


@pytest.fixture(scope="module")
def runs(prints: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, str, float]]:
    """All at once: name -> (run folder, exit status, what it said, seconds)."""
    folder = tmp_path_factory.mktemp("launch")
    where = (f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs")
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**kept, "HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    more: dict[str, list[str]] = {"whole": []}
    for name, rank in TROUBLES.items():
        trouble = f"{{_target_:tests.eclip.test_launch.Trouble,rank:{rank},kind:{name}}}"
        more[name] = [f"+callbacks.trouble={trouble}", "trainer.timeout=60"]
    began, open_runs = time.monotonic(), {}
    for name, overrides in more.items():
        command = [sys.executable, str(TRAIN), *SMALL, *where, *DDP, *overrides, f"run.dir={folder}/{name}"]
        open_runs[name] = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    done = {}
    for name, process in open_runs.items():
        said, _ = process.communicate(timeout=120)
        done[name] = (folder / name, process.returncode, said, time.monotonic() - began)
    return done


def result_of(run: tuple[Path, int, str, float]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run[0] / "result.json").read_text())
    return found


def test_two_processes_leave_what_one_leaves(runs, train):
    folder, status, said, _ = runs["whole"]
    assert status == 0, said
    alone = train()
    assert result_of(runs["whole"])["metrics"] == alone["metrics"]
    assert {item.name for item in folder.iterdir()} == {item.name for item in alone["dir"].iterdir()}
    got, expected = (load_file(path / "embeddings.safetensors") for path in (folder, alone["dir"]))
    assert got.keys() == expected.keys()
    assert all(np.allclose(got[name], expected[name], atol=1e-5) for name in got)


def test_one_table_and_one_log_for_all_processes(runs):
    folder, _, said, _ = runs["whole"]
    assert said.count("mean rank") == 1
    assert (folder / "train.log").read_text().count("fold 0: 40 to learn from") == 1


def test_an_error_of_the_first_rank_ends_the_others(runs):
    _, status, said, _ = runs["error"]
    result = result_of(runs["error"])
    assert status == 1
    assert (result["status"], result["reason"]) == ("crashed", "ValueError: the print is upside down")
    assert said.count("Traceback") == 1
    assert [point["step"] for point in result["curve"]] == [0, 1, 2]


def test_a_rank_that_was_killed_holds_nobody_up(runs):
    result = result_of(runs["kill"])
    assert runs["kill"][1] == 1
    assert result["status"] == "crashed"
    assert result["reason"].startswith("another process is gone, or did not answer for trainer.timeout=60 s")
    assert "another process is gone" in runs["kill"][2]
    assert "Traceback" not in runs["kill"][2]
    assert runs["kill"][3] < 60


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(tmp_path):
    done = started(tmp_path, *SMALL, *DDP, "trainer.batch_size=9")
    assert done.returncode == 2
    assert done.stderr.startswith("trainer.batch_size=9: 2 processes share it")
    assert len(done.stderr.splitlines()) == 1


def settings(*overrides: str) -> Any:
    return check(composed("run.dir=x", *overrides)).trainer


def test_auto_needs_gpus_to_count():
    with pytest.raises(ConfigError, match=r"trainer\.devices=auto: no GPU is seen"):
        devices(settings("trainer=ddp", "trainer.accelerator=cpu"))
    assert devices(settings("trainer.devices=3", "trainer.batch_size=9")) == 3


def test_a_batch_is_shared_evenly_over_all_nodes():
    with pytest.raises(ConfigError, match=r"trainer\.batch_size=8: 6 processes share it.*multiple of 6"):
        settings("trainer.devices=3", "trainer.num_nodes=2", "trainer.batch_size=8")


SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "4321",
}
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}


def test_places_given_by_torchrun_and_by_slurm_are_the_same():
    by_torchrun = _placed_outside(TORCHRUN, 2, 2)
    by_slurm = _placed_outside(SLURM, 2, 2)
    assert by_torchrun == {"RANK": "3", "LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4"}
    assert by_slurm == {**by_torchrun, "MASTER_ADDR": "node07", "MASTER_PORT": "19321"}
    assert _placed_outside({}, 2, 1) is None
    with pytest.raises(
        ConfigError, match=r"trainer\.num_nodes=2: start the processes on every node with torchrun"
    ):
        _placed_outside({}, 2, 2)


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM])
def test_other_processes_than_the_settings_ask_for_are_refused(environment):
    with pytest.raises(ConfigError, match="=4 processes were started, and the settings ask for 2"):
        _placed_outside(environment, 2, 1)


def test_ranks_dealt_out_in_turns_are_refused():
    with pytest.raises(ConfigError, match="--distribution=block"):
        _placed_outside(SLURM | {"SLURM_PROCID": "2"}, 2, 2)


def test_torchrun_without_ddp_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="add trainer=ddp"), joined(settings(), print):
        pass


def test_outside_of_train_py_there_is_no_command_to_repeat(tmp_path):
    with pytest.raises(ConfigError, match=r"python train\.py"), joined(settings(*DDP), print):
        pass
