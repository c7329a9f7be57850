"""Losses of CLIP and eCLIP: L2-normalised embeddings in, scalar float32 losses out.

All logits are float32, also under autocast: in bf16 a scale of 100 would round them by up to 0.25. Rows of
a batch that carry the same text (two prints, one phrase) count as each other's negatives, as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    image_ND: Tensor, text_ND: Tensor, scale: Tensor, label_smoothing: float = 0.0, hard_negative: float = 0.0
) -> Tensor:
    """Symmetric InfoNCE: the mean of the cross-entropies image -> text and text -> image.

    label_smoothing e: the target is 1 - e + e/N for the pair and e/N for the others.
    hard_negative b (Robinson et al. 2021, arXiv 2010.04592, without debiasing): negative j of row i counts
    w_ij = (N - 1) exp(b s_ij) / sum_{k != i} exp(b s_ik) times in the denominator, s being the scaled logits;
    the weights, whose mean is 1, are held constant in the gradient. b = 0 is plain InfoNCE.
    """
    with torch.autocast(image_ND.device.type, enabled=False):
        logit_NN = scale.float() * (image_ND.float() @ text_ND.float().T)
    return (
        cross_entropy(logit_NN, 1, label_smoothing, hard_negative)
        + cross_entropy(logit_NN, 0, label_smoothing, hard_negative)
    ) / 2


def cross_entropy(logit_NN: Tensor, dim: int, label_smoothing: float, hard_negative: float) -> Tensor:
    """Mean cross-entropy along `dim`, the diagonal being the target; no transposed copy is made."""
    if hard_negative:
        logit_NN = logit_NN + log_negative_weights(logit_NN.detach(), dim, hard_negative)
    loss = logit_NN.logsumexp(dim).mean() - (1 - label_smoothing) * logit_NN.diagonal().mean()
    return loss - label_smoothing * logit_NN.mean() if label_smoothing else loss


def log_negative_weights(logit_NN: Tensor, dim: int, hard_negative: float) -> Tensor:
    """log w of `info_nce`; 0 on the diagonal."""
    tempered_NN = (hard_negative * logit_NN).fill_diagonal_(-math.inf)
    log_mean = tempered_NN.logsumexp(dim, keepdim=True) - math.log(max(len(logit_NN) - 1, 1))
    return (tempered_NN - log_mean).fill_diagonal_(0.0)


def siglip(image_ND: Tensor, text_ND: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Pairwise sigmoid loss (arXiv 2303.15343): the sum over i, j of
    -log sigmoid(z_ij (scale cos_ij + bias)) / N, where z is 1 for pairs and -1 for all others."""
    with torch.autocast(image_ND.device.type, enabled=False):
        logit_NN = scale.float() * (image_ND.float() @ text_ND.float().T) + bias.float()
    # log sigmoid(-x) = log sigmoid(x) - x: the pairs' terms are corrected on the diagonal alone
    return (F.softplus(logit_NN).sum() - logit_NN.diagonal().sum()) / len(logit_NN)


def expert_loss(
    masked_BD: Tensor,
    mixed_BD: Tensor,
    phrase_BD: Tensor,
    caption_BD: Tensor,
    scale: Tensor,
    label_smoothing: float = 0.0,
    hard_negative: float = 0.0,
) -> Tensor:
    """Mean of InfoNCE(mixed, phrase) and InfoNCE(masked, caption); its weight is applied by the caller."""
    mixed = info_nce(mixed_BD, phrase_BD, scale, label_smoothing, hard_negative)
    return (mixed + info_nce(masked_BD, caption_BD, scale, label_smoothing, hard_negative)) / 2


def reconstruction_loss(reconstructed_BD: Tensor, image_BD: Tensor) -> Tensor:
    """Mean squared error (over rows and columns) between the expert embedding under a heatmap of ones and the
    image's own embedding, which takes no gradient.

    eCLIP's warm-up: during a first share of the budget the heatmap processor learns that "look everywhere"
    means the image itself.
    """
    return F.mse_loss(reconstructed_BD, image_BD.detach())


@dataclass(frozen=True)
class Objective:
    """The training loss; called with the model's outputs as keyword arguments.

    Under `siglip` the expert loss is made of pairwise sigmoid losses too. `siglip` knows neither label
    smoothing nor hard-negative weights: ValueError.
    """

    name: Literal["clip", "siglip"] = "clip"
    label_smoothing: float = 0.0
    hard_negative: float = 0.0
    expert_weight: float = 0.1
    reconstruction_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("clip", "siglip"):
            raise ValueError(f"loss.name={self.name}: choose clip or siglip")
        if self.name == "siglip" and (self.label_smoothing or self.hard_negative):
            raise ValueError("loss.name=siglip: set loss.label_smoothing=0 and loss.hard_negative=0")

    def __call__(
        self,
        *,
        image_BD: Tensor,
        caption_BD: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        masked_BD: Tensor | None = None,
        mixed_BD: Tensor | None = None,
        phrase_BD: Tensor | None = None,
        reconstructed_BD: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """ "loss" (the weighted sum, to differentiate) and its parts, unweighted: "contrastive", and "expert"
        and "reconstruction" where the step has them."""
        parts = {"contrastive": self.pair(image_BD, caption_BD, scale, bias)}
        loss = parts["contrastive"]
        if masked_BD is not None and mixed_BD is not None and phrase_BD is not None:
            mixed = self.pair(mixed_BD, phrase_BD, scale, bias)
            parts["expert"] = (mixed + self.pair(masked_BD, caption_BD, scale, bias)) / 2
            loss = loss + self.expert_weight * parts["expert"]
        if reconstructed_BD is not None:
            parts["reconstruction"] = reconstruction_loss(reconstructed_BD, image_BD)
            loss = loss + self.reconstruction_weight * parts["reconstruction"]
        return {"loss": loss, **parts}

    def pair(self, image_ND: Tensor, text_ND: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        """The pairwise loss by name."""
        if self.name == "clip":
            return info_nce(image_ND, text_ND, scale, self.label_smoothing, self.hard_negative)
        if bias is None:
            raise ValueError("loss.name=siglip needs a model with a bias: ECLIP(..., bias=-10)")
        return siglip(image_ND, text_ND, scale, bias)
