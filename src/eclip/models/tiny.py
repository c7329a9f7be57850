"""Small encoders for training on a CPU: pixels or token ids in, features [B, F] out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from eclip.models.packing import Packing
from eclip.models.pooling import check_pooling, freeze, pool_image, pool_text
from eclip.models.transformer import PatchConv, Transformer, initialise

PADDING = 0


class TinyViT(nn.Module):
    """A pre-norm vision transformer with learned positions. A class token exists only where it is pooled."""

    pixel_mean = pixel_std = (0.5, 0.5, 0.5)

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float = 0.0,
        pooling: Literal["cls", "mean"] = "mean",
        frozen: bool = False,
    ) -> None:
        super().__init__()
        check_pooling(pooling, ("cls", "mean"), "model.image.pooling")
        if image_size % patch_size:
            raise ValueError(f"model.image.patch_size={patch_size} does not divide image_size={image_size}")
        self.width, self.heads, self.pooling, self.frozen = width, heads, pooling, frozen
        self.patch_size, self.grid = patch_size, image_size // patch_size
        self.prefix = int(pooling == "cls")
        self.embed = PatchConv(3, width, patch_size)
        initialise(self.embed)
        self.transformer = Transformer(width, depth, heads, dropout)
        self.position = nn.Parameter(torch.empty(1, self.prefix + self.grid**2, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        if frozen:
            freeze(self)

    def train(self, mode: bool = True) -> TinyViT:
        """A frozen encoder has no dropout."""
        super().train(mode and not self.frozen)
        return self

    def patches(self, image_BCHW: Tensor) -> Tensor:
        return self.embed(image_BCHW)

    def encode(
        self, patch_BPF: Tensor, prompt_BTF: Tensor | None = None, bias_BHP: Tensor | None = None
    ) -> Tensor:
        B = len(patch_BPF)
        token_BSF = patch_BPF + self.position[:, self.prefix :]
        if self.prefix:
            # the class token has no embedding of its own: its learned position is one
            token_BSF = torch.cat([self.position[:, :1].expand(B, -1, -1).to(token_BSF.dtype), token_BSF], 1)
        if prompt_BTF is not None:
            token_BSF = torch.cat([token_BSF, prompt_BTF.to(token_BSF.dtype)], 1)
        bias = None if bias_BHP is None else pad_bias(bias_BHP, self.prefix, token_BSF.shape[1])
        return self.transformer(token_BSF, bias)

    def pool(self, token_BSF: Tensor) -> Tensor:
        return pool_image(token_BSF, self.prefix, self.grid**2, self.pooling)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.pool(self.encode(self.patches(image_BCHW)))


class TinyText(nn.Module):
    """A pre-norm text transformer with learned positions; padding (id 0) is neither attended nor pooled."""

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float = 0.0,
        pooling: Literal["cls", "mean", "max"] = "cls",
        max_tokens: int = 128,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        check_pooling(pooling, ("cls", "mean", "max"), "model.text.pooling")
        self.width, self.pooling, self.max_tokens, self.frozen = width, pooling, max_tokens, frozen
        self.skip_padding = True
        self.embed = nn.Embedding(vocab_size, width)
        initialise(self.embed)
        self.transformer = Transformer(width, depth, heads, dropout)
        self.position = nn.Parameter(torch.empty(max_tokens, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        if frozen:
            freeze(self)

    def train(self, mode: bool = True) -> TinyText:
        """A frozen encoder has no dropout."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, token_BL: Tensor) -> Tensor:
        L = token_BL.shape[1]
        if self.max_tokens < L:
            raise ValueError(f"a text of {L} tokens exceeds the encoder's {self.max_tokens}")
        valid_BL = valid_tokens(token_BL)
        token_BLF = self.embed(token_BL) + self.position[:L]
        mask = valid_BL[:, None, None, :]
        packing = Packing.of(valid_BL) if self.skip_padding else None
        if packing is None:
            token_BLF = self.transformer(token_BLF, mask)
        else:
            token_BLF = packing.unpack(self.transformer(packing.pack(token_BLF), mask, packing))
        return pool_text(token_BLF, valid_BL, self.pooling)


def valid_tokens(token_BL: Tensor) -> Tensor:
    """True where a token is no padding. The first counts as valid always: attention over nothing is NaN."""
    valid_BL = token_BL != PADDING
    valid_BL[:, 0] = True
    return valid_BL


def pad_bias(bias_BHP: Tensor, prefix: int, count: int) -> Tensor:
    """A bias towards patches [B, heads, P] as one towards all S = `count` tokens, [B, heads, 1, S]."""
    return nn.functional.pad(bias_BHP, (prefix, count - prefix - bias_BHP.shape[2]))[:, :, None]
