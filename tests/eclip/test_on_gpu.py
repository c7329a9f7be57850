"""Whole runs on a pretended GPU (pretend_gpu.py): they learn what the same runs on the CPU learn, nothing in a step
waits for the device, and host and device meet nowhere by mistake."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch

from eclip.averaging import EMA
from eclip.compilation import compile_blocks
from eclip.data.batch import TOKEN_BUCKETS
from eclip.lightning_module import ECLIPModule
from eclip.models.tiny import TinyText
from tests.eclip.conftest import train_in
from tests.eclip.pretend_gpu import pretended_gpu

# sent once: constants of the normalisation; averaged weights, at the first step that has them
ONCE = ("transfer.py:_constants in a step", "averaging.py:")
PUBLISHED_SMALL = (
    "model=eclip_vits model.pretrained=false model.tokenizer=wordpiece model.image.name=vit_tiny_patch16_224 "
    "model.image_size=32 model.projection.dim=32 data.prints=60 data.test_prints=12 data.workers=2 data.folds=[0] "
    "trainer.batch_size=8 trainer.max_steps=3 trainer.threads=2 trainer.precision=fp32 logger=none"
).split()
FUSIONS = ("pixel_mask", "weighted_pooling", "prompt_tokens", "input_channel", "attention_bias")
EVERYTHING = (
    "data.folds=[0,1] trainer.max_steps=4 trainer.accumulate=2 augment.crop_scale=0.5 augment.color_jitter=0.3 "
    "model.ema_decay=0.9 model.wise_ft=0.1 expert.reconstruction.weight=1 loss.hard_negative=0.5 "
    "loss.label_smoothing=0.1 model.projection.layers=2 model.projection.dropout=0.1 model.image.dropout=0.1"
).split()


def on_both(prints, tmp_path, *overrides):
    """(result on the pretended GPU, result on the CPU, what the host waited for)."""
    with pretended_gpu() as gpu:
        there = train_in(prints, tmp_path / "there", *overrides)
    return there, train_in(prints, tmp_path / "here", *overrides), gpu.waits


def in_steps(waits):
    return [wait for wait in waits if "in a step" in wait and not any(once in wait for once in ONCE)]


def check_equal(there, here, rel=1e-4):
    assert there["status"] == here["status"] == "completed"
    for mine, theirs in zip(there["curve"], here["curve"], strict=True):
        timeless = {key: value for key, value in theirs.items() if key != "seconds"}
        assert {key: mine[key] for key in timeless} == pytest.approx(timeless, rel=rel)
    assert there["metrics"] == pytest.approx(here["metrics"], rel=rel, abs=rel)


def test_everything_at_once_on_two_folds_of_one_upload(prints, tmp_path):
    there, here, waits = on_both(prints, tmp_path, *EVERYTHING)
    check_equal(there, here)
    assert there["peak_memory_bytes"] == 2**30  # the GPU's
    assert in_steps(waits) == []
    assert sum("gather.py" in wait for wait in waits) == 5  # the pack's arrays
    assert any("device_ranks.py" in wait for wait in waits)
    assert not any("from the GPU at training.py:train_fold" in wait for wait in waits)  # weights stay


def test_siglip_in_bf16(prints, tmp_path):
    there, here, waits = on_both(prints, tmp_path, "loss=siglip", "trainer.precision=auto")
    check_equal({**there, "metrics": {}}, {**here, "metrics": {}}, rel=0.05)
    assert in_steps(waits) == []


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion(prints, tmp_path, fusion):
    there, here, waits = on_both(prints, tmp_path, f"expert.fusion={fusion}", "trainer.max_steps=2")
    check_equal(there, here)
    assert in_steps(waits) == []


def test_prints_that_do_not_fit_come_through_pinned_memory(prints, tmp_path, monkeypatch):
    monkeypatch.setattr("eclip.data.gather.DEVICE_SHARE", 1e-9)
    there, here, waits = on_both(prints, tmp_path)
    check_equal(there, here)
    assert in_steps(waits) == []
    assert not any("gather.py" in wait for wait in waits)


def test_a_run_is_continued(prints, tmp_path):
    overrides = ("run.checkpoint_seconds=1000", "model.ema_decay=0.9")
    with pretended_gpu():
        whole = train_in(prints, tmp_path / "whole", *overrides)
        train_in(prints, tmp_path / "half", *overrides, callbacks=[StopAfter(3)])
        rest = train_in(prints, tmp_path / "rest", *overrides, f"run.resume={tmp_path}/half")
    assert [point["loss"] for point in rest["curve"]] == [point["loss"] for point in whole["curve"]]
    assert rest["metrics"] == whole["metrics"]


class StopAfter(L.Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.steps


def test_the_published_model(prints, tmp_path, monkeypatch):
    """A small DistilBERT with a small vision transformer of timm: its classes, its masks, dropout and all."""
    from eclip import torchvision_fix  # noqa: F401  (before transformers)

    from transformers import DistilBertConfig  # isort: skip

    DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64).save_pretrained(prints / "bert")
    monkeypatch.setattr("tests.eclip.conftest.SMALL", [*PUBLISHED_SMALL, f"model.text.weights={prints}/bert"])
    there, here, waits = on_both(prints, tmp_path, "augment=light", "model.ema_decay=0.9")
    check_equal(there, here)
    assert in_steps(waits) == []


@torch._dynamo.config.patch(recompile_limit=8)  # torch's own, and what is put back
def test_every_length_of_tokens_is_compiled():
    """On a GPU padding is kept, and a run compiled is one of at most so many shapes."""
    text = TinyText(vocab_size=9, width=8, depth=1, heads=2)
    text.skip_padding = False
    compiled = []
    compile_blocks(text.transformer, lambda graph, inputs: compiled.append(inputs) or graph)
    for length in TOKEN_BUCKETS:
        text(torch.ones(2, length, dtype=torch.int64))
        with torch.no_grad():
            text(torch.ones(2, length, dtype=torch.int64))
    assert len(compiled) == 2 * len(TOKEN_BUCKETS)


# what the pretence would miss is no proof: each of these mistakes is found


def test_averages_left_behind_are_found(prints, tmp_path, monkeypatch):
    monkeypatch.setattr(EMA, "_follow", lambda self: None)
    with pretended_gpu(), pytest.raises(RuntimeError, match="_foreach_lerp_ got cuda:0 and cpu"):
        train_in(prints, tmp_path, "model.ema_decay=0.9")


def test_pageable_memory_is_found(prints, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "eclip.lightning_module.sent", lambda array, device: torch.from_numpy(array).to(device)
    )
    with pretended_gpu() as gpu:
        train_in(prints, tmp_path)
    assert set(in_steps(gpu.waits)) == {
        "to the GPU, from pageable memory at lightning_module.py:inputs in a step"
    }


def test_a_look_at_a_number_is_found(prints, tmp_path, monkeypatch):
    clip = ECLIPModule.clip
    monkeypatch.setattr(ECLIPModule, "clip", lambda self: torch.tensor(float(clip(self)), device="cuda"))
    with pretended_gpu() as gpu:
        train_in(prints, tmp_path)
    assert any(wait.startswith("__float__ at") for wait in in_steps(gpu.waits))


def test_a_number_read_before_it_has_arrived_is_found(prints, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.eclip.pretend_gpu.Event.synchronize", lambda self: None)
    with pretended_gpu(), pytest.raises(SystemExit):
        train_in(prints, tmp_path)
    assert "the loss is nan at step 0" in (tmp_path / "result.json").read_text()
