"""`python train.py` with settings that are wrong: status 2 and one message that says what is allowed, and where."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eclip.config import Settings, check
from eclip.entry import keys_of, one_line_refusals
from tests.eclip.conftest import composed

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


def started(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """From a folder of its own, with a home without keys, and nobody to answer a prompt."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
        if name in os.environ
    }
    return subprocess.run(
        [sys.executable, str(TRAIN), *overrides],
        cwd=folder, env={**kept, "HOME": str(folder), **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


WRONG = [
    ("optimizer.lr=-1", "optimizer.lr=-1: expected a number in (0, 1] (configs/optimizer/adamw.yaml)"),
    (
        "trainer.max_steps=many",
        "trainer.max_steps=many: expected a whole number in [1, 1e+07] (configs/trainer/default.yaml)",
    ),
    (
        "model=clip_tiny model.image.heads=5",
        "model.image.heads=5: must divide model.image.width=96 (configs/model/clip_tiny.yaml)",
    ),
    ("seed=-1", "seed=-1: expected a whole number in [0, 2.14748e+09]"),
    ("optimizer.lrr=1", "optimizer.lrr: unknown key; did you mean optimizer.lr"),
    ("model.logit_scale.maximum=3", "model.logit_scale.maximum: unknown key; did you mean model.logit_scale."),
    ("+optimizer.momentum=1", "optimizer.momentum=1: unknown key; allowed: beta1"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_one_line_and_status_two(tmp_path, overrides, message):
    done = started(tmp_path, *overrides.split())
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("override", "message"),
    [("model=nothing", "eclip_vits"), ("optimizer.lr=[1", "optimizer.lr=[1"), ("nonsense", "nonsense")],
)
def test_hydras_own_refusals_are_short_and_say_what_there_is(tmp_path, override, message):
    done = started(tmp_path, override)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 12


ABSENT = [
    ("run.resume=outputs/none", "run.resume=outputs/none: no such run folder"),
    ("run.dir=/dev/null/run", "run.dir=/dev/null/run: Not a directory"),
    (
        "data=ukiyoe_vg",
        "data.root=data/ukiyoe_vg: no such folder; fetch it with `make data`, or use data=synthetic",
    ),
]


@pytest.mark.parametrize(("override", "message"), ABSENT)
def test_what_is_not_there_is_one_line_too_and_no_stack(tmp_path, override, message):
    done = started(tmp_path, override, "logger=none")
    assert done.returncode == 2
    assert done.stderr == f"{message}\n"


def test_a_path_that_is_told_by_its_key_is_one_line():
    @one_line_refusals
    def run(config):
        raise config

    with pytest.raises(SystemExit) as ended:
        run(FileNotFoundError("model.image.weights=./nowhere: no such file or directory"))
    assert ended.value.code == 2
    with pytest.raises(FileNotFoundError, match="No such file"):
        run(FileNotFoundError(2, "No such file or directory", "inner.bin"))  # a fault of ours, with its stack


def test_a_crash_shows_its_own_frames_and_none_of_hydras(tmp_path):
    done = started(tmp_path, "data.root=/dev/null/prints", "logger=none")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "train.py" in done.stderr
    assert "FileExistsError" in done.stderr.splitlines()[-1]
    assert "/hydra/" not in done.stderr


def test_the_keys_are_those_of_the_composed_config():
    known = set(keys_of(Settings))
    assert {"seed", "optimizer.lr", "model.image.pooling", "expert.probability.max"} <= known
    check(composed("run.dir=x"))  # and the other way round: nothing in the configs is unknown
    assert "optimizer" not in known


FREED = """
import eclip.entry, resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    [bytearray(b"x") * 2**23 for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's")
def test_freed_memory_is_taken_again_without_faults_unless_the_environment_says_otherwise():
    faults = {}
    for threshold in ("", "131072"):
        told = {"MALLOC_MMAP_THRESHOLD_": threshold} if threshold else {}
        faults[threshold] = int(
            subprocess.run(
                [sys.executable, "-c", FREED], capture_output=True, text=True, check=True,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TRAIN.parent / "src"), **told},
            ).stdout
        )  # fmt: skip
    once = 4 * 2**23 // 4096
    assert faults[""] < 2 * once
    assert faults["131072"] > 10 * once
