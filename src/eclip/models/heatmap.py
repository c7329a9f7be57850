"""Six ways to let a heatmap into the image embedding: image and heatmap in, embedding or feature out.

`CrossAttention` is the published processor: it sees pixels alone and answers in the projection space. The
others run the image encoder once more with the heatmap in it and answer in its feature space, [B, F], from
where the image's own projection leads on. A heatmap [B, H, W] holds values in [0, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eclip.models.encoders import ImageEncoder
from eclip.models.transformer import PatchConv, attend, initialise

HEADS = 4  # as published


class CrossAttention(nn.Module):
    """Heatmap patches ask, image patches answer; the mean over patches is the masked embedding.

    Source: eCLIP, arXiv 2403.10153. Queries are the layer-normed heatmap patches, keys the layer-normed image
    patches, values the image patches as they are. No positions: a patch is known by what it shows. A width that
    4 does not divide has 2 heads, or 1: a search may set any width, and would lose every trial of such a one.
    """

    projected = True

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.heads = math.gcd(width, HEADS)
        self.embed_image = PatchConv(3, width, patch_size)
        self.embed_heatmap = PatchConv(1, width, patch_size)
        self.norm_image = nn.LayerNorm(width)
        self.norm_heatmap = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(
        self, encoder: ImageEncoder, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        """[B, D]. Neither the image encoder nor its tokens are used."""
        image_BPD = self.embed_image(image_BCHW)
        heatmap_BPD = self.embed_heatmap(heatmap_BHW[:, None])
        key_BPD = self.norm_image(image_BPD)
        mixed_BHPd = attend(
            split_heads(self.query(self.norm_heatmap(heatmap_BPD)), self.heads),
            split_heads(self.key(key_BPD), self.heads),
            split_heads(self.value(image_BPD), self.heads),
        )
        # the mean goes before the last linear layer, with which it commutes: P times less to multiply
        return self.out(mixed_BHPd.mean(2).flatten(1))


class PixelMask(nn.Module):
    """The normalised image times the heatmap, encoded: outside the boxes it shows the data's mean colour.

    Source: masked crops as in OVSeg, arXiv 2210.04150, with a soft mask. No parameters of its own.
    """

    projected = False

    def forward(
        self, encoder: ImageEncoder, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        return encoder(image_BCHW * heatmap_BHW[:, None])


class WeightedPooling(nn.Module):
    """The plain image's final patch tokens, averaged with the heatmap's mean over each patch as weight.

    Source: mask pooling as in OpenSeg, arXiv 2112.12143. It shares the image's own pass (`token_BSF`), so it
    costs next to nothing. No parameters of its own.
    """

    projected = False

    def forward(
        self, encoder: ImageEncoder, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        if token_BSF is None:
            token_BSF = encoder.encode(encoder.patches(image_BCHW))
        # the floor gives a print without any box left (all cropped away) the plain mean
        weight_BP = patch_means(heatmap_BHW, encoder.grid).clamp_min(1e-6)
        weight_BP = weight_BP / weight_BP.sum(1, keepdim=True)
        patch_BPF = token_BSF[:, encoder.prefix : encoder.prefix + encoder.grid**2]
        return torch.einsum("bpf,bp->bf", patch_BPF, weight_BP.to(patch_BPF.dtype))


class PromptTokens(nn.Module):
    """Heatmap patches as further tokens of the image encoder, marked by learned positions.

    Source: visual prompts, arXiv 2203.12119, made from the heatmap as SAM, arXiv 2304.02643, embeds masks.
    """

    projected = False

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.embed = PatchConv(1, encoder.width, encoder.patch_size)
        initialise(self.embed)
        self.position = nn.Parameter(torch.empty(1, encoder.grid**2, encoder.width))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(
        self, encoder: ImageEncoder, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        prompt_BTF = self.embed(heatmap_BHW[:, None]) + self.position
        return encoder.pool(encoder.encode(encoder.patches(image_BCHW), prompt_BTF))


class InputChannel(nn.Module):
    """The heatmap as a fourth channel: its patch embedding, zero at the start, is added to the image's.

    Source: Alpha-CLIP, arXiv 2312.03818. At the start the embedding is that of the plain image.
    """

    projected = False

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.embed = PatchConv(1, encoder.width, encoder.patch_size)
        for parameter in self.embed.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, encoder: ImageEncoder, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        patch_BPF = encoder.patches(image_BCHW) + self.embed(heatmap_BHW[:, None])
        return encoder.pool(encoder.encode(patch_BPF))


class AttentionBias(nn.Module):
    """strength * log(heatmap) is added to all attention logits towards a patch, in every layer, by head.

    With strength 1 (the start) attention weights are multiplied by the heatmap and renormalised. Source:
    attention biases that steer CLIP's tokens to a region, as in SAN, arXiv 2302.12242; the logarithm is ours.
    """

    projected = False
    floor = 0.01  # a patch outside all boxes keeps a hundredth of its weight at strength 1

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.ones(encoder.heads))

    def forward(
        self, encoder: ImageEncoder, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        log_BP = patch_means(heatmap_BHW, encoder.grid).clamp_min(self.floor).log()
        bias_BHP = self.strength[:, None] * log_BP[:, None]
        return encoder.pool(encoder.encode(encoder.patches(image_BCHW), bias_BHP=bias_BHP))


Fusion = CrossAttention | PixelMask | WeightedPooling | PromptTokens | InputChannel | AttentionBias
FUSIONS = (
    "cross_attention", "pixel_mask", "weighted_pooling", "prompt_tokens", "input_channel", "attention_bias"
)  # fmt: skip


def build_fusion(name: str, encoder: ImageEncoder, projection_dim: int, patch_size: int) -> Fusion:
    """The fusion called `name`. `patch_size` is that of cross_attention; the others take the encoder's."""
    if name == "cross_attention":
        return CrossAttention(projection_dim, patch_size)
    if name == "pixel_mask":
        return PixelMask()
    if name == "weighted_pooling":
        return WeightedPooling()
    if name == "prompt_tokens":
        return PromptTokens(encoder)
    if name == "input_channel":
        return InputChannel(encoder)
    if name == "attention_bias":
        return AttentionBias(encoder)
    raise ValueError(f"expert.fusion={name}: choose one of {', '.join(FUSIONS)}")


def patch_means(heatmap_BHW: Tensor, grid: int) -> Tensor:
    """The heatmap's mean over each of grid x grid patches, [B, P], row by row."""
    return F.adaptive_avg_pool2d(heatmap_BHW[:, None], grid).flatten(1)


def split_heads(token_BPD: Tensor, heads: int) -> Tensor:
    """[B, P, D] -> [B, heads, P, D / heads]."""
    return token_BPD.unflatten(2, (heads, -1)).transpose(1, 2)
