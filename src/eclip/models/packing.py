"""Sequences without their padding: tokens [B, L, F] in, the valid ones as rows [T, F] out, and back.

Captions of one batch differ in length: of the embedded data's tokens 40 % are padding. All of a transformer
but its attention treats tokens one by one and need not see them: measured on a CPU with the default model, a
fifth of a training step less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the T valid tokens stand among B * L places."""

    place_T: Tensor
    rows: int
    length: int

    @classmethod
    def of(cls, valid_BL: Tensor) -> Packing | None:
        """None (keep the padding) where changing shapes cost more than they save: on a GPU, under
        torch.compile, and in bf16 on a CPU, whose kernels are prepared anew for each shape."""
        on_cpu = valid_BL.device.type == "cpu"
        if not on_cpu or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return None
        return cls(valid_BL.flatten().nonzero()[:, 0], *valid_BL.shape)

    def pack(self, token_BLF: Tensor) -> Tensor:
        """[B, L, F] -> [T, F]."""
        return token_BLF.flatten(0, 1).index_select(0, self.place_T)

    def unpack(self, token_TF: Tensor) -> Tensor:
        """[T, F] -> [B, L, F], zero at padding."""
        places = token_TF.new_zeros(self.rows * self.length, token_TF.shape[1])
        return places.index_copy(0, self.place_T, token_TF).view(self.rows, self.length, -1)
