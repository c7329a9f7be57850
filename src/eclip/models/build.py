"""The model's settings go in, an ECLIP comes out, its encoders made by the classes that `_target_` names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hydra.utils import instantiate

from eclip.config import ImageEncoder, Model, TextEncoder
from eclip.models.eclip import ECLIP

# SigLIP starts from "nothing matches" (arXiv 2303.15343)
SIGLIP_BIAS = -10.0


def build_model(settings: Model, fusion: str, loss: str, vocabulary_size: int) -> ECLIP:
    """Weights are drawn from torch's global generator, or loaded where `settings.pretrained` says so."""
    image, text = given(settings.image), given(settings.text)
    if settings.image._target_.endswith("TinyViT"):
        image["image_size"] = settings.image_size
        text |= {
            "vocab_size": vocabulary_size,
            "max_tokens": max(settings.caption_tokens, settings.phrase_tokens),
        }
    else:
        image |= {"pretrained": settings.pretrained, "image_size": settings.image_size}
        text["pretrained"] = settings.pretrained
    return ECLIP(
        instantiate(image),
        instantiate(text),
        projection=asdict(settings.projection),
        logit_scale=asdict(settings.logit_scale),
        image_size=settings.image_size,
        fusion=fusion,
        experts=settings.experts,
        bias=SIGLIP_BIAS if loss == "siglip" else None,
    )


def given(settings: ImageEncoder | TextEncoder) -> dict[str, Any]:
    """The keys that were given a value: an encoder refuses those it does not have."""
    return {key: value for key, value in asdict(settings).items() if value is not None}
