"""Ukiyo-eVG from a small Zenodo on loopback: what arrives, what is reported, how little is sent."""

import io
import json
import os
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from eclip.data import fetch
from eclip.data.client import CHUNK, Client, FetchError, Patience
from eclip.data.fetch import fetch_ukiyoe_vg, is_safe, parse_record
from eclip.data.fetch_report import ANNOTATIONS, Report
from tests.eclip.data.zenodo_server import Sent, Zenodo

REPOSITORY = Path(__file__).parents[3]
TRAIN, VAL, TEST = ANNOTATIONS
IMAGES = "images_ukiyo-e.zip"
TAIL = 1 << 16  # bytes of the archive's end that its directory is looked for in


def print_bytes(seed: int, kind: str) -> bytes:
    held = io.BytesIO()
    Image.effect_noise((24, 32), seed + 1).convert("RGB").save(held, kind)
    return held.getvalue()


PRINTS = {f"p{i}.{kind.lower()}": print_bytes(i, kind) for i, kind in enumerate(("JPEG", "PNG") * 3)}
DECOYS = {f"decoy{i}.jpg": random.Random(i).randbytes(120_000) for i in range(12)}


def zip_of(contents: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, body in contents.items():
            archive.writestr(name, body)
    return held.getvalue()


def image_archive() -> bytes:
    """Each print between two decoys of a size that is not worth transferring."""
    decoys, contents = iter(DECOYS.items()), {}
    for name, body in PRINTS.items():
        for key, content in (next(decoys), (name, body), next(decoys)):
            contents[f"images_ukiyo-e/{key}"] = content
    return zip_of(contents)


def lines(*names: str) -> bytes:
    grounding = {"caption": "a wave", "regions": [{"bbox": [0, 0, 9, 9], "phrase": "wave"}]}
    texts = (json.dumps({"filename": n, "width": 24, "height": 32, "grounding": grounding}) for n in names)
    return "\n".join(texts).encode() + b"\n"


def annotation_files() -> dict[str, bytes]:
    names = list(PRINTS)
    return {TRAIN: lines(*names[:3], names[0]), VAL: lines(names[3]), TEST: lines(*names[4:])}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def zenodo():
    with Zenodo(annotation_files() | {IMAGES: image_archive()}) as server:
        yield server


def run(zenodo: Zenodo, root: Path, attempts: int = 3, **options) -> Report:
    client = Client(patience=Patience(attempts=attempts, backoff=0.001))
    try:
        return fetch_ukiyoe_vg(root, client=client, record_url=zenodo.record_url, **options)
    finally:
        client.close()


def images_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "images").iterdir()}


def test_every_named_print_and_annotation_arrives(zenodo, tmp_path):
    report = run(zenodo, tmp_path)
    assert images_in(tmp_path) == PRINTS
    assert {name: (tmp_path / path).read_bytes() for name, path in ANNOTATIONS.items()} == annotation_files()
    assert (report.named, report.fetched, report.present, report.complete) == (6, 6, 0, True)
    assert json.loads((tmp_path / "fetch_report.json").read_text())["complete"] is True


def test_of_the_archive_only_named_members_and_the_directory_are_transferred(zenodo, tmp_path):
    run(zenodo, tmp_path)
    assert all(sent.status == 206 for sent in zenodo.requests(IMAGES))
    assert len(zenodo.requests(IMAGES)) == 1 + len(PRINTS)
    headers = 100 * len(PRINTS)
    assert zenodo.bytes_sent(IMAGES) < sum(map(len, PRINTS.values())) + headers + TAIL
    assert zenodo.bytes_sent(IMAGES) < 0.1 * len(zenodo.files[IMAGES])


def test_fewer_requests_are_bought_with_more_bytes(zenodo, tmp_path):
    run(zenodo, tmp_path, max_requests=2)
    assert len(zenodo.requests(IMAGES)) == 1 + 2
    assert images_in(tmp_path) == PRINTS


def test_the_report_counts_what_the_server_counted(zenodo, tmp_path):
    report = run(zenodo, tmp_path)
    record = sum(sent.body for sent in zenodo.requests(None))
    assert report.requests == len(zenodo.log)
    assert report.received_bytes == record + sum(zenodo.bytes_sent(key) for key in zenodo.files)


def test_few_connections_carry_all_requests(zenodo, tmp_path):
    run(zenodo, tmp_path, workers=2)
    assert len(zenodo.log) == 11
    assert zenodo.connections <= 1 + 2 + 1  # the knock at the door, the workers, the main thread


def test_a_second_call_asks_for_the_record_only(zenodo, tmp_path):
    run(zenodo, tmp_path)
    before = len(zenodo.log)
    report = run(zenodo, tmp_path)
    assert [sent.key for sent in zenodo.log[before:]] == [None]
    assert (report.present, report.fetched, report.complete) == (6, 0, True)


@pytest.mark.parametrize("manifest", [True, False])
def test_only_a_lost_and_a_damaged_print_are_fetched_again(zenodo, tmp_path, manifest):
    run(zenodo, tmp_path)
    (tmp_path / "images" / "p0.jpeg").unlink()
    (tmp_path / "images" / "p3.png").write_bytes(b"?" * len(PRINTS["p3.png"]))
    if not manifest:
        (tmp_path / "images.crc.json").unlink()
    before = len(zenodo.requests(IMAGES))
    report = run(zenodo, tmp_path)
    assert images_in(tmp_path) == PRINTS
    assert (report.present, report.fetched) == (4, 2)
    assert len(zenodo.requests(IMAGES)) == before + 1 + 2


def test_prints_fetched_before_a_break_are_not_fetched_again(zenodo, tmp_path):
    zenodo.break_after[IMAGES] = [TAIL, 10**6, 10**6, 10**6] + [0] * 99
    report = Report()
    with pytest.raises(FetchError, match="broke off"):
        run(zenodo, tmp_path, attempts=2, workers=1, report=report)
    assert report.fetched == 3
    assert json.loads((tmp_path / "fetch_report.json").read_text())["fetched"] == 3
    zenodo.break_after.clear()
    second = run(zenodo, tmp_path)
    assert (second.present, second.fetched) == (3, 3)
    asked = [sent.asked for sent in zenodo.requests(IMAGES)]
    assert [asked.count(span) for span in asked[1:4]] == [1, 1, 1]
    assert images_in(tmp_path) == PRINTS


def test_a_range_that_breaks_off_goes_on_inside(zenodo, tmp_path):
    zenodo.break_after[IMAGES] = [TAIL, 500_000]
    run(zenodo, tmp_path, max_requests=1)
    first, rest = zenodo.requests(IMAGES)[1:]
    assert int(rest.asked[6:].split("-")[0]) >= int(first.asked[6:].split("-")[0]) + 500_000 - CHUNK
    assert images_in(tmp_path) == PRINTS


def test_bytes_altered_on_the_way_are_asked_for_again(zenodo, tmp_path):
    whole = zenodo.files[IMAGES]
    stored = whole.index(PRINTS["p2.jpeg"])
    zenodo.files[IMAGES] = whole[:stored] + b"\0\0" + whole[stored + 2 :]

    def repair(sent: Sent) -> None:
        if sent.key == IMAGES:
            first, last = map(int, sent.asked[6:].split("-"))
            if first <= stored <= last:
                zenodo.files[IMAGES] = whole

    zenodo.while_sending = repair
    report = run(zenodo, tmp_path)
    assert images_in(tmp_path) == PRINTS
    assert report.complete
    assert len(zenodo.requests(IMAGES)) == 1 + len(PRINTS) + 1


def test_a_print_damaged_in_the_archive_is_reported_and_not_written(zenodo, tmp_path):
    whole = zenodo.files[IMAGES]
    stored = whole.index(PRINTS["p2.jpeg"])
    zenodo.files[IMAGES] = whole[:stored] + b"\0\0" + whole[stored + 2 :]
    report = run(zenodo, tmp_path)
    assert list(report.damaged) == ["p2.jpeg"]
    assert "Bad CRC-32" in report.damaged["p2.jpeg"]
    assert set(images_in(tmp_path)) == set(PRINTS) - {"p2.jpeg"}
    assert not report.complete


def test_a_server_that_answers_500_a_few_times_is_borne_with(zenodo, tmp_path):
    zenodo.statuses[""] = [500]
    zenodo.statuses[TRAIN] = [503]
    zenodo.statuses[IMAGES] = [500, 502]
    assert run(zenodo, tmp_path).complete
    assert images_in(tmp_path) == PRINTS


def test_an_archive_without_ranges_names_the_way_out_and_is_not_downloaded(zenodo, tmp_path):
    zenodo.no_ranges.add(IMAGES)
    with pytest.raises(FetchError, match=r"was sent the whole file.*--whole-archive"):
        run(zenodo, tmp_path)
    assert len(zenodo.requests(IMAGES)) == 1
    assert not (tmp_path / "images").exists()


def test_the_whole_archive_is_resumed_and_only_named_prints_come_out(zenodo, tmp_path):
    zenodo.break_after[IMAGES] = [900_000]
    report = run(zenodo, tmp_path, whole_archive=True)
    assert images_in(tmp_path) == PRINTS
    assert report.complete
    size = len(zenodo.files[IMAGES])
    assert size <= zenodo.bytes_sent(IMAGES) < size + CHUNK
    assert (tmp_path / "archives" / IMAGES).stat().st_size == size


def test_the_whole_archive_comes_without_ranges_too(zenodo, tmp_path):
    zenodo.no_ranges.add(IMAGES)
    assert run(zenodo, tmp_path, whole_archive=True).complete
    assert images_in(tmp_path) == PRINTS


def test_annotations_inside_an_archive_are_found_and_preferred_by_folder(zenodo, tmp_path):
    for name in ANNOTATIONS:
        del zenodo.files[name]
    inside = {f"Ukiyo-eVG/refined/{TRAIN}": lines("p0.jpeg"), f"Ukiyo-eVG/raw/{TRAIN}": lines("decoy0.jpg")}
    inside |= {f"Ukiyo-eVG/refined/{VAL}": lines("p1.png"), f"Ukiyo-eVG/{TEST}": lines("p2.jpeg")}
    zenodo.files["annotations.zip"] = zip_of(inside)
    report = run(zenodo, tmp_path)
    assert report.annotations[TRAIN] == f"annotations.zip: Ukiyo-eVG/refined/{TRAIN}"
    assert set(images_in(tmp_path)) == {"p0.jpeg", "p1.png", "p2.jpeg"}
    before = len(zenodo.log)
    run(zenodo, tmp_path)
    assert [sent.key for sent in zenodo.log[before:]] == [None]


def test_of_a_large_archive_with_annotations_only_they_are_transferred(zenodo, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "SMALL_ARCHIVE", 1000)
    zenodo.files["everything.zip"] = zip_of(
        {"big": DECOYS["decoy0.jpg"], TRAIN: zenodo.files.pop(TRAIN)} | DECOYS
    )
    assert run(zenodo, tmp_path).complete
    assert zenodo.bytes_sent("everything.zip") < 0.1 * len(zenodo.files["everything.zip"])


def test_a_missing_annotation_file_is_reported_and_the_rest_fetched(zenodo, tmp_path):
    del zenodo.files[TEST]
    report = run(zenodo, tmp_path)
    assert report.missing_annotations == [TEST]
    assert set(images_in(tmp_path)) == set(list(PRINTS)[:4])
    assert not report.complete


def test_no_annotations_at_all_is_an_error_that_lists_what_there_is(zenodo, tmp_path):
    zenodo.files = {"readme.txt": b"hello", IMAGES: zenodo.files[IMAGES]}
    with pytest.raises(FetchError, match=r"none of ukiyoe_vg_train.*\(readme\.txt\)"):
        run(zenodo, tmp_path)


def test_another_name_of_the_image_archive_is_asked_for(zenodo, tmp_path):
    zenodo.files["prints.bin"] = zenodo.files.pop(IMAGES)
    with pytest.raises(FetchError, match=r"has no images_ukiyo-e\.zip, only .*prints\.bin.*--image-archive"):
        run(zenodo, tmp_path)
    assert run(zenodo, tmp_path, image_archive="prints.bin").complete


def test_missing_ambiguous_and_unsafe_names_are_told_apart(zenodo, tmp_path):
    zenodo.files[VAL] = (
        lines("p3.png", "lost.jpg", "twice.jpg", "copied.jpg", "../../evil.jpg") + b"{broken\n[1]\n"
    )
    members = {f"x/{name}": body for name, body in PRINTS.items()}
    members |= {"x/twice.jpg": b"1", "y/twice.jpg": b"2", "x/copied.jpg": b"3", "y/copied.jpg": b"3"}
    zenodo.files[IMAGES] = zip_of(members | {"z/../../../evil.jpg": b"evil"})
    root = tmp_path / "a" / "b"
    report = run(zenodo, root)
    assert report.missing == ["lost.jpg"]
    assert report.ambiguous == {"twice.jpg": ["x/twice.jpg", "y/twice.jpg"]}
    assert report.unsafe == ["../../evil.jpg"]
    assert report.unreadable_lines == 2
    assert (report.named, report.fetched) == (10, 7)
    assert set(images_in(root)) == {*PRINTS, "copied.jpg"}
    assert not list(tmp_path.rglob("evil*"))
    assert json.loads((root / "fetch_report.json").read_text())["missing"] == ["lost.jpg"]


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../x", "..", "c:\\x", "a\\x", "\0", "\x1b[2J", "", "é" * 120]
)
def test_unsafe_names(name):
    assert not is_safe(name)


@pytest.mark.parametrize("name", ["a.jpg", "浮世絵/a b.jpg", "é" * 100, "..a.jpg"])
def test_safe_names(name):
    assert is_safe(name)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], "lists no files"),
        ({"files": []}, "lists no files"),
        ({"files": [{"key": "a", "size": 1, "links": {"self": "http://x"}}]}, "KeyError.*checksum"),
        (
            {"files": [{"key": "a", "size": 1, "checksum": "md5:0", "links": {"self": "file:///x"}}]},
            "an http address",
        ),
        ({"files": [{"key": "a", "size": 1, "checksum": "sha1:0", "links": {"self": "http://x"}}]}, "md5"),
    ],
)
def test_a_record_of_another_form_is_refused(record, reason):
    with pytest.raises(FetchError, match=reason):
        parse_record(record, "http://z/api/records/1")


def test_two_fetches_into_one_folder_are_kept_apart(zenodo, tmp_path):
    with fetch.locked(tmp_path), pytest.raises(FetchError, match="another process is fetching into it"):
        run(zenodo, tmp_path)
    assert run(zenodo, tmp_path).complete


def command(*arguments: str, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        [sys.executable, "scripts/prepare_data.py", "ukiyoe_vg", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": "src", "COLUMNS": "150", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=limit,
    )


def test_the_command_fetches_and_prints_the_report(zenodo, tmp_path):
    done = command("--root", str(tmp_path), "--record-url", zenodo.record_url, "--strict")
    assert done.returncode == 0, done.stderr
    assert "6 prints in 6 requests" in done.stdout
    assert "prints named" in done.stdout
    assert images_in(tmp_path) == PRINTS


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 3)])
def test_gaps_are_an_exit_code_under_strict(zenodo, tmp_path, strict, code):
    zenodo.files[VAL] = lines("p3.png", "lost.jpg")
    done = command("--root", str(tmp_path), "--record-url", zenodo.record_url, *strict)
    assert done.returncode == code, done.stderr
    assert "lost.jpg" in done.stdout


def test_without_a_network_the_command_says_so_and_names_the_embedded_data(zenodo, tmp_path):
    run(zenodo, tmp_path)
    zenodo.server.server_close()
    done = command("--root", str(tmp_path), "--record-url", zenodo.record_url)
    assert done.returncode == 1
    assert "cannot be reached" in done.stdout
    assert "data=synthetic" in done.stdout
    assert "on disk, not verified" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_full_disk_ends_the_command_with_the_file_and_the_reason(zenodo, tmp_path):
    """The largest file allowed is smaller than the annotations: a full disk by another number."""
    zenodo.files[TRAIN] = lines(*PRINTS) * 50
    done = command("--root", str(tmp_path), "--record-url", zenodo.record_url, file_limit=8000)
    assert done.returncode == 1
    assert "cannot be written: File too large" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr
