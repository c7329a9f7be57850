"""The benchmark's own parts on sixty prints: what it compares is the same work, and its guard can fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import equal, figures, gpu
from bench.device import datasheet, flops_of
from bench.evaluation import agree, argsort_ranks, scaling
from bench.loops import BareLoop, device_of, train_in_turns
from bench.memory import peak_growth
from bench.plain import PlainLoop, item_heatmap
from bench.suite import Suite
from bench.workload import PUBLISHED, ROOT, Workload, settings_of
from eclip.compilation import compile_blocks
from eclip.data.heatmap import boxes_to_heatmap
from eclip.metrics import retrieval_scores
from eclip.training import build_module, embed_candidates, make_trainer
from tests.eclip.conftest import SMALL
from tests.eclip.pretend_gpu import pretended_gpu


@pytest.fixture(scope="module")
def workload(prints):
    small = [item for item in SMALL if item != "trainer.max_steps=6"]
    where = [f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs"]
    return Workload.prepare([*small, *where, "trainer.max_steps=600"], prints)


def test_the_loops_take_turns_and_the_first_lap_does_not_count(workload):
    with PlainLoop(workload) as slow:
        ours, (bare, plain) = train_in_turns(workload, [BareLoop(workload), slow], lap=2, laps=3)
        assert all(stopped(worker) for worker in slow._workers)
    assert len(ours) == len(bare) == len(plain) == 3
    assert min(ours + bare + plain) > 0


def stopped(worker):
    """Whether the process waits for a signal to go on, or has done its share."""
    try:
        status = Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] in "TZX"


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


def test_the_plain_loop_trains_from_files_and_leaves_no_worker(workload):
    plain = PlainLoop(workload)
    before = plain.module.model.log_scale.item()
    plain.train(3)
    assert plain.module.model.log_scale.item() != before
    assert not any(worker.is_alive() for worker in plain._workers)


def test_plain_and_fast_steps_are_one_step(workload):
    """The same inputs, some steps: the plain model, its padding encoded, learns what train.py's model learns."""
    bare, plain = BareLoop(workload), PlainLoop(workload)
    bare.load(range(5))
    assert any("heatmap_BHW" in inputs for inputs in bare.inputs)
    for group in bare.optimizer.param_groups:
        group["lr"] = 1e-3
    for group in plain.optimizer.param_groups:
        group["lr"] = 1e-3
    for inputs in bare.inputs:
        expected = bare.step(inputs).detach()
        loss = plain.module.objective(**plain.module.model(**inputs))["loss"]
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)
        plain.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.module.model.parameters(), 1.0)
        plain.optimizer.step()


def test_the_plain_loop_reads_what_the_pack_holds(workload):
    plain, pack = PlainLoop(workload), workload.data.train
    row = int(workload.data.train_rows_N[3])
    image_CHW, _, caption, phrase = plain.loader.dataset[3]
    difference = (image_CHW.permute(1, 2, 0) * 255).numpy() - pack.images_NHWC[row]
    assert np.abs(difference).mean() < 2
    assert np.array_equal(plain._tokens([caption], 48)[0], pack.captions_NL[row])
    phrases = pack.phrases_ML[slice(*pack.phrase_offsets_N1[row : row + 2])]
    assert any(np.array_equal(plain._tokens([phrase], 16)[0], known) for known in phrases)


def test_plain_and_fast_evaluation_agree(workload):
    module, plain = build_module(workload.settings, workload.data, None), PlainLoop(workload)
    trainer = make_trainer(workload.settings.trainer, [], [], Path(workload.settings.run.dir))
    scores = retrieval_scores(*embed_candidates(trainer, module, workload.data))
    to_text_N, to_image_N = argsort_ranks(*plain.embed())
    # images are decoded by another path, which may exchange near ones
    assert (to_text_N.mean() + to_image_N.mean()) / 2 == pytest.approx(scores["mean_rank"], abs=0.5)


def test_equal_results_are_compared_seed_by_seed(workload):
    short = replace(workload.settings, trainer=replace(workload.settings.trainer, max_steps=2))
    pair = equal.compare(replace(workload, settings=short), seed=4)
    assert pair.seed == 4
    assert 0 < pair.fast < 19
    assert 0 < pair.plain < 19
    low, high = equal.paired([1.0, 2.0, 4.0], [1.5, 2.0, 3.5])
    assert (low, high) == pytest.approx((-1.2421, 1.2421), abs=1e-3)  # 4.303 x 0.5 / sqrt(3)
    assert equal.welch([1.0, 2.0, 4.0], [1.5, 2.0, 3.5])[0] < low


def test_a_grown_workload_repeats_its_prints_with_their_phrases(workload):
    few, many = workload.data.train, workload.grown(150).data.train
    assert len(many) == 150
    for row in (0, 61, 149):
        was = row % len(few)
        assert np.array_equal(many.images_NHWC[row], few.images_NHWC[was])
        phrases = [p.phrases_ML[slice(*p.phrase_offsets_N1[r : r + 2])] for p, r in ((many, row), (few, was))]
        assert np.array_equal(*phrases)


def test_all_that_a_gpu_shows_is_measured_on_a_pretended_one(workload, monkeypatch):
    """All of `make bench-gpu`, on a small model, but for what torch.compile and a new process need a real one."""
    monkeypatch.setattr("bench.gpu.million", partial(gpu.million, some=60, width=16))
    monkeypatch.setattr("bench.evaluation.CANDIDATES", 90)
    monkeypatch.setattr("bench.suite.FLOP_STEPS", 1)
    four = replace(workload.settings, trainer=replace(workload.settings.trainer, max_steps=4))
    with pretended_gpu():
        suite = Suite(replace(workload, settings=four).grown(80), device_of(four))
        parts = suite.parts(lap=1, laps=1, repeats=1)
        found = [figure for name in parts if name not in REAL for figure in parts[name]()]
        written = json.loads(figures.as_json(found, device=suite.machine))
    assert set(REAL) < set(parts)
    assert {figure.key for figure in found} == {
        *("train_to_bare", "train_to_plain", "pack_to_decode", "scores_to_argsort", None)
    }
    with_goals = [figure.name for figure in found if figure.met is not None]
    assert [name.split(" of ")[0].split(" x ")[0] for name in with_goals] == [
        "train.py, bare loop", "train.py, plain loop", "4 steps", "ranks", "a million pairs: memory beyond them",
        "scores",
    ]  # fmt: skip
    assert "datasheet of H100" in next(figure.name for figure in found if "FLOP" in figure.name)
    assert written["device"] == "NVIDIA H100, pretended"
    assert len(written["figures"]) == len(found)


REAL = ("start", "torch.compile", "compiled runs", "CUDA graphs")


def test_the_published_sizes_are_settings():
    settings = settings_of(*PUBLISHED, "run.dir=x")
    assert (settings.model.name, settings.model.pretrained) == ("eclip_vits", False)


def test_compiled_blocks_are_timed_against_others(workload):
    figure = gpu.compiled(workload, 1, 1, "compiled", partial(compile_blocks, backend="eager"))
    assert figure.name.startswith("compiled: ")
    assert len(figure.ratios) == 1


def test_runs_are_compiled_with_a_cache_and_without(workload, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # the runs do all but compile
    first, second = gpu.compiled_runs(workload, 2)
    assert re.match(r"2 steps compiled \(-?\d+\.\d s of it compiling\), not compiled", first.name)
    assert second.name.startswith("2 steps compiled, from a cache (")
    assert first.against == second.against
    assert 0 < first.ratios[0] < 10


def test_without_a_gpu_the_command_says_so_at_once(monkeypatch, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "bench_train.py"), "--gpu", "--folder", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 2
    assert "make bench-gpu needs a GPU: " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_goals_are_met_or_missed():
    ratio = figures.Figure("a", "8/s", "1/s", [7.0, 8.0, 9.0], figures.Goal(6, least=True))
    slow = figures.Figure("b", "6.1 ms", "9 ms", [1.5], figures.Goal(5, "ms"), measured=6.1)
    assert figures.verdicts([ratio, slow, figures.Figure("c", "1")]) == [
        "met     a: 8.00 (goal: ≥ 6)",
        "missed  b: 6.1 ms (goal: ≤ 5 ms)",
    ]


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A10G", None),
    ],
)
def test_datasheets_are_found_by_whole_words(name, sheet):
    assert datasheet(name) == sheet


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
    assert found.million_bytes == pytest.approx(max(found.beyond_bytes) + 40e6)


def test_one_bad_lap_loses_nothing_and_half_of_them_do():
    assert figures.upper_bound([1.0] * 20 + [0.1] * 4) == 1.0
    assert figures.upper_bound([0.5] * 20 + [1.0] * 4) == 0.5
    assert figures.upper_bound([0.8, 1.0, 0.9]) == 1.0
    assert figures.lower_bound([0.8, 1.0, 0.9]) == 0.8
    values = sorted(np.random.default_rng(0).normal(size=24))
    assert values[12] < figures.upper_bound(values) == values[16]


def test_the_guard_passes_on_its_own_record_and_fails_on_a_doctored_one(workload, tmp_path):
    """The command itself, in a process: what it records it accepts, and twice as much it misses."""
    file = tmp_path / "recorded.json"
    command = [
        sys.executable,
        str(ROOT / "scripts" / "bench_train.py"),
        "--recorded",
        str(file),
        "--lap",
        "1",
    ]
    command += ["--laps", "4", "--repeats", "1", "--prints", "60", "--only", "steps", *workload.overrides]
    assert run([*command, "--record", "--check"])[0] == 0
    (key,) = known = json.loads(file.read_text())
    assert set(known[key]) == {"train_to_bare", "train_to_plain"}
    file.write_text(json.dumps({key: {"train_to_bare": 100 * known[key]["train_to_bare"]}}))
    status, output = run([*command, "--check"])
    assert status == 1
    assert "train_to_bare: at most" in output


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def test_a_lost_tenth_is_named_and_a_lost_twentieth_is_not():
    known = {"train_to_bare": 1.0, "train_to_plain": 2.0}
    assert figures.losses({"train_to_bare": 0.95, "train_to_plain": 1.81}, known) == []
    (line,) = figures.losses({"train_to_bare": 0.95, "train_to_plain": 1.79}, known)
    assert "train_to_plain: at most 1.79, recorded as 2.00" in line
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
