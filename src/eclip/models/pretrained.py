"""Encoders with published weights: a vision transformer of timm, and DistilBERT of transformers.

Both libraries take seconds to import, so they are imported when an encoder is made, and not before it is
known that its weights can be had.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eclip.models.hub import is_cached, local_path, require_hub, snapshot
from eclip.models.pooling import check_pooling, freeze, pool_image, pool_text
from eclip.models.tiny import pad_bias, valid_tokens

TEXT_FILES = ("config.json", "model.safetensors")


class TimmImage(nn.Module):
    """A vision transformer of timm by name, e.g. vit_small_patch16_224 (22M parameters).

    pretrained: from `weights` (a .safetensors or .pth file), else from the hub's cache, else the hub.
    Position embeddings are resized to `image_size`. pretrained=False: random, offline; `weights` is not read.
    Raises WeightsUnavailable within a second where weights are neither here nor within reach.
    """

    def __init__(
        self,
        *,
        name: str = "vit_small_patch16_224",
        pretrained: bool = True,
        weights: str | None = None,
        image_size: int = 224,
        pooling: Literal["cls", "mean"] = "cls",
        frozen: bool = False,
    ) -> None:
        super().__init__()
        check_pooling(pooling, ("cls", "mean"), "model.image.pooling")
        self.vit: Any = build_vit(name, pretrained, local_path(weights, "model.image.weights"), image_size)
        self.pooling, self.frozen = pooling, frozen
        self.width: int = self.vit.embed_dim
        self.heads: int = self.vit.blocks[0].attn.num_heads
        self.patch_size: int = self.vit.patch_embed.patch_size[0]
        self.grid: int = self.vit.patch_embed.grid_size[0]
        self.prefix: int = self.vit.num_prefix_tokens
        # the statistics of the pixels that the weights were trained on
        self.pixel_mean: tuple[float, float, float] = self.vit.pretrained_cfg["mean"]
        self.pixel_std: tuple[float, float, float] = self.vit.pretrained_cfg["std"]
        if pooling == "cls" and not self.prefix:
            raise ValueError(f"model.image.pooling=cls: {name} has no class token; choose mean")
        if frozen:
            freeze(self)

    def train(self, mode: bool = True) -> TimmImage:
        """A frozen encoder has no dropout."""
        super().train(mode and not self.frozen)
        return self

    def patches(self, image_BCHW: Tensor) -> Tensor:
        return self.vit.patch_embed(image_BCHW)

    def encode(
        self, patch_BPF: Tensor, prompt_BTF: Tensor | None = None, bias_BHP: Tensor | None = None
    ) -> Tensor:
        token_BSF = self.vit._pos_embed(patch_BPF)
        if prompt_BTF is not None:
            token_BSF = torch.cat([token_BSF, prompt_BTF.to(token_BSF.dtype)], 1)
        token_BSF = self.vit.norm_pre(token_BSF)
        bias = None if bias_BHP is None else pad_bias(bias_BHP, self.prefix, token_BSF.shape[1])
        for block in self.vit.blocks:
            token_BSF = block(token_BSF, attn_mask=bias)
        return self.vit.norm(token_BSF)

    def pool(self, token_BSF: Tensor) -> Tensor:
        return pool_image(token_BSF, self.prefix, self.grid**2, self.pooling)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.pool(self.encode(self.patches(image_BCHW)))


class DistilBertText(nn.Module):
    """DistilBERT (66M parameters) with scaled-dot-product attention.

    pretrained: from `weights` (a directory written by `save_pretrained`), else from the hub's cache, else
    the hub. pretrained=False: random, offline; the architecture is that of `weights` where given, else the
    published one. `vocab_size` is the tokenizer's: ValueError where pretrained weights have another.
    Raises WeightsUnavailable within a second where weights are neither here nor within reach.
    """

    def __init__(
        self,
        *,
        name: str = "distilbert/distilbert-base-uncased",
        pretrained: bool = True,
        weights: str | None = None,
        vocab_size: int | None = None,
        pooling: Literal["cls", "mean", "max"] = "cls",
        frozen: bool = False,
    ) -> None:
        super().__init__()
        check_pooling(pooling, ("cls", "mean", "max"), "model.text.pooling")
        directory = local_path(weights, "model.text.weights")
        self.bert: Any = build_distilbert(name, pretrained, directory, vocab_size)
        self.pooling, self.frozen = pooling, frozen
        self.width: int = self.bert.config.dim
        self.max_tokens: int = self.bert.config.max_position_embeddings
        if frozen:
            freeze(self)

    def train(self, mode: bool = True) -> DistilBertText:
        """A frozen encoder has no dropout."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, token_BL: Tensor) -> Tensor:
        if token_BL.shape[1] > self.max_tokens:
            raise ValueError(f"a text of {token_BL.shape[1]} tokens exceeds the encoder's {self.max_tokens}")
        valid_BL = valid_tokens(token_BL)
        # as [B, 1, 1, L] it is taken as it is: of [B, L] transformers asks the device whether all are valid, and waits
        mask = valid_BL[:, None, None, :]
        token_BLF = self.bert(input_ids=token_BL, attention_mask=mask).last_hidden_state
        return pool_text(token_BLF, valid_BL, self.pooling)


def build_vit(name: str, pretrained: bool, weights: Path | None, image_size: int) -> Any:
    """A timm vision transformer without its classifier."""
    timm = _timm_with(name, required=pretrained and weights is None)
    overlay: dict[str, Any] = {}
    if pretrained:
        file = weights or published_vit(timm.get_pretrained_cfg(name), name, _vit_advice(name))
        # custom_load would take the file for the .npz that these weights were first published as
        overlay = {"file": str(file), "custom_load": False}
    return timm.create_model(
        name,
        pretrained=pretrained,
        pretrained_cfg_overlay=overlay,
        num_classes=0,
        global_pool="",
        img_size=image_size,
    )


def _timm_with(name: str, required: bool) -> Any:
    """timm, once it is known that it has the model, and (`required`) that its weights can be had."""
    if required and not is_cached(f"timm/{name}"):
        require_hub(f"timm/{name}", _vit_advice(name))
    from eclip import torchvision_fix  # noqa: F401  (before timm)

    import timm  # isort: skip

    if not timm.is_model(name):
        raise ValueError(
            f"model.image.name={name}: timm knows no such model; timm.list_models('vit*') lists them"
        )
    if not timm.models.is_model_in_modules(name, ("vision_transformer", "deit")):
        raise ValueError(f"model.image.name={name}: is no plain vision transformer (vit_*, deit_*)")
    return timm


def _vit_advice(name: str) -> str:
    return (
        "Fetch it on a machine with network access by "
        f"""python -c "from eclip.models.encoders import TimmImage; TimmImage(name='{name}')" """
        "and copy its cache, or set model.image.weights=FILE, or model.pretrained=false for random weights."
    )


def image_file(name: str, weights: str | None) -> Path:
    """The file that `TimmImage(name=name, weights=weights)` reads."""
    file = local_path(weights, "model.image.weights")
    if file is None:
        timm = _timm_with(name, required=True)
        file = published_vit(timm.get_pretrained_cfg(name), name, _vit_advice(name))
    return file


def text_folder(name: str, weights: str | None) -> Path:
    """The folder that `DistilBertText(name=name, weights=weights)` reads."""
    advice = (
        f"Fetch it on a machine with network access by 'hf download {name}' and copy its cache, or set "
        "model.text.weights=DIRECTORY, or model.pretrained=false for random weights."
    )
    return local_path(weights, "model.text.weights") or snapshot(name, list(TEXT_FILES), advice)


def published_vit(settings: Any, name: str, advice: str) -> Path:
    """The file of timm's published weights; ValueError where there are none for this model."""
    repository = settings.hf_hub_id if settings else None
    if not repository:
        raise ValueError(f"model.image.name={name}: timm publishes no weights for it. {advice}")
    return snapshot(repository, ["model.safetensors"], advice) / "model.safetensors"


def build_distilbert(name: str, pretrained: bool, weights: Path | None, vocab_size: int | None) -> Any:
    """DistilBERT's encoder."""
    if pretrained and weights is None:
        weights = text_folder(name, None)
    from eclip import torchvision_fix  # noqa: F401  (before transformers)

    from transformers import DistilBertConfig, DistilBertModel  # isort: skip

    config = DistilBertConfig.from_pretrained(weights) if weights else DistilBertConfig()
    if vocab_size is not None and vocab_size != config.vocab_size:
        if pretrained:
            raise ValueError(
                f"the tokenizer has {vocab_size} entries, the weights {config.vocab_size}: "
                f"set model.tokenizer to that of the weights ({name})"
            )
        config.vocab_size = vocab_size
    if pretrained:
        return DistilBertModel.from_pretrained(weights, config=config, attn_implementation="sdpa")
    return DistilBertModel._from_config(config, attn_implementation="sdpa")
