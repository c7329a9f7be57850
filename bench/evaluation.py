"""Embeddings go in; ranks by the plain recipe (sort everything), and seconds and memory of both ways, come out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bench.memory import peak_growth
from eclip.device_ranks import device_ranks
from eclip.metrics import Array, retrieval_ranks, retrieval_scores

# of each pair: its three limits, two ranks, and a copy of the ranks whose median is sought
BYTES_A_PAIR = 5 * 8
CANDIDATES = 3297  # of a fold of Ukiyo-eVG


def random_pairs(count: int, width: int, seed: int = 0) -> tuple[Array, Array]:
    """Unit vectors (image_ND, text_ND), each text so near its image that of 3,297 some 180 are nearer."""
    rng = np.random.default_rng(seed)
    image_ND = rng.standard_normal((count, width), dtype=np.float32)
    text_ND = image_ND + np.float32(5 * (width / 128) ** 0.5) * rng.standard_normal(
        (count, width), dtype=np.float32
    )
    for side in (image_ND, text_ND):
        side /= np.linalg.norm(side, axis=1, keepdims=True)
    return image_ND, text_ND


def argsort_ranks(image_ND: Array, text_ND: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ranks as published code finds them: the whole matrix, sorted, searched for each pair's own place."""
    similarity_NN = image_ND @ text_ND.T
    return _places(similarity_NN), _places(similarity_NN.T)


def _places(similarity_NN: Array) -> npt.NDArray[np.int64]:
    order_NN = np.argsort(-similarity_NN, axis=1)
    return np.array([int(np.flatnonzero(order_NN[row] == row)[0]) for row in range(len(order_NN))])


def evaluation_seconds(width: int, repeats: int) -> tuple[list[float], list[float]]:
    """Of `repeats` turns: (retrieval_scores, argsort) for one fold's candidates."""
    pairs = random_pairs(CANDIDATES, width)
    ours, sorted_ = [], []
    for _ in range(repeats):
        ours.append(_seconds(lambda: retrieval_scores(*pairs)))
        sorted_.append(_seconds(lambda: argsort_ranks(*pairs)))
    return ours, sorted_


def device_seconds(width: int, repeats: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Of `repeats` turns after one for warm-up: (device_ranks, retrieval_ranks) for one fold's candidates."""
    pairs = random_pairs(CANDIDATES, width)
    image_ND, text_ND = (torch.from_numpy(side).to(device) for side in pairs)
    ours, host = [], []
    for _ in range(1 + repeats):
        ours.append(
            _seconds(lambda: device_ranks(image_ND, text_ND))
        )  # its ranks come back to the host: it has waited
        host.append(_seconds(lambda: retrieval_ranks(*pairs)))
    return ours[1:], host[1:]


def device_pairs(count: int, width: int, device: torch.device) -> tuple[float, int]:
    """(seconds, bytes beyond the inputs) of ranking so many random pairs that lie on the device."""
    image_ND, text_ND = (torch.randn(count, width, device=device) for _ in range(2))
    text_ND += image_ND
    with peak_growth(device.type) as growth:
        seconds = _seconds(lambda: device_ranks(image_ND, text_ND))
    return seconds, growth.bytes


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Scaling:
    """Measured at `counts` pairs: seconds, and bytes beyond the inputs; both extrapolated to a million."""

    counts: tuple[int, ...]
    seconds: tuple[float, ...]
    beyond_bytes: tuple[int, ...]

    @property
    def million_seconds(self) -> float:
        """Time grows with the square of the pairs."""
        return self.seconds[-1] * (1e6 / self.counts[-1]) ** 2

    @property
    def million_bytes(self) -> float:
        """A tile's, as measured, and what each pair has of its own."""
        return max(self.beyond_bytes) + BYTES_A_PAIR * 1e6


def scaling(counts: tuple[int, ...], width: int = 512) -> Scaling:
    """Runs retrieval_scores at growing numbers of pairs."""
    seconds, beyond = [], []
    retrieval_scores(*random_pairs(min(counts), width))  # buffers of the linear algebra are made once
    for count in counts:
        pairs = random_pairs(count, width)
        with peak_growth() as growth:
            seconds.append(_seconds(lambda: retrieval_scores(*pairs)))  # noqa: B023 (called at once)
        beyond.append(growth.bytes)
    return Scaling(counts, tuple(seconds), tuple(beyond))


def agree(width: int = 32, count: int = 200) -> bool:
    """Whether both ways give the same ranks on random pairs, where no two candidates tie."""
    pairs = random_pairs(count, width)
    return all(map(np.array_equal, retrieval_ranks(*pairs), argsort_ranks(*pairs)))
