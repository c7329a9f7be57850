"""The judge on embeddings that know the pairs, that know nothing, and that are none."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from eclip.judge import judge

COUNT = 12


@pytest.fixture
def orders():
    rng = np.random.default_rng(5)
    return rng.permutation(COUNT), rng.permutation(COUNT)


@pytest.fixture
def key(orders, tmp_path):
    path = tmp_path / "key.safetensors"
    save_file({"image_order": orders[0], "text_order": orders[1]}, path)
    return path


@pytest.fixture
def perfect(orders):
    """Row i of a side is candidate order[i]; a candidate's image and text are the same vector."""
    vector_ND = np.random.default_rng(6).normal(size=(COUNT, 8)).astype(np.float32)
    return {"fold0.image": vector_ND[orders[0]], "fold0.text": vector_ND[orders[1]]}


def test_pairs_that_belong_together_score_zero(perfect, key):
    scores = judge(perfect, key)
    assert scores["mean_rank"] == 0
    assert scores["recall_at_1"] == 1
    assert scores["candidates"] == COUNT


def test_lengths_and_number_formats_do_not_matter(perfect, key):
    long = {name: (array * 1e4).astype(np.float16) for name, array in perfect.items()}
    assert judge(long, key)["mean_rank"] == 0


def test_sides_under_each_others_name_do_not_score(perfect, key):
    swapped = {"fold0.image": perfect["fold0.text"], "fold0.text": perfect["fold0.image"]}
    assert judge(swapped, key)["mean_rank"] > 1


def test_the_wrong_key_does_not_score(perfect, orders, tmp_path):
    save_file({"image_order": orders[0], "text_order": np.roll(orders[1], 1)}, tmp_path / "other")
    assert judge(perfect, tmp_path / "other")["mean_rank"] > 1


def test_constants_rank_last(perfect, key):
    assert (
        judge({name: np.ones_like(array) for name, array in perfect.items()}, key)["mean_rank"] == COUNT - 1
    )


def test_one_pair_moved_moves_the_score(perfect, key):
    perfect["fold0.image"][[0, 1]] = perfect["fold0.image"][[1, 0]]
    assert 0 < judge(perfect, key)["mean_rank"] < COUNT / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"fold0.image": e["fold0.image"]}, r"expected fold<k>.image and fold<k>.text"),
        (lambda e: {}, "expected fold<k>.image"),
        (lambda e: {**e, "score": e["fold0.image"]}, "hold 'score'"),
        (lambda e: {**e, "fold1.image": e["fold0.image"]}, "hold 'fold1.image'"),
        (lambda e: {**e, "foldx.image": e["fold0.image"]}, "hold 'foldx.image'"),
        (lambda e: {name: array[:-1] for name, array in e.items()}, "expected 12 rows"),
        (lambda e: {name: array[0] for name, array in e.items()}, "expected 12 rows"),
        (lambda e: {**e, "fold0.text": e["fold0.text"][:, :4]}, "must agree"),
        (lambda e: {**e, "fold0.text": e["fold0.text"] * np.nan}, "NaN"),
        (lambda e: {**e, "fold0.text": e["fold0.text"] * 0}, "no direction"),
    ],
)
def test_what_cannot_be_judged_is_named(perfect, key, change, message):
    with pytest.raises(ValueError, match=message):
        judge(change(perfect), key)
