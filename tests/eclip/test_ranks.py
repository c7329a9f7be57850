"""Two processes over gloo against one with the same global batch: losses, gradients, weights, embeddings, scores."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eclip import lean_lightning  # noqa: F401  # isort: skip

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from eclip.data.batch import Share
from eclip.ranks import ALONE, Ranks, _pieces
from tests.eclip.conftest import train_in

# name -> what differs from SMALL; every kind of randomness and every piece of state that ranks must share
VARIANTS = {
    "published": "expert.probability.max=0.5 optimizer.lr=0.003",
    "accumulate": "trainer.accumulate=2 expert.probability.max=1 expert.reconstruction.weight=1",
    "augment": "augment.crop_scale=0.5 augment.color_jitter=0.4 expert.probability.max=1 expert.mixup_alpha=2",
    "hard": "loss.hard_negative=0.5 loss.label_smoothing=0.1 optimizer.gradient_clip=0.01 model.ema_decay=0.9",
    "siglip": "loss=siglip expert.fusion=attention_bias expert.probability.max=0.5",
    "frozen": "model.image.frozen=true optimizer.factors.text=0 expert.fusion=weighted_pooling",
    "clamped": "model.logit_scale.max=2 data.folds=[0,1]",
    "final": "final=true trainer.max_steps=3",
}
DDP = "trainer=ddp trainer.accelerator=cpu trainer.devices=2 trainer.timeout=60".split()
Seen = dict[str, Any]


class Watch(L.Callback):
    """Gradients before every optimizer step, as they are after the sum over ranks and the clipping; the weights."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.batches: list[dict[str, Tensor]] = []
        self.weights: dict[str, Tensor] = {}
        self.times: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, _):
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = [(name, p) for name, p in module.model.named_parameters() if id(p) in trained]
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer, module, *_):
        self.times.append(module.clock.elapsed())

    def on_train_end(self, trainer, module):
        self.weights = {name: value.clone() for name, value in module.model.state_dict().items()}


def seen(prints: Path, folder: Path, *overrides: str) -> Seen:
    watch = Watch()
    result = train_in(prints, folder, *overrides, callbacks=[watch])
    kept = ("gradients", "batches", "weights", "times")  # Lightning adds attributes of its own
    return {"result": result, **{name: getattr(watch, name) for name in kept}}


class Trouble(L.Callback):
    """What the second rank meets after step 3: no memory, or a wait that is longer than the others' patience."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == 3:
            if self.kind == "memory":
                raise MemoryError("no room on this rank")
            time.sleep(3)


class Poison(L.Callback):
    """A weight becomes NaN on all ranks after step 2, as an overflow would make it."""

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == 2:
            torch.nn.init.constant_(module.model.log_scale, math.nan)


def ended(prints: Path, folder: Path, callback: L.Callback, *overrides: str) -> dict[str, Any]:
    """`result.json` of a run that must fail."""
    with pytest.raises(SystemExit):
        train_in(prints, folder, *DDP, *overrides, callbacks=[callback])
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else {}


@contextmanager
def met_by_torchrun(rank: int, port: int) -> Iterator[None]:
    """The environment that torchrun gives its processes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    yield


def rank_of_two(rank: int, port: int, prints: Path, out: Path) -> None:
    """One of two processes: goes through all variants, and what it saw goes to a file."""
    with met_by_torchrun(rank, port):
        found = {
            name: seen(prints, out / name, *DDP, *overrides.split()) for name, overrides in VARIANTS.items()
        }
        found["budget"] = seen(prints, out / "budget", *DDP, "budget.seconds=0.4", "trainer.max_steps=100000")
        found["memory"] = {"result": ended(prints, out / "memory", Trouble("memory"))}
        found["wait"] = {"result": ended(prints, out / "wait", Trouble("wait"), "trainer.timeout=1")}
        found["diverged"] = {"result": ended(prints, out / "diverged", Poison(), "trainer.max_steps=50")}
        torch.save(found, out / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(prints: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Seen]]:
    out = tmp_path_factory.mktemp("ranks")
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(rank_of_two, (store.port, prints, out), nprocs=2)
    return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(prints: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    out = tmp_path_factory.mktemp("one")
    return {name: seen(prints, out / name, *VARIANTS[name].split()) for name in VARIANTS}


def near(got: Tensor, expected: Tensor, name: str) -> None:
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_gradient_of_every_step_is_that_of_one_process(two, one, name, rank):
    got, expected = two[rank][name]["gradients"], one[name]["gradients"]
    assert len(got) == len(expected) > 2
    for step, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        assert ours.keys() == theirs.keys()  # a step without experts leaves the same ones without
        for parameter in theirs:
            near(ours[parameter], theirs[parameter], f"step {step}, {parameter}")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_curve_is_that_of_one_process(two, one, name):
    got, expected = (side["result"]["curve"] for side in (two[0][name], one[name]))
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert {k: v for k, v in ours.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in theirs.items() if k != "seconds"}, rel=2e-5
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_after_all_steps_the_weights_are_equal_on_both_ranks_and_those_of_one_process(two, one, name):
    for parameter, weight in one[name]["weights"].items():
        assert torch.equal(two[0][name]["weights"][parameter], two[1][name]["weights"][parameter])
        # Adam divides by the gradient's own size: a sum in another order counts most where it is near zero
        torch.testing.assert_close(two[0][name]["weights"][parameter], weight, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_score_is_that_of_one_process_to_the_last_digit(two, one, name):
    got, expected = two[0][name]["result"]["metrics"], one[name]["result"]["metrics"]
    assert got == expected
    assert got["mean_rank"] > 0


def test_experts_were_there_in_some_steps_and_not_in_others(one):
    steps = one["published"]["gradients"]
    with_fusion = [any(name.startswith("fusion.") for name in step) for step in steps]
    assert set(with_fusion) == {True, False}


@pytest.mark.parametrize("name", ["published", "accumulate"])
def test_each_rank_has_its_half_of_the_one_batch(two, one, name):
    for whole, first, second in zip(
        one[name]["batches"], two[0][name]["batches"], two[1][name]["batches"], strict=True
    ):
        for key in whole:
            assert torch.equal(torch.cat([first[key], second[key]]), whole[key])


def test_seconds_end_all_ranks_at_the_same_step_and_they_read_one_clock(two):
    first, second = (side["budget"] for side in two)
    assert first["times"] == second["times"]
    assert 3 < len(first["times"]) < 100_000
    assert first["result"]["steps"] == len(second["gradients"])
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


def test_what_ends_one_rank_ends_all_and_is_the_reason(two):
    result = two[0]["memory"]["result"]
    assert (result["status"], result["reason"]) == (
        "out_of_memory",
        "rank 1: MemoryError: no room on this rank",
    )
    assert [point["step"] for point in result["curve"]] == [0, 1, 2]


def test_a_rank_that_does_not_answer_holds_nobody_up(two):
    result = two[0]["wait"]["result"]
    assert result["status"] == "crashed"
    assert "another process is gone, or did not answer for trainer.timeout=1 s" in result["reason"]


def test_a_divergence_is_seen_by_all_ranks_at_the_same_step(two):
    result = two[0]["diverged"]["result"]
    assert result["status"] == "diverged"
    assert result["reason"].startswith("the loss is nan at step 2")
    assert [point["step"] for point in result["curve"]] == [0, 1]


def test_the_first_rank_alone_writes(two):
    assert two[0]["hard"]["result"]["status"] == "completed"
    assert two[1]["hard"]["result"] == {}


def test_alone_everything_is_the_identity():
    outputs = {"image_BD": torch.ones(2, 3), "scale": torch.tensor(3.0)}
    assert ALONE.spanning(outputs) is outputs
    assert ALONE.agreed(math.pi) == math.pi
    assert ALONE.failure() is None
    assert Ranks(1, 4).share == Share(1, 4)


def test_shares_are_contiguous_and_cover_everything():
    assert [Share(rank, 3).of(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(ValueError, match="12 prints a step cannot be shared by 5 devices"):
        Share(0, 5).of(12)


def test_gradients_travel_in_pieces_of_one_kind(monkeypatch):
    monkeypatch.setattr("eclip.ranks.PIECE", 40)
    small, big, other = torch.zeros(4), torch.zeros(20), torch.zeros(2, dtype=torch.float64)
    assert [[g.numel() for g in piece] for piece in _pieces([small, small, small, big, small, other])] == [
        [4, 4], [4], [20], [4], [2],
    ]  # fmt: skip
