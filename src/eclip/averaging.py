"""Averages of weights: a model's over training (EMA), or of tuned and pretrained ones (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Moving average of a model's trained parameters, updated in place after each optimizer step.

    average <- d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)) at update n: this
    warm-up lets short runs forget their initial weights. Buffers are left alone: the models here train none.
    Where the model has moved to another device since, its averages follow.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f"model.ema_decay={decay}: must lie between 0 and 1 (0 turns it off: build none)"
            )
        self.decay = decay
        self.updates = 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        self._follow()
        torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the model has the averaged weights; afterwards its own, to the last bit."""
        own = [parameter.detach().clone() for parameter in self.parameters.values()]
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(self.parameters.values()), own)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the averaged weights for good."""
        self._follow()
        torch._foreach_copy_(list(self.parameters.values()), list(self.averages.values()))

    def _follow(self) -> None:
        name, parameter = next(iter(self.parameters.items()))
        if self.averages[name].device != parameter.device:
            self.averages = {name: average.to(parameter.device) for name, average in self.averages.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {"updates": self.updates, "averages": self.averages}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; KeyError where its parameters are others than the model's."""
        if set(state["averages"]) != set(self.averages):
            different = sorted(set(state["averages"]) ^ set(self.averages))
            raise KeyError(f"the averaged weights belong to another model: {', '.join(different[:5])} …")
        self.updates = state["updates"]
        for name, average in self.averages.items():
            average.copy_(state["averages"][name])


def wise_ft(
    pretrained_state: Mapping[str, Tensor], tuned_state: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 - alpha) * tuned + alpha * pretrained for all keys of `pretrained_state`, which holds the backbones;
    the tuned values of the others. Source: WiSE-FT, arXiv 2109.01903 (whose alpha is 1 - ours).

    KeyError or ValueError where a pretrained weight has no tuned one of the same shape.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"model.wise_ft={alpha}: must lie in [0, 1]")
    mixed = dict(tuned_state)
    for key, pretrained in pretrained_state.items():
        if key not in tuned_state:
            raise KeyError(f"the tuned model has no weight {key}")
        tuned = tuned_state[key]
        if tuned.shape != pretrained.shape:
            raise ValueError(f"{key}: tuned {tuple(tuned.shape)}, pretrained {tuple(pretrained.shape)}")
        if tuned.is_floating_point():
            mixed[key] = torch.lerp(tuned, pretrained.to(tuned), alpha)
    return mixed
