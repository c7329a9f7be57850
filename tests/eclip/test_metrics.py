"""Scores from ranks that were counted one by one, and what must never score well."""

import numpy as np
import pytest

from eclip.metrics import EmbeddingError, retrieval_scores
from eclip.retrieval_ranks import unit_rows


def naive_ranks(image, text):
    """One row at a time, in float64, by counting the other candidates that are at least as near."""
    image_to_text = [
        sum(image[i] @ text[j] >= image[i] @ text[i] for j in range(len(text)) if j != i)
        for i in range(len(image))
    ]
    text_to_image = [
        sum(image[j] @ text[i] >= image[i] @ text[i] for j in range(len(text)) if j != i)
        for i in range(len(text))
    ]
    return image_to_text, text_to_image


@pytest.fixture
def pairs():
    rng = np.random.default_rng(3)
    image = rng.normal(size=(61, 16))
    return unit_rows(image), unit_rows(image + rng.normal(size=image.shape))


def test_perfect_pairs_rank_first_and_published_mean_counts_from_zero(pairs):
    scores = retrieval_scores(pairs[0], pairs[0])
    assert scores["mean_rank"] == 0
    assert scores["recall_at_1"] == 1


def test_scores_average_both_directions(pairs):
    scores = retrieval_scores(*pairs)
    image_to_text, text_to_image = naive_ranks(*pairs)
    assert scores["mean_rank"] == pytest.approx((np.mean(image_to_text) + np.mean(text_to_image)) / 2)
    assert scores["median_rank_image_to_text"] == np.median(image_to_text)
    assert scores["recall_at_5_text_to_image"] == pytest.approx(np.mean([rank < 5 for rank in text_to_image]))
    assert 0 < scores["mean_rank"] < 30


@pytest.mark.parametrize("row", [lambda rng, width: rng.normal(size=width), lambda _, width: np.ones(width)])
@pytest.mark.parametrize("width", [1, 3, 128, 511, 512, 4096, 16_000])
def test_constant_embeddings_rank_last_whatever_the_width(width, row):
    # summed in float32, 512 ones ranked 188 of 2,000 and 16,000 of them first
    constant = np.tile(row(np.random.default_rng(width), width), (733, 1))
    assert retrieval_scores(constant, constant)["mean_rank"] == 732


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (np.full((4, 2), np.nan), np.ones((4, 2)), "NaN"),
        (np.ones((4, 2)), np.zeros((4, 2)), "no direction"),
        (np.ones((4, 2)), np.ones((5, 2)), "must agree"),
        (np.ones(4), np.ones(4), "shape"),
        (np.ones((1, 4)), np.ones((1, 4)), "shape"),
    ],
)
def test_what_cannot_be_scored_is_an_error(image, text, message):
    with pytest.raises(EmbeddingError, match=message):
        retrieval_scores(image, text)
