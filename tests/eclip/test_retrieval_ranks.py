"""Ranks by tiles in float32 with a bound, in numpy and in torch, against all similarities in float64."""

import numpy as np
import pytest
import torch

from eclip.device_ranks import device_ranks, full_float32, ranks_on
from eclip.metrics import retrieval_scores
from eclip.retrieval_ranks import TIE, error_bound, retrieval_ranks, unit_rows

COUNT, WIDTH = 301, 48


def naive_ranks(image, text):
    """The whole matrix in float64; a rival is at least as near as the match, up to TIE."""
    similarity = unit_rows(image) @ unit_rows(text).T
    match = similarity.diagonal() - TIE
    other = ~np.eye(len(image), dtype=bool)
    return (other & (similarity >= match[:, None])).sum(1), (other & (similarity >= match)).sum(0)


def by_torch(image, text, *tiles):
    return device_ranks(torch.from_numpy(image), torch.from_numpy(text), *tiles)


def pairs_like(kind):
    """(image, text), float32: embeddings of that kind."""
    rng = np.random.default_rng(7)
    image = rng.standard_normal((COUNT, WIDTH), dtype=np.float32)
    text = image + 3 * rng.standard_normal(image.shape, dtype=np.float32)
    if kind == "constant":
        image[:] = text[:] = rng.standard_normal(WIDTH)
    if kind == "constant texts":
        text[:] = text[0]
    if kind == "duplicates":
        image[1::3], text[1::3], text[2::5] = image[0], text[0], text[4]
    if kind == "near ties":  # similarities differ by the tie, and by less than float32 tells apart
        image = np.tile(image[:1], (COUNT, 1))
        image[:, 0] += rng.uniform(0, 0.02, COUNT)
        text = image * (1 + rng.choice([0, 3e-4, 1e-3], image.shape)).astype(np.float32)
    if kind == "narrow cone":  # of an untrained encoder
        image, text = 300 + image, 300 + text
    if kind == "any length":
        image *= 10.0 ** rng.uniform(-18, 18, (COUNT, 1)).astype(np.float32)
    if kind == "perfect":
        text = image.copy()
    if kind == "opposite":
        text = -image
    return image, text


KINDS = (
    "random", "constant", "constant texts", "duplicates", "near ties", "narrow cone", "any length", "perfect",
    "opposite",
)  # fmt: skip


@pytest.mark.parametrize("ranks_of", [retrieval_ranks, by_torch])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tiles", [(), (7, 13), (255, 64)])
def test_ranks_are_those_of_float64(ranks_of, kind, tiles):
    pairs = pairs_like(kind)
    for ours, naive in zip(ranks_of(*pairs, *tiles), naive_ranks(*pairs), strict=True):
        assert np.array_equal(ours, naive)


@pytest.mark.parametrize("ranks_of", [retrieval_ranks, by_torch])
@pytest.mark.parametrize("most", [0, 10**9])
def test_open_comparisons_end_alike_by_a_product_and_one_by_one(ranks_of, most, monkeypatch):
    for name in ("eclip.retrieval_ranks.most_open", "eclip.device_ranks.most_open"):
        monkeypatch.setattr(name, lambda *_: most)
    pairs = pairs_like("near ties")
    assert all(map(np.array_equal, ranks_of(*pairs), naive_ranks(*pairs)))


@pytest.mark.parametrize("ranks_of", [retrieval_ranks, by_torch])
def test_without_the_bound_float32_errs(ranks_of, monkeypatch):
    """What the bound is for: the same code that trusts float32 gives other ranks."""
    for name in ("eclip.retrieval_ranks.error_bound", "eclip.device_ranks.error_bound"):
        monkeypatch.setattr(name, lambda _: 0.0)
    pairs = pairs_like("near ties")
    assert not all(map(np.array_equal, ranks_of(*pairs), naive_ranks(*pairs)))


@pytest.mark.parametrize("width", [1, 7, 128, 1024, 20_000])
def test_no_way_of_summing_exceeds_the_bound(width):
    rng = np.random.default_rng(width)
    rows = [rng.standard_normal((40, width)), rng.pareto(1.0, (40, width)), np.ones((40, width))]
    unit = unit_rows(np.concatenate(rows))
    narrow, exact = unit.astype(np.float32), unit @ unit.T
    one_by_one = np.cumsum(narrow[:, None] * narrow[None, ::7], axis=2, dtype=np.float32)[..., -1]
    assert np.abs(narrow @ narrow.T - exact).max() < error_bound(width)
    assert np.abs(one_by_one - exact[:, ::7]).max() < error_bound(width)
    assert error_bound(width) < 2 * (width + 2) * 2**-24


def test_half_of_the_texts_collapsed_is_counted_against_the_match():
    image = pairs_like("random")[0]
    text = image.copy()
    text[150:] = text[150]
    assert retrieval_ranks(image, text)[0][150] == 150


def test_wide_embeddings_leave_everything_to_float64():
    assert error_bound(2**24) == np.inf


def test_a_tile_has_no_more_rows_than_a_byte_counts():
    with pytest.raises(ValueError, match="row_tile=256: use 1 to 255"):
        retrieval_ranks(*pairs_like("random"), 256)


def test_scores_are_the_same_wherever_ranks_are_found():
    pairs = pairs_like("random")
    assert retrieval_scores(*pairs) == retrieval_scores(*pairs, by_torch)
    assert ranks_on(torch.device("cpu")) is retrieval_ranks


def test_full_float32_is_for_the_ranks_alone():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), full_float32(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
