"""Weight averages against the recurrence written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from eclip.averaging import EMA, wise_ft


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def step(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_ema_follows_its_recurrence_through_the_warm_up() -> None:
    net = model()
    ema = EMA(net, decay=0.3)
    expected = net[0].weight.detach().clone()
    for n in range(8):
        step(net, n)
        ema.update()
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * net[0].weight.detach()
    torch.testing.assert_close(ema.averages["0.weight"], expected)
    assert min(0.3, 8 / 17) == 0.3  # the loop has passed the warm-up


def test_ema_is_applied_and_taken_back_exactly() -> None:
    net = model()
    ema = EMA(net, decay=0.9)
    step(net, 0)
    ema.update()
    own = copy.deepcopy(net.state_dict())
    with ema.applied():
        assert torch.equal(net[0].weight, ema.averages["0.weight"])
        assert not torch.equal(net[0].weight, own["0.weight"])
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        raise RuntimeError("inside")
    assert torch.equal(net[1].bias, own["1.bias"])


def test_ema_resumes_where_it_was() -> None:
    straight, resumed = model(), model()
    first = EMA(straight, 0.9)
    for n in range(4):
        step(straight, n)
        first.update()
        if n == 1:
            state = copy.deepcopy(first.state_dict())
            weights = copy.deepcopy(straight.state_dict())
    resumed.load_state_dict(weights)
    second = EMA(resumed, 0.9)
    second.load_state_dict(state)
    for n in (2, 3):
        step(resumed, n)
        second.update()
    assert all(torch.equal(first.averages[name], second.averages[name]) for name in first.averages)
    with pytest.raises(KeyError, match="another model"):
        EMA(nn.Linear(2, 2), 0.9).load_state_dict(state)


def test_ema_leaves_frozen_weights_alone() -> None:
    net = model()
    net[0].requires_grad_(False)
    assert set(EMA(net, 0.9).averages) == {"1.weight", "1.bias"}


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_ema_refuses_impossible_decays(decay: float) -> None:
    with pytest.raises(ValueError, match=r"model\.ema_decay"):
        EMA(model(), decay)


def test_wise_ft_mixes_backbones_only() -> None:
    pretrained = {"image.w": torch.tensor([1.0, 2.0]), "image.count": torch.tensor(3)}
    tuned = {"image.w": torch.tensor([3.0, 6.0]), "image.count": torch.tensor(5), "head.w": torch.ones(2)}
    mixed = wise_ft(pretrained, tuned, 0.25)
    torch.testing.assert_close(mixed["image.w"], torch.tensor([2.5, 5.0]))
    assert mixed["image.count"] == 5
    assert mixed["head.w"] is tuned["head.w"]
    assert torch.equal(wise_ft(pretrained, tuned, 0.0)["image.w"], tuned["image.w"])
    assert torch.equal(wise_ft(pretrained, tuned, 1.0)["image.w"], pretrained["image.w"])


def test_wise_ft_refuses_states_that_do_not_fit() -> None:
    with pytest.raises(KeyError, match=r"image\.w"):
        wise_ft({"image.w": torch.ones(2)}, {}, 0.5)
    with pytest.raises(ValueError, match=r"image\.w: tuned \(3,\), pretrained \(2,\)"):
        wise_ft({"image.w": torch.ones(2)}, {"image.w": torch.ones(3)}, 0.5)
    with pytest.raises(ValueError, match=r"model\.wise_ft=1\.5"):
        wise_ft({}, {}, 1.5)
