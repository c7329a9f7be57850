"""Transformer parts against PyTorch's general modules and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from eclip.models.transformer import Attention, PatchConv, Transformer, attend


def test_the_patch_product_is_the_strided_convolution() -> None:
    torch.manual_seed(0)
    layer = PatchConv(3, 10, 4)
    image = torch.randn(2, 3, 8, 12, requires_grad=True)
    expected = F.conv2d(image, layer.weight, layer.bias, stride=4).flatten(2).transpose(1, 2)
    patches = layer(image)
    torch.testing.assert_close(patches, expected)
    probe = torch.randn_like(expected)
    got = torch.autograd.grad((patches * probe).sum(), [image, layer.weight, layer.bias])
    wanted = torch.autograd.grad((expected * probe).sum(), [image, layer.weight, layer.bias])
    torch.testing.assert_close(got, wanted)
    with pytest.raises(ValueError, match="8x10 does not divide into patches of 4x4"):
        layer(torch.zeros(1, 3, 8, 10))


@pytest.mark.parametrize("kind", ["none", "mask", "bias"])
def test_attention_is_what_the_loops_say(kind: str) -> None:
    torch.manual_seed(0)
    layer = Attention(8, heads=2)
    token = torch.randn(2, 5, 8)
    bias = {
        "none": None,
        "mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None],
        "bias": torch.randn(2, 2, 1, 5),
    }[kind]
    expected = torch.zeros_like(token)
    for b in range(2):
        query, key, value = layer.qkv(token[b]).chunk(3, dim=-1)
        for i in range(5):
            parts = []
            for h in range(2):
                own = slice(4 * h, 4 * h + 4)
                logits = [(query[i, own] @ key[j, own]).item() / math.sqrt(4) for j in range(5)]
                if kind == "mask":
                    logits = [x if bias[b, 0, 0, j] else -math.inf for j, x in enumerate(logits)]
                if kind == "bias":
                    logits = [x + float(bias[b, h, 0, j]) for j, x in enumerate(logits)]
                total = sum(math.exp(x) for x in logits)
                parts.append(sum(math.exp(x) / total * value[j, own] for j, x in enumerate(logits)))
            expected[b, i] = layer.out(torch.cat(parts))
    torch.testing.assert_close(layer(token, bias), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["none", "mask", "bias"])
def test_attention_of_bf16_is_summed_in_float32(kind: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, 5, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    bias = {"none": None, "mask": torch.rand(2, 1, 1, 5) < 0.7, "bias": torch.randn(2, 2, 1, 5).bfloat16()}[
        kind
    ]
    exact = [part.detach().double().requires_grad_() for part in inputs]
    logits = exact[0] @ exact[1].transpose(2, 3) / 2
    if bias is not None:
        logits = logits.masked_fill(~bias, -torch.inf) if kind == "mask" else logits + bias.double()
    expected = logits.softmax(-1) @ exact[2]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(*inputs, bias)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed, expected.bfloat16(), atol=1e-6, rtol=2**-7)
    mixed.backward(torch.ones_like(mixed))
    expected.sum().backward()
    for ours, theirs in zip(inputs, exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=0.02, rtol=0.02)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 10 does not divide into 4 heads"):
        Attention(10, heads=4)


def test_the_residual_stream_starts_small_and_normal() -> None:
    torch.manual_seed(0)
    net = Transformer(width=64, depth=8, heads=4, dropout=0.0)
    assert net.blocks[0].expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.blocks[0].contract.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert not net.blocks[3].attention.qkv.bias.any()
    token = net(torch.randn(2, 5, 64))
    torch.testing.assert_close(token.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)


def test_dropout_works_in_training_only() -> None:
    torch.manual_seed(0)
    net, token = Transformer(width=16, depth=1, heads=2, dropout=0.5), torch.randn(1, 4, 16)
    assert not torch.equal(net(token), net(token))
    net.eval()
    assert torch.equal(net(token), net(token))
