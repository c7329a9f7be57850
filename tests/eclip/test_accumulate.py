"""Gradients of chunks that share one contrastive matrix against those of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eclip.accumulate import cached_step
from eclip.losses import Objective
from eclip.models.eclip import ECLIP
from eclip.models.encoders import TinyText, TinyViT

OBJECTIVE = Objective(label_smoothing=0.1, hard_negative=0.2, expert_weight=0.5, reconstruction_weight=1.0)


def model(dropout: float = 0.0, bias: float | None = None) -> ECLIP:
    torch.manual_seed(0)
    return ECLIP(
        TinyViT(image_size=16, patch_size=8, width=16, depth=1, heads=2, dropout=dropout),
        TinyText(vocab_size=20, width=16, depth=1, heads=2, dropout=dropout),
        projection={"dim": 8, "layers": 1, "dropout": dropout},
        logit_scale={"init": 5.0, "min": 1.0, "max": 100.0},
        image_size=16,
        bias=bias,
    )


def batch(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image_BCHW": torch.randn(rows, 3, 16, 16, generator=generator),
        "caption_BL": torch.randint(0, 20, (rows, 6), generator=generator),
        "heatmap_BHW": torch.rand(rows, 16, 16, generator=generator),
        "phrase_BL": torch.randint(0, 20, (rows, 4), generator=generator),
        "mix_B": torch.rand(rows, generator=generator),
    }


def chunks_of(whole: dict[str, Tensor], sizes: list[int]) -> list[dict]:
    parts = {name: value.split(sizes) for name, value in whole.items()}
    return [{"reconstruct": True} | {name: parts[name][i] for name in parts} for i in range(len(sizes))]


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", [OBJECTIVE, Objective(name="siglip", expert_weight=0.5)])
def test_gradients_are_those_of_the_big_batch(objective: Objective) -> None:
    bias = -3.0 if objective.name == "siglip" else None
    whole, net = batch(12), model(bias=bias)
    expected_losses = objective(**net(**whole, reconstruct=True))
    expected_losses["loss"].backward()
    expected = gradients(net)
    net.zero_grad()
    losses = cached_step(net, chunks_of(whole, [5, 4, 3]), objective)
    for name, value in expected_losses.items():
        torch.testing.assert_close(losses[name], value.detach(), atol=1e-6, rtol=1e-5)
        assert not losses[name].requires_grad
    got = gradients(net)
    assert got.keys() == expected.keys()
    assert "log_scale" in got
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], atol=1e-5, rtol=1e-5, msg=name)


def test_gradients_are_not_those_of_small_batches() -> None:
    whole, net = batch(12), model()
    cached_step(net, chunks_of(whole, [6, 6]), OBJECTIVE)
    joint = gradients(net)["image_head.0.weight"]
    net.zero_grad()
    for chunk in chunks_of(whole, [6, 6]):
        (OBJECTIVE(**net(**chunk))["loss"] / 2).backward()
    assert not torch.allclose(joint, gradients(net)["image_head.0.weight"], atol=1e-4)


def test_dropout_repeats_in_the_second_pass() -> None:
    whole, net = batch(8), model(dropout=0.3)
    chunks = chunks_of(whole, [4, 4])
    torch.manual_seed(7)
    outputs = [net(**chunk) for chunk in chunks]
    joined = {
        name: torch.cat([out[name] for out in outputs]) if name.endswith("_BD") else outputs[0][name]
        for name in outputs[0]
    }
    OBJECTIVE(**joined)["loss"].backward()
    expected, after = gradients(net), torch.rand(1)
    net.zero_grad()
    torch.manual_seed(7)
    cached_step(net, chunks, OBJECTIVE)
    assert torch.equal(torch.rand(1), after)  # the random stream goes on as if there had been one pass
    for name, value in gradients(net).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5, msg=name)


def test_autocast_keeps_every_gradient() -> None:
    whole, net = batch(8), model()
    with torch.autocast("cpu", torch.bfloat16):
        OBJECTIVE(**net(**whole, reconstruct=True))["loss"].backward()
        expected = gradients(net)
        net.zero_grad()
        cached_step(net, chunks_of(whole, [4, 4]), OBJECTIVE)
    got = gradients(net)
    assert got.keys() == expected.keys()
    flat = [torch.cat([value.flatten() for value in grads.values()]) for grads in (got, expected)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.995
