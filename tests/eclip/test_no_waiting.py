"""A training step on the `meta` device, which stands for a GPU: it holds no numbers, so a step that wants to see
one fails here, and every tensor that is sent to it is seen."""

from __future__ import annotations

import contextlib
import traceback

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.workload import Workload
from eclip.data.augment import crop, crop_boxes, jitter
from eclip.data.datamodule import StepBatches
from eclip.training import build_module
from tests.eclip.conftest import SMALL

# pinned memory on its way to a GPU, or once for each device
MAY_SEND = {"sent", "_constants"}


class Sendings(TorchDispatchMode):
    """The functions of this project in which a tensor of the host meets the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [part for part in (*args, result) if isinstance(part, torch.Tensor)]
        from_host = [t for t in tensors if t.device.type == "cpu" and t.ndim]
        if from_host and any(t.device.type == "meta" for t in tensors):
            names = [frame.name for frame in traceback.extract_stack()]
            if not MAY_SEND & set(names):
                own = [f for f in traceback.extract_stack() if "/src/eclip/" in f.filename]
                self.seen.append(
                    f"{operation} in {own[-1].filename}:{own[-1].lineno}" if own else f"{operation}"
                )
        return result


@contextlib.contextmanager
def what_meta_lacks():
    """A generator, from which nothing is drawn without augmentation; autocast."""
    host = torch.Generator
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", lambda device: host())
        patch.setattr(torch, "autocast", lambda device, **_: contextlib.nullcontext())
        yield


def expert_step(module):
    """The first step whose coin (its generator's first word) asks for experts."""
    coins = (np.random.default_rng([module.seed, step]).integers(2**62) / 2**62 for step in range(50))
    return next(step for step, coin in enumerate(coins) if coin < module.expert.probability.max)


def step_on_meta(workload):
    """One expert step up to the optimizer: draws, gather, augmentation, forward, losses, backward."""
    settings, meta = workload.settings, torch.device("meta")
    module = build_module(settings, workload.data, None).to(meta).train()
    batches = StepBatches(workload.data, settings.trainer.batch_size, module.seed, device=meta)
    expert = expert_step(module)
    with what_meta_lacks(), Sendings() as sendings:
        inputs = module.inputs(batches.at(expert), expert, 0.5)
        losses = module.objective(**module.model(**inputs))
        losses["loss"].backward()
    assert "heatmap_BHW" in inputs
    assert inputs["image_BCHW"].is_meta
    assert all(p.grad is not None for p in module.model.parameters())
    return sendings.seen


def workload(prints, *overrides):
    small = [item for item in SMALL if item != "trainer.max_steps=6"]
    where = [f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs"]
    return Workload.prepare([*small, *where, *overrides], prints)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_step_of_the_small_model_neither_looks_nor_sends(prints, loss):
    assert step_on_meta(workload(prints, f"loss={loss}")) == []


def test_a_step_of_the_published_model_neither_looks_nor_sends(prints):
    from eclip import torchvision_fix  # noqa: F401  (before transformers)

    from transformers import DistilBertConfig  # isort: skip

    DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64).save_pretrained(prints / "bert")
    shrunk = (
        "model=eclip_vits model.pretrained=false model.tokenizer=wordpiece model.image.name=vit_tiny_patch16_224 "
        f"model.image_size=32 model.projection.dim=32 model.text.weights={prints}/bert data.prints=60 "
        "data.test_prints=12 data.workers=2 trainer.batch_size=4 trainer.threads=2"
    ).split()
    where = [f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs"]
    assert step_on_meta(Workload.prepare([*shrunk, *where], prints)) == []


def test_augmentation_neither_looks_nor_sends():
    image, window = torch.rand(4, 3, 8, 8, device="meta"), torch.rand(4, 4, device="meta")
    boxes, valid = torch.rand(4, 2, 4, device="meta"), torch.ones(4, 2, dtype=torch.bool, device="meta")
    with Sendings() as sendings:
        crop_boxes(boxes, valid, window)
        jitter(crop(image, window), torch.rand(4, 3, device="meta"))
    assert sendings.seen == []


def test_what_looks_or_sends_is_found(prints, monkeypatch):
    work = workload(prints)
    with monkeypatch.context() as patch:
        patch.setattr("eclip.lightning_module.sent", lambda array, device: torch.from_numpy(array).to(device))
        (found,) = step_on_meta(work)
        assert "lightning_module.py" in found or "test_no_waiting.py" in found
    monkeypatch.setattr(
        "eclip.losses.Objective.pair", lambda self, image, *_: image.sum() * float(image[0, 0].detach())
    )
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step_on_meta(work)
