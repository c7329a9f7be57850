"""Image and text embeddings go in, retrieval ranks and the scores made of them come out.

Mean rank counts from 0 and averages both directions, as in the published experiment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Ranks = npt.NDArray[np.int64]

# Unit vectors stored as float32 carry about this much rounding; what lies closer is a tie. Products are summed in
# float64: in float32 two ways of summing differ by more than that from a width of some 500 on, and constant
# embeddings then beat themselves (all of 16,000 columns: a mean rank of 0).
TIE = 5e-7
RECALL_AT = (1, 5, 10)


class EmbeddingError(ValueError):
    """Embeddings that cannot be scored: NaN, a wrong shape, a row of zeros."""


def retrieval_ranks(
    image_ND: Floats, text_ND: Floats, row_tile: int = 1024, column_tile: int = 4096
) -> tuple[Ranks, Ranks]:
    """Rank of each pair's match among all candidates, 0 = first: (image to text, text to image).

    Row i of both belongs together; lengths do not matter. Ties count against the match, so constant
    embeddings rank last. O(N^2) time, O(N + tile) memory beyond the inputs: no copy of them is made.
    """
    count = len(image_ND)
    threshold_N = np.empty(count)
    for rows in tiles(count, row_tile):
        threshold_N[rows] = np.einsum("nd,nd->n", unit_rows(image_ND[rows]), unit_rows(text_ND[rows])) - TIE
    image_to_text_N = np.zeros(count, np.int64)
    text_to_image_N = np.zeros(count, np.int64)
    for columns in tiles(count, column_tile):
        text_CD = unit_rows(text_ND[columns])
        for rows in tiles(count, row_tile):
            similarity = unit_rows(image_ND[rows]) @ text_CD.T
            _exclude_match(similarity, rows.start, columns.start)
            image_to_text_N[rows] += np.count_nonzero(similarity >= threshold_N[rows, None], axis=1)
            text_to_image_N[columns] += np.count_nonzero(similarity >= threshold_N[None, columns], axis=0)
    return image_to_text_N, text_to_image_N


def tiles(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` that cover `count` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def unit_rows(embedding_ND: Floats) -> npt.NDArray[np.float64]:
    """The rows in float64, scaled to length 1."""
    rows_ND = embedding_ND.astype(np.float64)
    rows_ND /= np.sqrt(np.einsum("nd,nd->n", rows_ND, rows_ND))[:, None]
    return rows_ND


def _exclude_match(similarity: Floats, top: int, left: int) -> None:
    """A pair does not compete with itself: its own similarity becomes -inf within this tile."""
    first, last = max(top, left), min(top + similarity.shape[0], left + similarity.shape[1])
    if first < last:
        match = np.arange(first, last)
        similarity[match - top, match - left] = -np.inf


def retrieval_scores(image_ND: npt.ArrayLike, text_ND: npt.ArrayLike) -> dict[str, float]:
    """Mean rank, median rank and recall at 1, 5, 10 of N pairs of embeddings of any length.

    mean_rank is the mean of both directions; each direction is there under its own name, too.
    Raises EmbeddingError for NaN, infinity, zero rows, or shapes that are not two equal (N, D), N > 1.
    """
    image, text = directions(image_ND, "image"), directions(text_ND, "text")
    if image.shape != text.shape:
        raise EmbeddingError(f"image embeddings {image.shape} and text embeddings {text.shape} must agree")
    scores: dict[str, float] = {}
    both = dict(zip(("image_to_text", "text_to_image"), retrieval_ranks(image, text), strict=True))
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
