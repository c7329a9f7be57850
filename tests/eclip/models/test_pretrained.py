"""Encoders with weights from files written here: the weights arrive exactly, and fit other image sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eclip import torchvision_fix  # noqa: F401
from eclip.models.encoders import DistilBertText, TimmImage

import timm  # isort: skip
from safetensors.torch import save_file  # isort: skip
from transformers import DistilBertConfig, DistilBertModel  # isort: skip

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit") / "model.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def bert_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bert")
    config = DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    DistilBertModel(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_vit_weights_arrive_exactly(vit_file: Path, tmp_path: Path, suffix: str) -> None:
    published = timm.create_model(NAME)
    published.load_state_dict(timm.models.load_state_dict(str(vit_file)))
    file = vit_file
    if suffix == ".pth":
        file = tmp_path / "weights.pth"
        torch.save(published.state_dict(), file)
    encoder = TimmImage(name=NAME, weights=str(file), pooling="cls").eval()
    image = torch.randn(1, 3, 224, 224)
    token = published.eval().forward_features(image)
    torch.testing.assert_close(encoder(image), token[:, 0], atol=1e-5, rtol=1e-4)
    mean = TimmImage(name=NAME, weights=str(file), pooling="mean").eval()
    torch.testing.assert_close(mean(image), token[:, 1:].mean(1), atol=1e-5, rtol=1e-4)


def test_position_embeddings_are_resized(vit_file: Path) -> None:
    encoder = TimmImage(name=NAME, weights=str(vit_file), image_size=64)
    state = timm.models.load_state_dict(str(vit_file))
    position = encoder.vit.pos_embed
    assert position.shape == (1, 1 + 16, 192)
    assert torch.equal(position[:, 0], state["pos_embed"][:, 0])
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(position[:, 1:], resized.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)
    assert torch.equal(encoder.vit.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 192)


def test_random_vits_need_nothing_and_differ_by_seed() -> None:
    torch.manual_seed(1)
    first = TimmImage(name=NAME, pretrained=False, image_size=32)
    torch.manual_seed(1)
    second = TimmImage(name=NAME, pretrained=False, image_size=32)
    assert torch.equal(first.vit.blocks[0].attn.qkv.weight, second.vit.blocks[0].attn.qkv.weight)
    assert not torch.equal(TimmImage(name=NAME, pretrained=False).vit.cls_token, second.vit.cls_token)


def test_bert_weights_arrive_exactly(bert_directory: Path) -> None:
    published = DistilBertModel.from_pretrained(bert_directory).eval()
    token = torch.tensor([[7, 8, 9, 0, 0], [4, 5, 6, 7, 8]])
    states = published(input_ids=token, attention_mask=(token != 0).long()).last_hidden_state
    expected = {
        "cls": states[:, 0],
        "mean": torch.stack([states[0, :3].mean(0), states[1].mean(0)]),
        "max": torch.stack([states[0, :3].amax(0), states[1].amax(0)]),
    }
    for pooling, feature in expected.items():
        encoder = DistilBertText(weights=str(bert_directory), vocab_size=50, pooling=pooling).eval()
        assert encoder.bert.config._attn_implementation == "sdpa"
        assert encoder.width == 16
        torch.testing.assert_close(encoder(token), feature, atol=1e-6, rtol=1e-5)
    longer = torch.nn.functional.pad(token, (0, 4))
    torch.testing.assert_close(encoder(longer), expected["max"], atol=1e-5, rtol=1e-4)


def test_random_bert_takes_the_tokenizers_size(bert_directory: Path) -> None:
    torch.manual_seed(1)
    encoder = DistilBertText(pretrained=False, weights=str(bert_directory), vocab_size=64)
    assert encoder.bert.embeddings.word_embeddings.weight.shape == (64, 16)
    published = DistilBertModel.from_pretrained(bert_directory)
    assert not torch.equal(
        encoder.bert.transformer.layer[0].ffn.lin1.weight, published.transformer.layer[0].ffn.lin1.weight
    )
    with pytest.raises(ValueError, match="the tokenizer has 64 entries, the weights 50"):
        DistilBertText(weights=str(bert_directory), vocab_size=64)
    with pytest.raises(ValueError, match="513 tokens exceeds the encoder's 512"):
        encoder(torch.ones(1, 513, dtype=torch.long))


def test_frozen_backbones_learn_nothing(vit_file: Path, bert_directory: Path) -> None:
    bert = DistilBertText(weights=str(bert_directory), frozen=True).train()
    token = torch.tensor([[7, 8, 9]])
    assert torch.equal(bert(token), bert(token))  # DistilBERT's own dropout is off
    vit = TimmImage(name=NAME, weights=str(vit_file), image_size=32, frozen=True)
    assert not any(p.requires_grad for encoder in (bert, vit) for p in encoder.parameters())


def test_wrong_settings_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.image\.weights=\./nowhere: no such file"):
        TimmImage(weights="./nowhere")
    with pytest.raises(FileNotFoundError, match=r"model\.text\.weights=\./nowhere: no such file"):
        DistilBertText(weights="./nowhere")
    with pytest.raises(ValueError, match=r"model\.image\.name=vit_huge_typo: timm knows no such model"):
        TimmImage(name="vit_huge_typo", pretrained=False)
    with pytest.raises(ValueError, match=r"model\.image\.name=resnet18: is no plain vision transformer"):
        TimmImage(name="resnet18", pretrained=False)
    with pytest.raises(ValueError, match=r"model\.text\.pooling=last"):
        DistilBertText(pretrained=False, pooling="last")
