"""The small encoders: padding, pooling, positions, prompts, freezing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eclip.models.encoders import TinyText, TinyViT
from eclip.models.packing import Packing
from eclip.models.pooling import pool_text
from eclip.models.tiny import valid_tokens


def text(pooling: str, **settings) -> TinyText:
    torch.manual_seed(0)
    return TinyText(vocab_size=30, width=16, depth=2, heads=2, pooling=pooling, **settings)


def vit(pooling: str = "mean", **settings) -> TinyViT:
    torch.manual_seed(0)
    return TinyViT(image_size=16, patch_size=4, width=16, depth=2, heads=2, pooling=pooling, **settings)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_padding_changes_nothing(pooling: str) -> None:
    encoder = text(pooling)
    token = torch.tensor([[5, 6, 7, 8], [9, 3, 2, 4]])
    torch.testing.assert_close(encoder(F.pad(token, (0, 12))), encoder(token), atol=1e-6, rtol=1e-5)
    other = F.pad(token, (0, 12))
    other[0, 6] = 1
    assert not torch.allclose(encoder(other)[0], encoder(token)[0], atol=1e-3)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_text_pooling_is_what_the_loops_say(pooling: str) -> None:
    encoder = text(pooling)
    token = torch.tensor([[5, 6, 7, 0], [9, 0, 0, 0]])
    valid = token != 0
    features = encoder.transformer(encoder.embed(token) + encoder.position[:4], valid[:, None, None])
    for row, length in ((0, 3), (1, 1)):
        own = features[row, :length]
        expected = {"cls": own[0], "mean": sum(own) / length, "max": torch.stack(tuple(own)).max(0).values}
        torch.testing.assert_close(encoder(token)[row], expected[pooling])


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_packing_changes_neither_features_nor_gradients(pooling: str) -> None:
    encoder = text(pooling)
    token = torch.tensor([[5, 6, 7, 8, 0, 0], [9, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [4, 5, 6, 7, 8, 9]])
    valid = valid_tokens(token)
    assert Packing.of(valid).place_U.tolist() == [0, 1, 2, 3, 6, 7, 12, 18, 19, 20, 21, 22, 23]
    padded = encoder.transformer(encoder.embed(token) + encoder.position[:6], valid[:, None, None])
    results = []
    for feature in (encoder(token), pool_text(padded, valid, pooling)):
        encoder.zero_grad()
        (feature * torch.linspace(-1, 1, 16)).sum().backward()
        results.append([feature, *(p.grad.clone() for p in encoder.parameters())])
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_padding_stays_where_shapes_must() -> None:
    assert Packing.of(torch.ones(2, 3, dtype=torch.bool, device="meta")) is None


def test_in_bf16_packed_rows_come_in_few_numbers_and_change_nothing() -> None:
    encoder = text("mean")
    token = torch.randint(1, 10, (20, 6), generator=torch.Generator().manual_seed(0))
    token[::2, 3:] = 0
    results = []
    for skip in (True, False):
        encoder.skip_padding = skip
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            feature = encoder(token)
            packing = Packing.of(token != 0)
        (feature.float() * torch.linspace(-1, 1, 16)).sum().backward()
        results.append([feature.float(), *(p.grad.clone() for p in encoder.parameters())])
    assert packing.valid == 90
    assert len(packing.place_U) == 128
    rows = torch.randn(20, 6, 4)
    assert torch.equal(packing.unpack(packing.pack(rows)), rows * (token != 0)[..., None])
    for packed, padded in zip(*results, strict=True):
        assert (packed - padded).norm() < 0.02 * padded.norm()


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_text_of_padding_alone_is_finite(pooling: str) -> None:
    encoder = text(pooling)
    feature = encoder(torch.tensor([[0, 0, 0], [4, 5, 6]]))
    feature.sum().backward()
    assert torch.isfinite(feature).all()
    assert torch.isfinite(encoder.embed.weight.grad).all()


def test_word_order_counts_and_texts_have_a_limit() -> None:
    encoder = text("mean", max_tokens=8)
    assert not torch.allclose(encoder(torch.tensor([[5, 6]])), encoder(torch.tensor([[6, 5]])), atol=1e-3)
    with pytest.raises(ValueError, match="9 tokens exceeds the encoder's 8"):
        encoder(torch.ones(1, 9, dtype=torch.long))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_image_pooling_leaves_prompts_out(pooling: str) -> None:
    encoder, image = vit(pooling), torch.randn(2, 3, 16, 16)
    patches = encoder.patches(image)
    token = encoder.encode(patches, prompt_BTF=torch.randn(2, 3, 16))
    assert token.shape == (2, encoder.prefix + 16 + 3, 16)
    expected = token[:, 0] if pooling == "cls" else sum(token[:, i] for i in range(16)) / 16
    torch.testing.assert_close(encoder.pool(token), expected)
    torch.testing.assert_close(encoder(image), encoder.pool(encoder.encode(patches)))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_bias_of_minus_infinity_hides_a_patch(pooling: str) -> None:
    encoder, image = vit(pooling), torch.randn(2, 3, 16, 16)
    changed = image.clone()
    changed[:, :, 4:8, 8:12] = 3.0  # patch 1 * 4 + 2
    bias = torch.zeros(2, 2, 16)
    plain, other = (encoder.encode(encoder.patches(x)) for x in (image, changed))
    assert not torch.allclose(plain[:, 0], other[:, 0], atol=1e-3)
    bias[:, :, 6] = -torch.inf
    hidden, still = (encoder.encode(encoder.patches(x), bias_BHP=bias) for x in (image, changed))
    seen = [i for i in range(hidden.shape[1]) if i != encoder.prefix + 6]
    torch.testing.assert_close(hidden[:, seen], still[:, seen])


def test_places_count() -> None:
    encoder, image = vit(), torch.randn(1, 3, 16, 16)
    assert not torch.allclose(encoder(image), encoder(image.flip(-1)), atol=1e-3)


def test_frozen_encoders_learn_nothing_and_drop_nothing() -> None:
    for encoder, value in (
        (vit(frozen=True, dropout=0.5), torch.randn(2, 3, 16, 16)),
        (text("cls", frozen=True, dropout=0.5), torch.tensor([[5, 6]])),
    ):
        encoder.train()
        assert not any(p.requires_grad for p in encoder.parameters())
        assert torch.equal(encoder(value), encoder(value))


def test_wrong_settings_name_their_key() -> None:
    with pytest.raises(ValueError, match=r"model\.image\.pooling=max: choose one of cls, mean"):
        vit("max")
    with pytest.raises(ValueError, match=r"model\.text\.pooling=last: choose one of cls, mean, max"):
        text("last")
    with pytest.raises(ValueError, match=r"model\.image\.patch_size=6 does not divide image_size=64"):
        TinyViT(image_size=64, patch_size=6, width=16, depth=1, heads=2)
