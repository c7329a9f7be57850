"""The losses against plain loops over rows in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eclip.losses import Objective, expert_loss, info_nce, reconstruction_loss, siglip


def rows(seed: int, count: int = 7, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=-1)


def naive_direction(logits: np.ndarray, smoothing: float = 0.0, hardness: float = 0.0) -> float:
    """Cross-entropy of each row's diagonal entry, written out."""
    count = len(logits)
    losses = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        weight = {i: 1.0}
        total = sum(math.exp(hardness * logits[i, k]) for k in others)
        for j in others:
            weight[j] = (count - 1) * math.exp(hardness * logits[i, j]) / total
        denominator = sum(weight[j] * math.exp(logits[i, j]) for j in range(count))
        log_share = [math.log(weight[j] * math.exp(logits[i, j]) / denominator) for j in range(count)]
        target = [smoothing / count + (1 - smoothing) * (j == i) for j in range(count)]
        losses.append(-sum(t * share for t, share in zip(target, log_share, strict=True)))
    return float(np.mean(losses))


def naive_info_nce(image: Tensor, text: Tensor, scale: float, smoothing: float = 0.0, hardness: float = 0.0):
    logits = scale * image.double().numpy() @ text.double().numpy().T
    return (naive_direction(logits, smoothing, hardness) + naive_direction(logits.T, smoothing, hardness)) / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("hardness", [0.0, 0.3])
def test_info_nce_is_what_the_loops_say(smoothing: float, hardness: float) -> None:
    image, text = rows(0), rows(1)
    loss = info_nce(image, text, torch.tensor(8.0), smoothing, hardness)
    assert loss.item() == pytest.approx(naive_info_nce(image, text, 8.0, smoothing, hardness), rel=1e-5)


def test_info_nce_is_symmetric_and_prefers_the_right_pairs() -> None:
    image, text = rows(0), rows(1)
    scale = torch.tensor(8.0)
    assert info_nce(image, text, scale).item() == pytest.approx(info_nce(text, image, scale).item(), rel=1e-6)
    assert info_nce(image, image, scale) < info_nce(image, image.roll(1, 0), scale)
    collapsed = rows(3, count=1).expand(7, -1)
    assert info_nce(collapsed, collapsed, scale).item() == pytest.approx(math.log(7), rel=1e-6)


def test_hard_negatives_raise_the_loss_and_take_no_gradient_through_their_weights() -> None:
    image, text, scale = rows(0).requires_grad_(), rows(1), torch.tensor(8.0)
    plain, hard = (info_nce(image, text, scale, hard_negative=b) for b in (0.0, 0.5))
    assert hard > plain
    (gradient,) = torch.autograd.grad(hard, image)
    logits = (8.0 * image @ text.T).detach()
    tempered = 0.5 * logits
    tempered.fill_diagonal_(-torch.inf)
    loss = torch.tensor(0.0)
    for dim in (0, 1):
        weight = 6 * tempered.softmax(dim)
        weight.fill_diagonal_(1.0)
        shares = weight * (8.0 * image @ text.T).exp()
        loss = loss - (shares.diagonal() / shares.sum(dim)).log().mean() / 2
    (expected,) = torch.autograd.grad(loss, image)
    torch.testing.assert_close(gradient, expected)


def test_one_row_and_duplicate_texts_are_finite() -> None:
    assert info_nce(rows(0, 1), rows(1, 1), torch.tensor(100.0), hard_negative=0.5).item() == 0.0
    text = rows(1)
    text[3] = text[4]
    image = text.clone()
    # two equal texts are each other's negatives: even perfect embeddings cannot go below log 2 for these rows
    assert info_nce(image, text, torch.tensor(1000.0)).item() == pytest.approx(2 * math.log(2) / 7, rel=1e-3)


@pytest.mark.parametrize("bias", [-10.0, 0.5])
def test_siglip_is_what_the_loops_say(bias: float) -> None:
    image, text = rows(0), rows(1)
    expected = 0.0
    for i in range(7):
        for j in range(7):
            logit = 10.0 * float(image[i] @ text[j]) + bias
            expected += math.log1p(math.exp(-logit if i == j else logit)) / 7
    loss = siglip(image, text, torch.tensor(10.0), torch.tensor(bias))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_expert_and_reconstruction_loss() -> None:
    masked, mixed, phrase, caption = (rows(seed) for seed in range(4))
    loss = expert_loss(masked, mixed, phrase, caption, torch.tensor(5.0), 0.1, 0.2)
    expected = (
        naive_info_nce(mixed, phrase, 5.0, 0.1, 0.2) + naive_info_nce(masked, caption, 5.0, 0.1, 0.2)
    ) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    reconstructed, image = rows(5).requires_grad_(), rows(6).requires_grad_()
    loss = reconstruction_loss(reconstructed, image)
    expected = float(np.mean((reconstructed.detach().numpy() - image.detach().numpy()) ** 2))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert image.grad is None
    assert reconstructed.grad is not None


def test_the_objective_is_the_weighted_sum_of_its_parts() -> None:
    out = {
        "image_BD": rows(0),
        "caption_BD": rows(1),
        "scale": torch.tensor(5.0),
        "masked_BD": rows(2),
        "mixed_BD": rows(3),
        "phrase_BD": rows(4),
        "reconstructed_BD": rows(5),
    }
    parts = Objective(expert_weight=0.3, reconstruction_weight=2.0, label_smoothing=0.1)(**out)
    total = parts["contrastive"] + 0.3 * parts["expert"] + 2.0 * parts["reconstruction"]
    torch.testing.assert_close(parts["loss"], total)
    expert = expert_loss(rows(2), rows(3), rows(4), rows(1), torch.tensor(5.0), 0.1)
    torch.testing.assert_close(parts["expert"], expert)
    plain = Objective()(image_BD=rows(0), caption_BD=rows(1), scale=torch.tensor(5.0))
    assert set(plain) == {"loss", "contrastive"}


def test_the_siglip_objective_uses_the_bias_for_every_pair() -> None:
    out = {"image_BD": rows(0), "caption_BD": rows(1), "scale": torch.tensor(5.0)}
    expert = {"masked_BD": rows(2), "mixed_BD": rows(3), "phrase_BD": rows(4)}
    bias = torch.tensor(-3.0)
    parts = Objective(name="siglip")(**out, **expert, bias=bias)
    scale = out["scale"]
    expected = (siglip(rows(3), rows(4), scale, bias) + siglip(rows(2), rows(1), scale, bias)) / 2
    torch.testing.assert_close(parts["expert"], expected)
    with pytest.raises(ValueError, match="needs a model with a bias"):
        Objective(name="siglip")(**out)


@pytest.mark.parametrize("setting", [{"label_smoothing": 0.1}, {"hard_negative": 0.5}])
def test_siglip_refuses_what_it_does_not_know(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"loss\.label_smoothing=0 and loss\.hard_negative=0"):
        Objective(name="siglip", **setting)


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.name=triplet: choose clip or siglip"):
        Objective(name="triplet")  # type: ignore[arg-type]


def test_logits_are_float32_under_autocast() -> None:
    image, text, scale = rows(0, 64, 32), rows(1, 64, 32), torch.tensor(100.0)
    expected = info_nce(image, text, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(image, text, scale), expected)
        pairwise = siglip(image, text, scale, torch.tensor(-10.0))
    assert torch.equal(pairwise, siglip(image, text, scale, torch.tensor(-10.0)))
