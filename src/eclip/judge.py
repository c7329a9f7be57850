"""Embeddings of a sealed fold and its key go in, scores come out; runs on the host, from the host's own checkout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eclip.data.sealed import read_key, unseal
from eclip.metrics import EmbeddingError, retrieval_scores

NAME = re.compile(r"fold(\d+|test)\.(image|text)")


def judge(embeddings: Mapping[str, npt.NDArray[np.float32]], key_path: Path) -> dict[str, float]:
    """The scores of one run on one sealed fold; `mean_rank` is the score of record.

    embeddings: `fold<k>.image` and `fold<k>.text`, (N, D), each in its secret order; nothing else.
    Raises ValueError (EmbeddingError) naming what is wrong: other names, NaN, zero rows, another shape.
    """
    sides: dict[str, npt.NDArray[np.float32]] = {}
    for name, array in embeddings.items():
        match = NAME.fullmatch(name)
        if match is None or match[2] in sides:
            raise EmbeddingError(f"embeddings hold {name!r}: expected one fold<k>.image and one fold<k>.text")
        sides[match[2]] = array
    if len(sides) != 2:
        raise EmbeddingError(f"embeddings hold {sorted(embeddings)}: expected fold<k>.image and fold<k>.text")
    return retrieval_scores(*unseal(sides["image"], sides["text"], read_key(key_path)))
