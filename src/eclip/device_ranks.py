"""`retrieval_ranks` on a device of torch: embeddings go in, the same ranks come out, found there.

A matrix of similarities in float32 is looked at twice, against what surely beats a match and what may; the few
pairs in between are decided in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from eclip.retrieval_ranks import TIE, Floats, Ranks, RanksOf, error_bound, most_open, retrieval_ranks, tiles

ROWS, COLUMNS = 4096, 4096  # of a tile: a fold's candidates are one, and its 240 MiB bound the memory


def device_ranks(
    image_ND: Tensor, text_ND: Tensor, row_tile: int = ROWS, column_tile: int = COLUMNS
) -> tuple[Ranks, Ranks]:
    """As `retrieval_ranks.retrieval_ranks`, whose tests it shares, for tensors on any one device."""
    count, width = image_ND.shape
    to_text_N, to_image_N = (image_ND.new_zeros(count, dtype=torch.int64) for _ in range(2))
    exact_N = torch.cat([_dot(unit_rows(image_ND[r]), unit_rows(text_ND[r])) for r in tiles(count, row_tile)])
    exact_N -= TIE
    bound = error_bound(width)
    with full_float32(image_ND.device):
        for columns in tiles(count, column_tile):
            text_CD = unit_rows(text_ND[columns])
            narrow_DC = text_CD.float().T
            for rows in tiles(count, row_tile):
                image_RD = unit_rows(image_ND[rows])
                similarity_RC = image_RD.float() @ narrow_DC
                _exclude_match(similarity_RC, rows.start, columns.start)
                pair = (image_RD, text_CD, similarity_RC)
                to_text_N[rows] += _rivals(*pair, exact_N[rows], bound, axis=1)
                to_image_N[columns] += _rivals(*pair, exact_N[columns], bound, axis=0)
    return to_text_N.cpu().numpy(), to_image_N.cpu().numpy()


def ranks_on(device: torch.device) -> RanksOf:
    """The function that finds ranks where the embeddings were made: on an accelerator there, else on the host."""
    if device.type == "cpu":
        return retrieval_ranks

    def ranks(image_ND: Floats, text_ND: Floats) -> tuple[Ranks, Ranks]:
        return device_ranks(torch.from_numpy(image_ND).to(device), torch.from_numpy(text_ND).to(device))

    return ranks


def unit_rows(embedding_ND: Tensor) -> Tensor:
    """The rows in float64, scaled to length 1."""
    rows_ND = embedding_ND.double()
    return rows_ND / _dot(rows_ND, rows_ND).sqrt()[:, None]


def _dot(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    return (first_ND * second_ND).sum(1)


def _exclude_match(similarity_RC: Tensor, top: int, left: int) -> None:
    rows, columns = similarity_RC.shape
    first, last = max(top, left), min(top + rows, left + columns)
    if first < last:
        similarity_RC[first - top : last - top, first - left : last - left].fill_diagonal_(-torch.inf)


def _rivals(
    image_RD: Tensor, text_CD: Tensor, similarity_RC: Tensor, exact_N: Tensor, bound: float, axis: int
) -> Tensor:
    """How many beat the match of each row (axis 1: texts) or of each column (axis 0: images)."""
    above, below = (torch.full((), sign * torch.inf, device=exact_N.device) for sign in (1, -1))
    sure_N = torch.nextafter((exact_N + bound).float(), above)
    open_N = torch.nextafter((exact_N - bound).float(), below)
    beats_RC = similarity_RC >= sure_N.unsqueeze(axis)
    open_RC = (similarity_RC >= open_N.unsqueeze(axis)) ^ beats_RC
    counts = beats_RC.sum(axis)
    undecided_U2 = open_RC.nonzero()
    if len(undecided_U2) > most_open(open_RC.numel(), image_RD.shape[1]):
        exact_RC = image_RD @ text_CD.T
        return counts + (open_RC & (exact_RC >= exact_N.unsqueeze(axis))).sum(axis)
    row_U, column_U = undecided_U2.unbind(1)
    place_U = (row_U, column_U)[1 - axis]
    beaten_U = _dot(image_RD[row_U], text_CD[column_U]) >= exact_N[place_U]
    return counts.index_add(0, place_U, beaten_U.long())


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Inside, float32 products keep all of float32's bits: no TF32, no bf16 passes, no autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
