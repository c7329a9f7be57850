"""What a run leaves: files that are whole or not there, short curves, strict JSON."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from safetensors.numpy import load_file

import eclip
from eclip.run_directory import Result, RunDirectory, commit_of, seconds_since_process_start, thinned


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    config = OmegaConf.create({"seed": 3, "lr": 0.1, "twice": "${lr}"})
    return RunDirectory(tmp_path / "a" / "run", config)


def written(directory: RunDirectory) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads((directory.path / "result.json").read_text(), parse_constant=refuse)


def test_the_config_is_there_from_the_start_with_nothing_left_to_resolve(directory):
    assert OmegaConf.load(directory.path / "config.yaml") == {"seed": 3, "lr": 0.1, "twice": 0.1}


def test_the_result_says_where_its_code_came_from(directory):
    directory.write(Result(status="completed", steps=4, metrics={"mean_rank": 2.5}))
    result = written(directory)
    assert result["package"] == str(Path(eclip.__file__).parent)
    assert result["metrics"] == {"mean_rank": 2.5}
    assert result["peak_memory_bytes"] > 2**24
    assert list(result) == list(Result.__dataclass_fields__)


def test_a_long_curve_is_thinned_and_rounded_and_has_no_nan(directory):
    curve = [
        {"step": float(i), "loss": 1 / 3, "gradient_norm": math.nan if i % 2 else math.inf}
        for i in range(5001)
    ]
    directory.write(Result(curve=curve))
    points = written(directory)["curve"]
    assert len(points) == 200
    assert (points[0]["step"], points[-1]["step"]) == (0, 5000)
    assert points[7]["loss"] == 0.333333
    assert not any("gradient_norm" in point for point in points)


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 202, 1000])
def test_thinning_keeps_the_ends_and_even_steps(count):
    points = [{"step": float(i)} for i in range(count)]
    kept = [point["step"] for point in thinned(points, 200)]
    assert len(kept) == min(count, 200)
    assert kept == sorted(set(kept))
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
        gaps = np.diff(kept)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_metrics_that_are_no_numbers_are_an_error_and_leave_the_old_result(directory):
    directory.write(Result(status="completed"))
    with pytest.raises(ValueError, match="JSON"):
        directory.write(Result(metrics={"mean_rank": math.nan}))
    assert written(directory)["status"] == "completed"


def test_embeddings_are_whole_or_not_there(directory, monkeypatch):
    # a transposed array is not contiguous, which safetensors would write in the wrong order
    image_ND = np.arange(6, dtype=np.float32).reshape(2, 3).T
    directory.write_embeddings({"fold0.image": image_ND})
    path = directory.path / "embeddings.safetensors"
    assert np.array_equal(load_file(path)["fold0.image"], image_ND)

    def full(_arrays: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("eclip.run_directory.save_file", full)
    with pytest.raises(OSError, match="No space"):
        directory.write_embeddings({"fold0.image": image_ND + 1})
    assert np.array_equal(load_file(path)["fold0.image"], image_ND)


def test_the_commit_is_the_checkouts(tmp_path):
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "nowhere") is None
    author = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = commit_of(tmp_path)
    assert commit is not None
    assert len(commit) == 40


def test_seconds_since_the_process_started_include_imports():
    first = seconds_since_process_start()
    assert 0.05 < first <= seconds_since_process_start() < 24 * 3600
