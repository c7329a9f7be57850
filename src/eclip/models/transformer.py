"""The parts small transformers are made of: tokens [B, L, F] in, tokens [B, L, F] out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eclip.models.packing import Packing


class PatchConv(nn.Conv2d):
    """A convolution whose stride is its kernel size: image [B, C, H, W] -> patches [B, P, F], row by row.

    Such a convolution is one matrix product; so written, a step of it costs about half of what the general
    kernel takes on a CPU. Weights and values are those of the `Conv2d`.
    """

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__(channels, width, kernel_size=patch_size, stride=patch_size)
        self.patch_size = patch_size

    def forward(self, image_BCHW: Tensor) -> Tensor:
        B, C, H, W = image_BCHW.shape
        p = self.patch_size
        if H % p or W % p:
            raise ValueError(f"an image of {H}x{W} does not divide into patches of {p}x{p}")
        blocks = image_BCHW.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5)
        return F.linear(blocks.reshape(B, -1, C * p * p), self.weight.flatten(1), self.bias)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled-dot-product attention, [B, heads, L, F]; `bias` is added to the logits, or a mask.

    On a CPU in float32 whatever comes in: the bf16 kernel's backward pass takes five to ten times as long
    there, half of a training step of the small model (docs/performance.md).
    """
    if query.device.type != "cpu" or query.dtype == torch.float32:
        if bias is not None and bias.is_floating_point():
            bias = bias.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    with torch.autocast("cpu", enabled=False):
        if bias is not None and bias.is_floating_point():
            bias = bias.float()
        mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=bias)
    return mixed.to(query.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one fused query-key-value product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, token_BLF: Tensor, bias: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        """`bias` is added to the logits [B, heads, L, L] (broadcast), or a mask of what may be attended.
        With `packing`, tokens are packed rows [U, F]."""
        qkv_BLG = self.qkv(token_BLF)
        if packing is not None:
            qkv_BLG = packing.unpack(qkv_BLG)
        query, key, value = qkv_BLG.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value, bias)
        mixed_BLF = mixed.transpose(1, 2).flatten(2)
        return self.out(mixed_BLF if packing is None else packing.pack(mixed_BLF))


class Block(nn.Module):
    """Pre-norm block: attention, then an MLP four times as wide. Dropout sits on the residual branches only:
    dropout of the attention weights would turn the fused attention kernel off."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self, token_BLF: Tensor, bias: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        token_BLF = token_BLF + self.dropout(self.attention(self.norm1(token_BLF), bias, packing))
        return token_BLF + self.dropout(self.contract(F.gelu(self.expand(self.norm2(token_BLF)))))


class Transformer(nn.Module):
    """`depth` blocks and a last layer norm, initialised with a truncated normal of 0.02.

    The layers that write into the residual stream start smaller by sqrt(2 depth), so that its variance does
    not grow with depth (GPT-2).
    """

    def __init__(self, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        blocks = [Block(width, heads, dropout) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.apply(initialise)
        for block in blocks:
            for layer in (block.attention.out, block.contract):
                nn.init.trunc_normal_(layer.weight, std=0.02 / math.sqrt(2 * depth))

    def forward(
        self, token_BLF: Tensor, bias: Tensor | None = None, packing: Packing | None = None
    ) -> Tensor:
        for block in self.blocks:
            token_BLF = block(token_BLF, bias, packing)
        return self.norm(token_BLF)


def initialise(module: nn.Module) -> None:
    """Linear layers, embeddings and patch convolutions: truncated normal of 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
