"""Image and text embeddings go in, the rank of each pair's match among all candidates comes out, both directions.

The ranks are those of similarities summed in float64. Nearly all comparisons are decided by a product in float32
and a bound on its error; those that it leaves open are made in float64. `device_ranks` does the same with torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
RanksOf = Callable[[Floats, Floats], tuple[Ranks, Ranks]]

# Unit vectors stored as float32 carry about this much rounding; what lies closer is a tie. Summed in float32 alone,
# two ways of summing differ by more than that from a width of some 500 on, and constant embeddings then beat
# themselves (all of 16,000 columns: a mean rank of 0).
TIE = 5e-7
ROWS, COLUMNS = 240, 4096  # of a tile
BYTE = 255  # rows whose set bits a byte can count
# Where more of a tile is open, one product in float64 decides it sooner, or in less memory than gathered rows take
OPEN_SHARE = 1 / 64
OPEN_NUMBERS = 2**22


def error_bound(width: int) -> float:
    """The most by which a dot product of two unit vectors misses the float64 one when both are rounded to float32
    and it is summed in float32, in any order: gamma(width + 2) of Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1, and a thousandth for float64's own rounding and for numbers that underflow."""
    steps = (width + 2) * 2.0**-24
    return 1.001 * steps / (1 - steps) + 1e-12 if steps < 0.5 else np.inf


def most_open(size: int, width: int) -> float:
    """How many comparisons of a tile of `size` may be open for each to be made on its own."""
    return min(OPEN_SHARE * size, OPEN_NUMBERS / width)


def retrieval_ranks(
    image_ND: Floats, text_ND: Floats, row_tile: int = ROWS, column_tile: int = COLUMNS
) -> tuple[Ranks, Ranks]:
    """Rank of each pair's match among all candidates, 0 = first: (image to text, text to image).

    Row i of both belongs together; lengths do not matter. Ties count against the match, so constant
    embeddings rank last. O(N^2) time, O(N + tile) memory beyond the inputs: no copy of them is made.
    `row_tile` is at most 255: ValueError.
    """
    if not 0 < row_tile <= BYTE:
        raise ValueError(f"row_tile={row_tile}: use 1 to {BYTE}")
    count, width = image_ND.shape
    to_text_N, to_image_N = np.zeros(count, np.int64), np.zeros(count, np.int64)
    limits = Limits.of(_match_similarity(image_ND, text_ND) - TIE, error_bound(width))
    for columns in tiles(count, column_tile):
        text_CD = unit_rows(text_ND[columns])
        narrow_CD = text_CD.astype(np.float32)
        for rows in tiles(count, row_tile):
            image_RD = unit_rows(image_ND[rows])
            tile = Tile(image_RD, text_CD, image_RD.astype(np.float32) @ narrow_CD.T)
            tile.exclude_match(rows.start, columns.start)
            to_text_N[rows] += tile.rivals(limits.at(rows), axis=1)
            to_image_N[columns] += tile.rivals(limits.at(columns), axis=0)
    return to_text_N, to_image_N


def tiles(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` that cover `count` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def unit_rows(embedding_ND: Floats) -> Doubles:
    """The rows in float64, scaled to length 1."""
    rows_ND = embedding_ND.astype(np.float64)
    rows_ND /= np.sqrt(np.vecdot(rows_ND, rows_ND))[:, None]
    return rows_ND


def _match_similarity(image_ND: Floats, text_ND: Floats) -> Doubles:
    rows_of = tiles(len(image_ND), COLUMNS)
    return np.concatenate([np.vecdot(unit_rows(image_ND[r]), unit_rows(text_ND[r])) for r in rows_of])


@dataclass(frozen=True)
class Limits:
    """Who beats a match: what reaches `exact_N` in float64; hence all that reaches `sure_N` in float32, and none
    that stays below `open_N` there."""

    exact_N: Doubles
    sure_N: Singles
    open_N: Singles

    @classmethod
    def of(cls, exact_N: Doubles, bound: float) -> Limits:
        sure_N, open_N = (exact_N + bound).astype(np.float32), (exact_N - bound).astype(np.float32)
        # one step further, so that rounding to float32 errs towards what is open
        return cls(
            exact_N, np.nextafter(sure_N, np.float32(np.inf)), np.nextafter(open_N, np.float32(-np.inf))
        )

    def at(self, own: slice) -> Limits:
        return Limits(self.exact_N[own], self.sure_N[own], self.open_N[own])


@dataclass(frozen=True)
class Tile:
    """Similarities of some images (rows) and some texts (columns), in float32."""

    image_RD: Doubles
    text_CD: Doubles
    similarity_RC: Singles

    def exclude_match(self, top: int, left: int) -> None:
        """A pair does not compete with itself: where row and column have one number, nothing is similar."""
        first, last = max(top, left), min(top + len(self.image_RD), left + len(self.text_CD))
        match = np.arange(first, last)
        self.similarity_RC[match - top, match - left] = -np.inf

    def rivals(self, limits: Limits, axis: int) -> Ranks:
        """How many beat the match of each row (axis 1: texts) or of each column (axis 0: images)."""
        beats_RC = self.similarity_RC >= np.expand_dims(limits.sure_N, axis)
        open_RC = self.similarity_RC >= np.expand_dims(limits.open_N, axis)
        open_RC ^= beats_RC
        counts = _set_bits(beats_RC, axis)
        undecided = np.flatnonzero(open_RC)
        if len(undecided) > most_open(open_RC.size, self.image_RD.shape[1]):
            open_RC &= self.image_RD @ self.text_CD.T >= np.expand_dims(limits.exact_N, axis)
            counts += _set_bits(open_RC, axis)
        elif len(undecided):
            pair = np.divmod(undecided, open_RC.shape[1])
            similarity_U = np.vecdot(self.image_RD[pair[0]], self.text_CD[pair[1]])
            place_U = pair[1 - axis]
            beaten_U = place_U[similarity_U >= limits.exact_N[place_U]]
            counts += np.bincount(beaten_U, minlength=len(counts))
        return counts


def _set_bits(bits_RC: Bits, axis: int) -> Ranks:
    """Of each row (axis 1) or column (axis 0); both many times faster than a sum, which widens each bit first."""
    if axis == 1:
        return np.array([np.count_nonzero(row) for row in bits_RC])
    return np.add.reduce(bits_RC.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)
