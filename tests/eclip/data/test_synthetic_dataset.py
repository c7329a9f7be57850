"""The written folder: Ukiyo-eVG's layout, the same bytes however it was drawn, complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from eclip.data.synthetic import DatasetSummary, dataset, draw_dataset
from eclip.data.synthetic.workshop import draw_all

PRINTS, TESTS = 36, 6
SOURCE = Path(dataset.__file__).parents[3]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "synthetic"
    draw_dataset(root, prints=PRINTS, test_prints=TESTS, seed=3, workers=1, progress=False)
    return root


def lines(root: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (root / dataset.FILES[split]).read_text().splitlines()]


def test_the_layout_is_that_of_ukiyo_evg(drawn):
    assert set(digests(drawn)) >= {
        "annotations/Ukiyo-eVG/refined/ukiyoe_vg_train_pgt_odvg.jsonl",
        "annotations/Ukiyo-eVG/refined/ukiyoe_vg_val_pgt_odvg.jsonl",
        "annotations/Ukiyo-eVG/ukiyoe_vg_test_annotated.jsonl",
    }
    assert [len(lines(drawn, split)) for split in ("train", "val", "test")] == [32, 4, 6]
    entries = [entry for split in dataset.FILES for entry in lines(drawn, split)]
    names = [entry["filename"] for entry in entries]
    assert len(set(names)) == PRINTS + TESTS == len(list((drawn / "images").iterdir()))
    for entry in entries:
        assert set(entry) == {"filename", "width", "height", "grounding"}
        with Image.open(drawn / "images" / entry["filename"]) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (entry["width"], entry["height"]))
        assert entry["grounding"]["caption"]
        assert entry["grounding"]["regions"]


def test_the_reader_reads_it(drawn):
    odvg = pytest.importorskip("eclip.data.odvg")
    for split, count in (("train", 32), ("val", 4), ("test", 6)):
        annotations = odvg.read_split(drawn, split, on_error="raise")
        assert len(annotations.records) == count
        assert not annotations.skipped


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bytes_from_any_number_of_processes(drawn, tmp_path, workers, monkeypatch):
    monkeypatch.setattr("eclip.data.synthetic.workshop.PRINTS_A_PROCESS", 1)
    draw_dataset(tmp_path / "s", prints=PRINTS, test_prints=TESTS, seed=3, workers=workers, progress=False)
    assert digests(tmp_path / "s") == digests(drawn)


def test_a_print_depends_on_seed_and_number_alone(drawn, tmp_path):
    few = dict(draw_all(tmp_path, 3, 4, 1))
    assert [json.loads(few[i]) for i in range(4)] == lines(drawn, "train")[:4]
    for i in range(4):
        name = f"print_{i:06d}.jpg"
        assert (tmp_path / name).read_bytes() == (drawn / "images" / name).read_bytes()
    other = dict(draw_all(tmp_path, 4, 4, 1))
    assert all(few[i] != other[i] for i in range(4))


def test_a_second_call_touches_nothing(drawn):
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    summary = draw_dataset(drawn, prints=PRINTS, test_prints=TESTS, seed=3, progress=False)
    assert summary == DatasetSummary(dataset.VERSION, 3, PRINTS, TESTS)
    assert summary.counts == {"train": 32, "val": 4, "test": 6}
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_other_parameters_replace_what_was_drawn(tmp_path):
    root = tmp_path / "s"
    draw_dataset(root, prints=9, test_prints=1, seed=0, workers=1, progress=False)
    first = digests(root)
    draw_dataset(root, prints=9, test_prints=2, seed=1, workers=1, progress=False)
    assert not set(first.values()) & set(digests(root).values())
    assert len(list((root / "images").iterdir())) == 11
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.lock", "s"]


def test_a_folder_of_someone_else_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"dataset\.json"):
        draw_dataset(tmp_path / "mine", prints=9, test_prints=1, progress=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_too_few_prints_are_refused(tmp_path):
    with pytest.raises(ValueError, match="prints=3"):
        draw_dataset(tmp_path / "s", prints=3, test_prints=1)


def start(root: Path, prints: int) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from eclip.data.synthetic import draw_dataset;"
        "draw_dataset(Path(sys.argv[1]), prints=int(sys.argv[2]), test_prints=4, workers=2, progress=False)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen([sys.executable, "-c", code, str(root), str(prints)], env=environment)


def test_killed_half_way_it_leaves_no_usable_half_and_the_next_call_completes(tmp_path):
    root = tmp_path / "s"
    child = start(root, 5000)
    while len(list(tmp_path.glob(".s.partial-*/images/*.jpg"))) < 4:
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not root.exists()
    draw_dataset(root, prints=9, test_prints=1, workers=1, progress=False)
    assert len(list((root / "images").iterdir())) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.lock", "s"]


def test_two_at_once_leave_one_whole_data_set(tmp_path):
    root = tmp_path / "s"
    children = [start(root, 32) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert len(list((root / "images").iterdir())) == 36
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.lock", "s"]


def test_a_drawing_process_that_fails_is_reported_with_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr("eclip.data.synthetic.workshop.PRINTS_A_PROCESS", 1)
    with pytest.raises(RuntimeError, match=r"(?s)ended with status 1.*FileNotFoundError"):
        list(draw_all(tmp_path / "missing", 0, 8, 2))
