"""The benchmark's own parts on sixty prints: what it compares is the same work, and its guard can fail."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bench import figures
from bench.device import flops_of
from bench.evaluation import agree, scaling
from bench.loops import BareLoop, train_in_turns
from bench.memory import peak_growth
from bench.plain import PlainLoop, item_heatmap
from bench.suite import Suite
from bench.workload import PUBLISHED, Workload
from eclip.data.heatmap import boxes_to_heatmap
from eclip.training import build_module
from tests.eclip.conftest import SMALL


@pytest.fixture(scope="module")
def workload(prints):
    small = [item for item in SMALL if item != "trainer.max_steps=6"]
    where = [f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs"]
    return Workload.prepare([*small, *where, "trainer.max_steps=600"], prints)


def test_the_two_loops_take_turns_and_the_first_lap_does_not_count(workload):
    ours, bare = train_in_turns(workload, lap=2, laps=3)
    assert len(ours) == len(bare) == 3
    assert min(ours + bare) > 0


def test_the_bare_loop_learns_what_the_module_learns(workload):
    """Same inputs, same loss: what is timed as the ceiling is the same step."""
    bare = BareLoop(workload)
    module = build_module(workload.settings, workload.data, None).train()
    bare.load(range(3))
    batch = bare.batches.at(0)
    expected = module.objective(**module.model(**module.inputs(batch, 0, 0.0)))["loss"]
    assert float(bare.step(bare.inputs[0]).detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert float(bare.step(bare.inputs[0]).detach()) != float(expected.detach())


def test_the_plain_loop_draws_the_same_heatmaps(workload):
    record = workload.annotations.records[0]
    boxes = [box for region in record.regions for box in region.boxes]
    shares = torch.tensor(boxes) / torch.tensor([record.width, record.height, record.width, record.height])
    expected = boxes_to_heatmap(shares[None], torch.ones(1, len(boxes), dtype=torch.bool), 64)[0]
    torch.testing.assert_close(item_heatmap(record, 64), expected, rtol=1e-4, atol=1e-5)


def test_the_plain_loop_trains(workload):
    plain = PlainLoop(workload)
    before = plain.module.model.log_scale.item()
    assert len(plain.seconds(lap=1, laps=1)) == 1
    assert plain.module.model.log_scale.item() != before


def test_a_grown_workload_repeats_its_prints_with_their_phrases(workload):
    few, many = workload.data.train, workload.grown(150).data.train
    assert len(many) == 150
    for row in (0, 61, 149):
        was = row % len(few)
        assert np.array_equal(many.images_NHWC[row], few.images_NHWC[was])
        phrases = [p.phrases_ML[slice(*p.phrase_offsets_N1[r : r + 2])] for p, r in ((many, row), (few, was))]
        assert np.array_equal(*phrases)


def test_the_published_command_line_runs_on_a_cpu_with_a_tiny_model(prints):
    """`make bench-gpu` with everything shrunk: its model classes, its sizes of the data, all its figures."""
    from eclip import torchvision_fix  # noqa: F401  (before transformers)

    from transformers import DistilBertConfig  # isort: skip

    where = [f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs"]
    small = "data.prints=60 data.test_prints=12 data.workers=2 trainer.batch_size=4 trainer.threads=2".split()
    DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64).save_pretrained(prints / "bert")
    tiny = "model.image.name=vit_tiny_patch16_224 model.image_size=32 model.projection.dim=32".split()
    tiny.append(f"model.text.weights={prints}/bert")
    suite = Suite.of([*PUBLISHED, *small, *where, *tiny], prints, prints=80)
    figures_ = [*suite.steps(lap=1, laps=1), suite.memory(), suite.packing(1), suite.ranks(1)]
    assert {"train_to_bare", "train_to_plain", "pack_to_decode", "scores_to_argsort"} == set(
        figures.ratios_of(figures_)
    )
    assert "eclip_vits" in suite.work


def test_both_evaluations_agree():
    assert agree()


def test_flops_of_a_linear_layer_forward_and_backward():
    layer = torch.nn.Linear(32, 16, bias=False)
    inputs = torch.randn(8, 32, requires_grad=True)
    assert flops_of(lambda: layer(inputs).sum().backward()) == 3 * 2 * 8 * 32 * 16


def test_memory_beyond_what_was_there_is_seen():
    kept = np.ones(4_000_000)
    with peak_growth() as growth:
        some = np.ones(8_000_000)
        for _ in range(2000):  # until the watcher was let in, on a busy machine, too
            if growth.bytes > 60e6:
                break
            some.sum()
        del some
    assert 60e6 < growth.bytes < 100e6
    assert len(kept) == 4_000_000


def test_scaling_extrapolates_time_by_squares():
    found = scaling((300, 600), width=8)
    assert found.million_seconds == pytest.approx(found.seconds[1] * (1e6 / 600) ** 2)
    assert found.million_bytes == pytest.approx(max(found.beyond_bytes) + 32e6)


def test_a_lost_tenth_is_named_and_a_lost_twentieth_is_not():
    known = {"train_to_bare": 1.0, "train_to_plain": 2.0}
    assert figures.losses({"train_to_bare": 0.95, "train_to_plain": 1.81}, known) == []
    (line,) = figures.losses({"train_to_bare": 0.95, "train_to_plain": 1.79}, known)
    assert "train_to_plain: 1.79, recorded as 2.00" in line
    (line,) = figures.losses({"train_to_plain": 2.0}, known)
    assert "train_to_bare" in line


def test_recorded_ratios_are_kept_by_machine(tmp_path):
    file = tmp_path / "recorded.json"
    assert figures.recorded(file, "this") is None
    figures.record(file, "this", {"a": 1.0})
    figures.record(file, "that", {"a": 3.0})
    figures.record(file, "this", {"a": 2.0})
    assert figures.recorded(file, "this") == {"a": 2.0}
    assert json.loads(file.read_text())["that"] == {"a": 3.0}
