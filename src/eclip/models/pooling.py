"""From tokens to one vector: [B, L, F] in, [B, F] out, padding left out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["cls", "mean", "max"]


def pool_text(token_BLF: Tensor, valid_BL: Tensor, pooling: Pooling) -> Tensor:
    """First token, or mean or maximum over the valid tokens. The first token of a row must be valid."""
    if pooling == "cls":
        return token_BLF[:, 0]
    if pooling == "mean":
        weight_BL = valid_BL.to(token_BLF.dtype)
        return torch.einsum("blf,bl->bf", token_BLF, weight_BL / weight_BL.sum(1, keepdim=True))
    return token_BLF.masked_fill(~valid_BL[..., None], -torch.inf).amax(1)


def pool_image(token_BSF: Tensor, prefix: int, patch_count: int, pooling: Pooling) -> Tensor:
    """The class token, or the mean over patches (without prefix and prompt tokens)."""
    if pooling == "cls":
        return token_BSF[:, 0]
    return token_BSF[:, prefix : prefix + patch_count].mean(1)


def check_pooling(pooling: str, allowed: tuple[str, ...], key: str) -> None:
    """Raise ValueError naming the config key where `pooling` is none of `allowed`."""
    if pooling not in allowed:
        raise ValueError(f"{key}={pooling}: choose one of {', '.join(allowed)}")


def freeze(module: nn.Module) -> None:
    """Take no gradients for the weights. The module stays differentiable in its input, which fusions need."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
