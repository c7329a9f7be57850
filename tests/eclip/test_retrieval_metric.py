"""The distributed metric: two processes, each with its share and some padding, agree with one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from eclip.data.candidates import _rows
from eclip.metrics import retrieval_scores
from eclip.retrieval_metric import RetrievalMetric

COUNT, SIZE = 21, 4


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image_ND = torch.randn(COUNT, 6, generator=generator)
    return image_ND, image_ND + torch.randn(COUNT, 6, generator=generator)


def filled(rank: int, world_size: int) -> RetrievalMetric:
    metric = RetrievalMetric()
    for kind, side_ND in zip(("image", "text"), embeddings(), strict=True):
        for row_B in map(torch.from_numpy, _rows(COUNT, SIZE, rank, world_size)):
            metric.update(kind, row_B, side_ND[row_B])
    return metric


def rank_of_two(rank: int, folder: str) -> None:
    """One of two processes: its scores, and the gathered embeddings, go to a file."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    metric = filled(rank, 2)
    scores = metric.compute()
    with metric.sync_context():
        image_ND, text_ND = metric.ordered()
    torch.save((scores, image_ND, text_ND), Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(rank_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def test_one_process_is_the_plain_function():
    image_ND, text_ND = embeddings()
    assert filled(0, 1).compute() == retrieval_scores(image_ND.numpy(), text_ND.numpy())


@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_two_processes_has_the_scores_of_one(two, rank):
    scores, image_ND, text_ND = two[rank]
    assert scores == filled(0, 1).compute()
    for gathered, whole in zip((image_ND, text_ND), embeddings(), strict=True):
        assert np.array_equal(gathered, whole.numpy())


def test_one_process_alone_would_have_missed_half():
    with pytest.raises(ValueError, match="without gaps"):
        filled(0, 2).compute()


def test_the_order_of_arrival_does_not_matter():
    image_ND, text_ND = embeddings()
    metric, order = RetrievalMetric(), torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    metric.update("text", order.flip(0), text_ND[order.flip(0)])
    metric.update("image", order, image_ND[order])
    assert metric.compute() == filled(0, 1).compute()
