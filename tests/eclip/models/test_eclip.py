"""The whole model: what it returns, what it learns, how large the published one is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eclip.losses import Objective
from eclip.models.eclip import ECLIP, Projection
from eclip.models.encoders import DistilBertText, TimmImage, TinyText, TinyViT

SCALE = {"init": 1 / 0.07, "min": 1.0, "max": 100.0}


def tiny(**settings) -> ECLIP:
    torch.manual_seed(0)
    arguments = {
        "projection": {"dim": 16, "layers": 1, "dropout": 0.0},
        "logit_scale": SCALE,
        "image_size": 32,
    } | settings
    return ECLIP(
        TinyViT(image_size=32, patch_size=8, width=16, depth=1, heads=2),
        TinyText(vocab_size=30, width=16, depth=1, heads=2),
        **arguments,
    )


def expert_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image_BCHW": torch.randn(4, 3, 32, 32, generator=generator),
        "heatmap_BHW": torch.rand(4, 32, 32, generator=generator),
        "caption_BL": torch.randint(1, 30, (4, 7), generator=generator),
        "phrase_BL": torch.randint(1, 30, (4, 3), generator=generator),
        "mix_B": torch.tensor([0.0, 0.3, 0.6, 1.0]),
    }


def test_forward_returns_the_losses_arguments() -> None:
    net, batch = tiny(), expert_batch()
    out = net(**batch, reconstruct=True)
    assert set(out) == {
        "image_BD", "caption_BD", "scale", "masked_BD", "mixed_BD", "phrase_BD", "reconstructed_BD"
    }  # fmt: skip
    for name in out.keys() - {"scale"}:
        torch.testing.assert_close(out[name].norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(out["image_BD"], net.encode_image(batch["image_BCHW"]))
    torch.testing.assert_close(out["phrase_BD"], net.encode_text(batch["phrase_BL"]))
    torch.testing.assert_close(out["masked_BD"], net.encode_expert(batch["image_BCHW"], batch["heatmap_BHW"]))
    torch.testing.assert_close(
        out["reconstructed_BD"], net.encode_expert(batch["image_BCHW"], torch.ones(4, 32, 32))
    )
    assert set(net(batch["image_BCHW"], batch["caption_BL"])) == {"image_BD", "caption_BD", "scale"}
    assert tiny(bias=-10.0)(batch["image_BCHW"], batch["caption_BL"])["bias"].item() == -10.0


def test_mixing_runs_from_masked_to_plain() -> None:
    out = tiny()(**expert_batch())
    torch.testing.assert_close(out["mixed_BD"][0], out["masked_BD"][0])
    torch.testing.assert_close(out["mixed_BD"][3], out["image_BD"][3])
    row = 0.3 * out["image_BD"][1] + 0.7 * out["masked_BD"][1]
    torch.testing.assert_close(out["mixed_BD"][1], row / (row**2).sum().sqrt())


def test_the_published_bug_is_reproduced() -> None:
    stuck = tiny(logit_scale=SCALE | {"max": 2.0})
    assert stuck.scale().item() == 2.0
    Objective()(**stuck(**expert_batch()))["loss"].backward()
    assert stuck.log_scale.grad.item() == 0.0
    free = tiny()
    assert free.scale().item() == pytest.approx(1 / 0.07)
    Objective()(**free(**expert_batch()))["loss"].backward()
    assert free.log_scale.grad.item() != 0.0


@pytest.mark.parametrize("scale", [{"init": 5, "min": 3, "max": 2}, {"init": 5, "min": 0, "max": 2}])
def test_impossible_scales_are_refused(scale: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"model\.logit_scale: needs 0 < min <= max"):
        tiny(logit_scale=scale)


def test_groups_hold_each_trained_parameter_once() -> None:
    net = tiny(bias=-10.0)
    groups = net.parameter_groups()
    assert {id(p) for p in groups["image"]} == {id(p) for p in net.image.parameters()}
    assert {id(p) for p in groups["text"]} == {id(p) for p in net.text.parameters()}
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids)) == len(list(net.parameters()))
    net.image.requires_grad_(False)
    assert net.parameter_groups()["image"] == []


def test_backbones_are_copied_for_wise_ft() -> None:
    net = tiny()
    backbones = net.backbone_state()
    heads = {"image_head", "text_head", "fusion", "log_scale"}
    assert {key for key in net.state_dict() if key.partition(".")[0] not in heads} == set(backbones)
    before = backbones["text.embed.weight"].clone()
    with torch.no_grad():
        net.text.embed.weight.add_(1)
    assert torch.equal(backbones["text.embed.weight"], before)


def test_plain_clip_has_no_heatmap_processor() -> None:
    net, batch = tiny(experts=False), expert_batch()
    assert len(net.state_dict()) < len(tiny().state_dict())
    with pytest.raises(ValueError, match="experts=False"):
        net(**batch)
    with pytest.raises(ValueError, match="phrase_BL and mix_B together"):
        tiny()(batch["image_BCHW"], batch["caption_BL"], batch["heatmap_BHW"])


def test_embeddings_are_float32_under_autocast() -> None:
    net, batch = tiny(), expert_batch()
    exact = net(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(**batch)
    for name in ("image_BD", "caption_BD", "masked_BD", "mixed_BD", "phrase_BD"):
        assert out[name].dtype == torch.float32
        torch.testing.assert_close(out[name].norm(dim=-1), torch.ones(4))
        assert (out[name] * exact[name]).sum(-1).min() > 0.99


def test_two_layers_have_gelu_and_norm_between() -> None:
    torch.manual_seed(0)
    head, feature = Projection(6, dim=4, layers=2), torch.randn(3, 6)
    hidden = head[0](feature)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (
        hidden.var(1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(head(feature), head[3](hidden))
    with pytest.raises(ValueError, match=r"model\.projection\.layers=3: choose 1 or 2"):
        Projection(6, dim=4, layers=3)
    dropped = Projection(6, dim=1000, dropout=0.4)(feature)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.05)


def test_a_few_steps_learn_the_pairs() -> None:
    net, batch = tiny(), expert_batch()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = Objective(reconstruction_weight=1.0)(**net(**batch, reconstruct=True))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_published_model_has_90_million_parameters() -> None:
    image = TimmImage(pretrained=False)
    text = DistilBertText(pretrained=False)
    net = ECLIP(
        image, text, projection={"dim": 512, "layers": 1, "dropout": 0.0}, logit_scale=SCALE, image_size=224
    ).eval()
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in net.named_children()}
    assert millions["image"] == pytest.approx(21.7, abs=0.05)
    assert millions["text"] == pytest.approx(66.4, abs=0.05)
    assert sum(millions.values()) == pytest.approx(90, abs=1)
    with torch.no_grad():
        out = net(
            torch.randn(2, 3, 224, 224),
            torch.randint(1, 30522, (2, 12)),
            torch.rand(2, 224, 224),
            torch.randint(1, 30522, (2, 5)),
            torch.tensor([0.5, 0.5]),
        )
    assert out["mixed_BD"].shape == (2, 512)
    assert torch.isfinite(out["mixed_BD"]).all()
