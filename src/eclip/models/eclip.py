"""eCLIP: images, texts and heatmaps in; L2-normalised embeddings out, named as the losses' arguments."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eclip.models.encoders import ImageEncoder, TextEncoder
from eclip.models.heatmap import build_fusion


class ECLIP(nn.Module):
    """CLIP with expert heatmaps (arXiv 2403.10153).

    projection: dim, layers (1: linear; 2: with GELU and LayerNorm between), dropout.
    logit_scale: init, min, max of the scale itself (not its logarithm).
    fusion, patch_size: how the heatmap enters, and the patch of `cross_attention` (None: 16, for images
    below 64 pixels a quarter of the side).
    experts=False builds no heatmap processor: plain CLIP. bias: the start of SigLIP's learned bias, or None.
    """

    def __init__(
        self,
        image: ImageEncoder,
        text: TextEncoder,
        *,
        projection: dict,
        logit_scale: dict,
        image_size: int,
        fusion: str = "cross_attention",
        experts: bool = True,
        patch_size: int | None = None,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_head = Projection(image.width, **projection)
        self.text_head = Projection(text.width, **projection)
        patch_size = patch_size or min(16, image_size // 4)
        self.fusion = build_fusion(fusion, image, projection["dim"], patch_size) if experts else None
        self.scale_min, self.scale_max = float(logit_scale["min"]), float(logit_scale["max"])
        if not 0 < self.scale_min <= self.scale_max:
            raise ValueError(f"model.logit_scale: needs 0 < min <= max, has {logit_scale}")
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale["init"])))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def scale(self) -> Tensor:
        """exp(parameter), clamped to [min, max]. Outside the bounds no gradient passes: with the published
        starting point (init 14.3, max 2) the scale stays at 2 for good, which is the published bug."""
        return self.log_scale.exp().clamp(self.scale_min, self.scale_max)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """[B, D], L2-normalised, float32. Pixels are normalised floats."""
        return unit(self.image_head(self.image(image_BCHW)))

    def encode_text(self, token_BL: Tensor) -> Tensor:
        """[B, D], L2-normalised, float32. Id 0 is padding."""
        return unit(self.text_head(self.text(token_BL)))

    def encode_expert(
        self, image_BCHW: Tensor, heatmap_BHW: Tensor, token_BSF: Tensor | None = None
    ) -> Tensor:
        """The image as the heatmap shows it: [B, D], L2-normalised, float32. `token_BSF`: the image encoder's
        tokens of the plain image, if the caller has them."""
        if self.fusion is None:
            raise ValueError("this model was built with experts=False: it has no heatmap processor")
        masked = self.fusion(self.image, image_BCHW, heatmap_BHW, token_BSF)
        return unit(masked if self.fusion.projected else self.image_head(masked))

    def forward(
        self,
        image_BCHW: Tensor,
        caption_BL: Tensor,
        heatmap_BHW: Tensor | None = None,
        phrase_BL: Tensor | None = None,
        mix_B: Tensor | None = None,
        reconstruct: bool = False,
    ) -> dict[str, Tensor]:
        """Embeddings by the name of the loss's argument: image_BD, caption_BD, scale, and bias for SigLIP.

        With a heatmap, a phrase and mixing shares in [0, 1] also masked_BD, phrase_BD and
        mixed_BD = normalise(mix * image + (1 - mix) * masked). With `reconstruct` also reconstructed_BD, the
        expert embedding under a heatmap of ones.
        """
        token_BSF = self.image.encode(self.image.patches(image_BCHW))
        image_BD = unit(self.image_head(self.image.pool(token_BSF)))
        out = {"image_BD": image_BD, "caption_BD": self.encode_text(caption_BL), "scale": self.scale()}
        if self.bias is not None:
            out["bias"] = self.bias
        if heatmap_BHW is not None:
            if phrase_BL is None or mix_B is None:
                raise ValueError("an expert step needs heatmap_BHW, phrase_BL and mix_B together")
            masked_BD = self.encode_expert(image_BCHW, heatmap_BHW, token_BSF)
            mix_B1 = mix_B[:, None]
            out["masked_BD"] = masked_BD
            out["mixed_BD"] = unit(mix_B1 * image_BD + (1 - mix_B1) * masked_BD)
            out["phrase_BD"] = self.encode_text(phrase_BL)
        if reconstruct:
            out["reconstructed_BD"] = self.encode_expert(
                image_BCHW, torch.ones_like(image_BCHW[:, 0]), token_BSF
            )
        return out

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained: image backbone, text backbone, and the rest (projections, scale, fusion)."""
        groups: dict[str, list[nn.Parameter]] = {"image": [], "text": [], "heads": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                root = name.partition(".")[0]
                groups[root if root in groups else "heads"].append(parameter)
        return groups

    def backbone_state(self) -> dict[str, Tensor]:
        """A copy of both backbones' weights, for WiSE-FT: keys as in `state_dict()`."""
        state = self.state_dict()
        return {key: state[key].detach().clone() for key in state if key.startswith(("image.", "text."))}


class Projection(nn.Sequential):
    """Features [B, F] to the shared space [B, D]: linear (GELU, LayerNorm, linear), dropout."""

    def __init__(self, width: int, *, dim: int, layers: int = 1, dropout: float = 0.0) -> None:
        if layers not in (1, 2):
            raise ValueError(f"model.projection.layers={layers}: choose 1 or 2")
        parts: list[nn.Module] = [nn.Linear(width, dim)]
        if layers == 2:
            parts += [nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, dim)]
        if dropout:
            parts.append(nn.Dropout(dropout))
        super().__init__(*parts)
        for part in parts:
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=part.in_features**-0.5)
                nn.init.zeros_(part.bias)


def unit(embedding_BD: Tensor) -> Tensor:
    """Rows of length 1, in float32 also under autocast: in bf16 a length would be off by up to 0.4 %."""
    return F.normalize(embedding_BD.float(), dim=-1)
