"""Image and text embeddings go in, retrieval ranks and the scores made of them come out.

Mean rank counts from 0 and averages both directions, as in the published experiment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eclip.retrieval_ranks import RanksOf, retrieval_ranks, tiles

Array = npt.NDArray[np.float32]
RECALL_AT = (1, 5, 10)


class EmbeddingError(ValueError):
    """Embeddings that cannot be scored: NaN, a wrong shape, a row of zeros."""


def retrieval_scores(
    image_ND: npt.ArrayLike, text_ND: npt.ArrayLike, ranks_of: RanksOf = retrieval_ranks
) -> dict[str, float]:
    """Mean rank, median rank and recall at 1, 5, 10 of N pairs of embeddings of any length.

    mean_rank is the mean of both directions; each direction is there under its own name, too. `ranks_of` may
    find the same ranks elsewhere (`device_ranks.ranks_on`).
    Raises EmbeddingError for NaN, infinity, zero rows, or shapes that are not two equal (N, D), N > 1.
    """
    image, text = directions(image_ND, "image"), directions(text_ND, "text")
    if image.shape != text.shape:
        raise EmbeddingError(f"image embeddings {image.shape} and text embeddings {text.shape} must agree")
    scores: dict[str, float] = {}
    both = dict(zip(("image_to_text", "text_to_image"), ranks_of(image, text), strict=True))
    for direction, ranks in both.items():
        scores[f"mean_rank_{direction}"] = float(ranks.mean())
        scores[f"median_rank_{direction}"] = float(np.median(ranks))
        for k in RECALL_AT:
            scores[f"recall_at_{k}_{direction}"] = float(np.mean(ranks < k))
    for name in ("mean_rank", "median_rank", *(f"recall_at_{k}" for k in RECALL_AT)):
        scores[name] = (scores[f"{name}_image_to_text"] + scores[f"{name}_text_to_image"]) / 2
    scores["candidates"] = float(len(image))
    return scores


def directions(embedding_ND: npt.ArrayLike, name: str) -> Array:
    """The same rows, float32. Raises EmbeddingError for what has no direction."""
    array = np.asarray(embedding_ND, dtype=np.float32)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise EmbeddingError(f"{name} embeddings have shape {array.shape}, expected (N > 1, D)")
    for rows in tiles(len(array), 4096):
        if not np.isfinite(array[rows]).all():
            row = rows.start + int(np.flatnonzero(~np.isfinite(array[rows]).all(axis=1))[0])
            raise EmbeddingError(f"{name} embedding {row} holds NaN or infinity")
        length = np.linalg.norm(array[rows], axis=1)
        if not (length > 0).all() or not np.isfinite(length).all():
            row = int(np.flatnonzero(~((length > 0) & np.isfinite(length)))[0])
            raise EmbeddingError(
                f"{name} embedding {rows.start + row} has no direction: its length is {length[row]:g}"
            )
    return array
