"""Whole runs over the real configs on sixty prints: budgets, reproducibility, resumption, outcomes, every knob."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from eclip.config import ConfigError, check
from eclip.data.source import open_pool
from eclip.judge import judge
from eclip.lightning_module import Diverged
from eclip.run import Run
from eclip.sealing import seal_folds
from tests.eclip.conftest import composed

KNOBS = [
    "optimizer.weight_decay=0.1",
    "optimizer.beta1=0.5",
    "optimizer.beta2=0.9",
    "optimizer.warmup=0.5",
    "optimizer.cosine_floor=0.5",
    "optimizer.gradient_clip=0.01",
    "optimizer.factors.image=0.1",
    "optimizer.factors.text=0.1",
    "optimizer.factors.heads=0.1",
    "trainer.batch_size=12",
    "trainer.accumulate=2",
    "model.projection.dim=8",
    "model.projection.layers=2",
    "model.projection.dropout=0.3",
    "model.text.pooling=mean",
    "model.text.pooling=max",
    "model.image.pooling=cls",
    "model.image.patch_size=32",
    "model.image.dropout=0.2",
    "model.text.dropout=0.2",
    "model.logit_scale.init=5",
    "model.logit_scale.max=2",
    "model.logit_scale.min=50",
    "model.image.frozen=true",
    "model.text.frozen=true",
    "model.ema_decay=0.9",
    "loss.label_smoothing=0.1",
    "loss.hard_negative=0.5",
    "loss=siglip",
    "augment.crop_scale=0.5",
    "augment.color_jitter=0.4",
    "expert=none",
    "expert.probability.schedule=phased",
    "expert.mixup_alpha=5",
    "expert.weight=1",
    "expert.reconstruction.weight=1",
    "expert.fusion=pixel_mask",
    "expert.fusion=weighted_pooling",
    "expert.fusion=prompt_tokens",
    "expert.fusion=input_channel",
    "expert.fusion=attention_bias",
    "model=clip_tiny",
    "seed=1",
]


@pytest.fixture(scope="module")
def plain(train):
    return train()


def image_embeddings(result) -> np.ndarray:
    return load_file(result["dir"] / "embeddings.safetensors")["fold0.image"]


def test_a_run_leaves_what_the_contract_says(plain):
    assert plain["status"] == "completed"
    assert plain["steps"] == 6
    assert plain["train_seconds"] > 0
    assert plain["setup_seconds"] > 0
    assert plain["peak_memory_bytes"] > 2**26
    assert Path(plain["package"]).name == "eclip"
    assert plain["metrics"]["candidates"] == 20
    assert 0 <= plain["metrics"]["mean_rank"] < 19
    assert [point["step"] for point in plain["curve"]] == list(range(6))
    assert {"seconds", "loss", "learning_rate", "logit_scale", "gradient_norm"} <= set(plain["curve"][0])
    assert (plain["dir"] / "train.log").stat().st_size > 0
    assert "max_steps: 6" in (plain["dir"] / "config.yaml").read_text()
    assert image_embeddings(plain).shape == (20, 16)


def test_same_seed_same_numbers(train, plain):
    again = train()
    assert [p["loss"] for p in again["curve"]] == [p["loss"] for p in plain["curve"]]
    assert np.array_equal(image_embeddings(again), image_embeddings(plain))


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_changes_the_run(train, plain, knob):
    changed = train(knob)
    assert changed["status"] == "completed"
    assert math.isfinite(changed["curve"][-1]["loss"])
    before, after = image_embeddings(plain), image_embeddings(changed)
    assert before.shape != after.shape or not np.allclose(before, after, atol=1e-6)


def test_folds_are_scored_apart_and_together(train):
    result = train("data.folds=[0,2]", "trainer.max_steps=2")
    folds = [result["metrics"][f"fold{fold}/mean_rank"] for fold in (0, 2)]
    assert result["metrics"]["mean_rank"] == pytest.approx(np.mean(folds))
    assert result["metrics"]["mean_rank_std"] == pytest.approx(np.std(folds, ddof=1))
    assert result["steps"] == 4


def test_the_published_bug_keeps_the_scale_at_two(train):
    scales = [point["logit_scale"] for point in train("model.logit_scale.max=2")["curve"]]
    assert scales == [2.0] * 6


def test_the_scale_learns_once_the_clamp_is_gone(train):
    scales = [point["logit_scale"] for point in train("optimizer.lr=0.01")["curve"]]
    assert scales[0] == pytest.approx(1 / 0.07, rel=1e-4)
    assert scales[-1] != scales[1]


def test_seconds_end_a_run_and_the_schedule_anneals_all_the_same(train):
    result = train("budget.seconds=0.6", "trainer.max_steps=100000", "optimizer.warmup=0")
    assert 0.3 < result["train_seconds"] < 2
    assert 3 < result["steps"] < 100000


class Clocks(L.Callback):
    """The seconds that each fold was given, and those it used."""

    def __init__(self) -> None:
        self.given: list[float] = []
        self.used: list[float] = []

    def on_train_start(self, trainer, module):
        self.given.append(module.clock.seconds)

    def on_train_end(self, trainer, module):
        self.used.append(module.clock.elapsed())


def test_a_multi_fold_run_shares_its_seconds(train):
    clocks = Clocks()
    train("budget.seconds=60", "trainer.max_steps=2", "data.folds=[0,1,2]", callbacks=[clocks])
    first, second, third = clocks.given
    assert first == pytest.approx(20)
    # what a fold leaves is there for the next ones
    assert second == pytest.approx((60 - clocks.used[0]) / 2, rel=0.01)
    assert third == pytest.approx(60 - sum(clocks.used[:2]), rel=0.01)


class Poison(L.Callback):
    """A weight becomes NaN after step 2, as an overflow would make it."""

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == 2:
            with torch.no_grad():
                module.model.log_scale.fill_(math.nan)


def test_a_diverged_run_ends_at_once_and_says_so(train, tmp_path):
    with pytest.raises(SystemExit) as ending:
        train("trainer.max_steps=50", f"run.dir={tmp_path}", callbacks=[Poison()])
    assert isinstance(ending.value.__cause__, Diverged)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "diverged"
    assert "the loss is nan at step 2 (learning rate" in result["reason"]
    assert [point["step"] for point in result["curve"]] == [0, 1]


class Break(L.Callback):
    """Stands for whatever may go wrong after a step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
            "out_of_memory",
        ),
        (RuntimeError("shape mismatch"), "crashed"),
    ],
)
def test_how_a_run_ended_is_written_whatever_it_was(train, tmp_path, error, status):
    with pytest.raises((SystemExit, RuntimeError)):
        train(f"run.dir={tmp_path}", callbacks=[Break(error)])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == status
    assert str(error).split(":")[-1].strip() in result["reason"]


class KeepHalf(L.Callback):
    """Saves the run as a kill in the middle would leave it."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_continues_to_the_same_curve(train, tmp_path):
    knobs = ("model.ema_decay=0.5", "model.text.dropout=0.2", "augment.crop_scale=0.5")
    whole = train(*knobs, callbacks=[KeepHalf(tmp_path / "fold0.ckpt", 3)])
    resumed = train(*knobs, f"run.resume={tmp_path}")
    assert [p["loss"] for p in resumed["curve"]] == [p["loss"] for p in whole["curve"]]
    assert np.array_equal(image_embeddings(resumed), image_embeddings(whole))
    assert resumed["steps"] == whole["steps"] == 6


def test_resuming_a_run_that_was_at_its_end_gives_its_score_again(train):
    done = train("model.ema_decay=0.5")
    again = train("model.ema_decay=0.5", f"run.resume={done['dir']}")
    assert np.array_equal(image_embeddings(again), image_embeddings(done))
    assert again["metrics"] == done["metrics"]


def test_resuming_from_nowhere_is_an_error(train):
    with pytest.raises(ConfigError, match=r"run\.resume=/nowhere"):
        train("run.resume=/nowhere")


def test_sealed_and_open_evaluation_agree_to_the_last_digit(train, plain, prints, tmp_path):
    where = (
        f"data.root={prints}/synthetic",
        f"data.pack_dir={prints}/packs",
        "data.prints=60",
        "data.test_prints=12",
    )
    [(_, folder, key)] = seal_folds(composed(*where, "run.dir=x"), [0], tmp_path)
    sealed = train("evaluation=sealed", f"data.sealed={folder}")
    assert sealed["metrics"] == {}
    scores = judge(load_file(sealed["dir"] / "embeddings.safetensors"), key)
    assert scores == {name: plain["metrics"][name] for name in scores}


def test_final_trains_on_everything_and_reads_the_test_set(train):
    result = train("final=true")
    assert result["metrics"]["candidates"] == 12
    assert set(load_file(result["dir"] / "embeddings.safetensors")) == {"foldtest.image", "foldtest.text"}


def test_fold_all_trains_without_measuring(train):
    result = train("data.fold=all")
    assert result["status"] == "completed"
    assert result["metrics"] == {}


def test_csv_logs_the_curve(train):
    result = train("logger=csv")
    lines = (result["dir"] / "csv" / "metrics.csv").read_text().splitlines()
    assert "train/loss" in lines[0]
    assert len(lines) > 6


def test_pool_is_train_and_validation(prints):
    config = composed(
        f"data.root={prints}/synthetic",
        f"data.pack_dir={prints}/packs",
        "data.prints=60",
        "data.test_prints=12",
        "run.dir=x",
    )
    settings = check(config)
    assert len(open_pool(settings.data, settings.model)) == 60


def test_run_is_a_context_that_lets_errors_through(train, tmp_path):
    config = composed("run.dir=" + str(tmp_path), "logger=none")
    with pytest.raises(ZeroDivisionError), Run(check(config), config, []):
        _ = 1 / 0
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "crashed"
