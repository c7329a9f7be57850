"""The heatmap fusions: the published one against loops; of each, that heatmaps matter and gradients flow."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eclip.models.encoders import ImageEncoder, TimmImage, TinyViT
from eclip.models.heatmap import (
    FUSIONS,
    AttentionBias,
    CrossAttention,
    InputChannel,
    PixelMask,
    WeightedPooling,
    build_fusion,
)


@pytest.fixture(scope="module", params=["tiny-mean", "tiny-cls", "timm"])
def encoder(request: pytest.FixtureRequest) -> ImageEncoder:
    torch.manual_seed(0)
    if request.param == "timm":
        return TimmImage(name="vit_tiny_patch16_224", pretrained=False, image_size=32).eval()
    pooling = request.param.removeprefix("tiny-")
    return TinyViT(image_size=32, patch_size=8, width=16, depth=2, heads=2, pooling=pooling)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 32, 32, generator=generator), torch.rand(2, 32, 32, generator=generator)


def layer_norm(row: Tensor) -> Tensor:
    centred = row - row.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5)


def naive_cross_attention(fusion: CrossAttention, image: Tensor, heatmap: Tensor, size: int) -> Tensor:
    """FACTS in loops: one print, patch by patch, head by head."""
    corners = [(y, x) for y in range(0, 32, size) for x in range(0, 32, size)]
    pixels, marks = [], []
    for y, x in corners:
        cut = image[:, y : y + size, x : x + size]
        mark = heatmap[None, y : y + size, x : x + size]
        pixels.append((fusion.embed_image.weight * cut).sum((1, 2, 3)) + fusion.embed_image.bias)
        marks.append((fusion.embed_heatmap.weight * mark).sum((1, 2, 3)) + fusion.embed_heatmap.bias)
    width = len(pixels[0]) // 4
    answers = []
    for mark in marks:
        query = fusion.query(layer_norm(mark))
        heads = []
        for h in range(4):
            own = slice(h * width, (h + 1) * width)
            logits = [query[own] @ fusion.key(layer_norm(p))[own] / math.sqrt(width) for p in pixels]
            shares = torch.stack(logits).exp() / torch.stack(logits).exp().sum()
            heads.append(sum(s * fusion.value(p)[own] for s, p in zip(shares, pixels, strict=True)))
        answers.append(fusion.out(torch.cat(heads)))
    return sum(answers) / len(answers)


def test_cross_attention_is_the_published_processor() -> None:
    torch.manual_seed(1)
    fusion = CrossAttention(width=16, patch_size=8)
    nn.init.normal_(fusion.out.bias)
    image, heatmap = inputs()
    encoder = TinyViT(image_size=32, patch_size=8, width=16, depth=1, heads=2)
    embedding = fusion(encoder, image, heatmap)
    for row in range(2):
        expected = naive_cross_attention(fusion, image[row], heatmap[row], 8)
        torch.testing.assert_close(embedding[row], expected, atol=1e-5, rtol=1e-4)
    assert sum(p.numel() for p in fusion.parameters()) == (
        16 * (3 * 64 + 1) + 16 * (64 + 1) + 2 * 32 + 4 * (16 * 16 + 16)
    )


@pytest.mark.parametrize(("width", "heads"), [(512, 4), (18, 2), (573, 1)])
def test_a_width_that_four_does_not_divide_has_fewer_heads(width: int, heads: int) -> None:
    fusion = CrossAttention(width, patch_size=8)
    assert fusion.heads == heads
    encoder = TinyViT(image_size=32, patch_size=8, width=16, depth=1, heads=2)
    assert fusion(encoder, *inputs()).shape == (2, width)


@pytest.mark.parametrize("name", FUSIONS)
def test_the_heatmap_matters_and_gradients_flow(encoder: ImageEncoder, name: str) -> None:
    torch.manual_seed(1)
    image, heatmap = inputs()
    fusion = build_fusion(name, encoder, projection_dim=16, patch_size=8)
    for step in range(2):
        feature = fusion(encoder, image, heatmap)
        assert feature.shape == (2, 16 if fusion.projected else encoder.width)
        encoder.zero_grad()
        fusion.zero_grad()
        (feature * torch.randn(feature.shape, generator=torch.Generator().manual_seed(step))).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())
        with torch.no_grad():
            for parameter in fusion.parameters():
                parameter.sub_(0.1 * parameter.grad.sign())
    if name != "cross_attention":
        assert all(p.grad is not None for p in encoder.parameters())
    other = torch.roll(heatmap, 16, dims=-1) ** 4
    assert (fusion(encoder, image, other) - fusion(encoder, image, heatmap)).abs().max() > 1e-4


def test_a_heatmap_of_ones_masks_nothing(encoder: ImageEncoder) -> None:
    image, heatmap = inputs()
    ones = torch.ones_like(heatmap)
    plain = encoder(image)
    for fusion in (PixelMask(), AttentionBias(encoder)):
        torch.testing.assert_close(fusion(encoder, image, ones), plain, atol=1e-5, rtol=1e-4)
    # the new channel is silent at the start, whatever it carries
    torch.testing.assert_close(InputChannel(encoder)(encoder, image, heatmap), plain, atol=1e-5, rtol=1e-4)


def test_weighted_pooling_is_what_the_loops_say(encoder: ImageEncoder) -> None:
    image, heatmap = inputs()
    token = encoder.encode(encoder.patches(image))
    size = 32 // encoder.grid
    for row in range(2):
        total, expected = 0.0, torch.zeros(encoder.width)
        for patch in range(encoder.grid**2):
            y, x = size * (patch // encoder.grid), size * (patch % encoder.grid)
            weight = heatmap[row, y : y + size, x : x + size].mean()
            expected = expected + weight * token[row, encoder.prefix + patch]
            total = total + weight
        for given in (None, token):
            pooled = WeightedPooling()(encoder, image, heatmap, given)[row]
            torch.testing.assert_close(pooled, expected / total, atol=1e-5, rtol=1e-4)
    empty = WeightedPooling()(encoder, image, torch.zeros_like(heatmap))
    mean = token[:, encoder.prefix :].mean(1)
    torch.testing.assert_close(empty, mean, atol=1e-5, rtol=1e-4)


def test_pixels_outside_the_mask_do_not_count(encoder: ImageEncoder) -> None:
    image, _ = inputs()
    mask = F.pad(torch.ones(2, 16, 16), (8, 8, 8, 8))
    torch.testing.assert_close(
        PixelMask()(encoder, image, mask), PixelMask()(encoder, image * mask[:, None], mask)
    )


def test_an_unknown_fusion_is_refused(encoder: ImageEncoder) -> None:
    with pytest.raises(ValueError, match=r"expert\.fusion=concat: choose one of cross_attention, pixel_mask"):
        build_fusion("concat", encoder, 16, 8)
