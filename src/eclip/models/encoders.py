"""What every encoder offers: pixels or token ids in, features [B, F] out; and the four encoders by name.

An image encoder works in three steps that the heatmap fusions hook into: `patches` embeds pixels, `encode`
runs the transformer over them, `pool` makes one vector of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from eclip.models.pretrained import DistilBertText, TimmImage
from eclip.models.tiny import TinyText, TinyViT

__all__ = ["DistilBertText", "ImageEncoder", "TextEncoder", "TimmImage", "TinyText", "TinyViT"]


class ImageEncoder(Protocol):
    """S tokens of the transformer: `prefix` class (and register) tokens, P patches, then any prompts."""

    width: int
    heads: int
    patch_size: int
    grid: int
    prefix: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    def patches(self, image_BCHW: Tensor) -> Tensor:
        """Patch embeddings [B, P, F], P = grid * grid, row by row, before positions are added."""

    def encode(
        self, patch_BPF: Tensor, prompt_BTF: Tensor | None = None, bias_BHP: Tensor | None = None
    ) -> Tensor:
        """Final tokens [B, S, F]. `prompt_BTF` are extra tokens; `bias_BHP` is added to every attention logit
        towards a patch, by head."""

    def pool(self, token_BSF: Tensor) -> Tensor:
        """One feature [B, F]; prompts never take part in the mean."""

    def __call__(self, image_BCHW: Tensor) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class TextEncoder(Protocol):
    width: int

    def __call__(self, token_BL: Tensor) -> Tensor:
        """One feature [B, F] of token ids; id 0 is padding."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
