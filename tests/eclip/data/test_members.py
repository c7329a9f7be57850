"""Which members a name means, and how few bytes and requests get them out of an archive."""

import io
import itertools
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eclip.data import members
from eclip.data.client import FetchError
from eclip.data.members import extract, is_good, match, open_local, plan


def archive_of(**contents: bytes) -> zipfile.ZipFile:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, body in contents.items():
            archive.writestr(name.replace("__", "/"), body)
    return zipfile.ZipFile(held)


def test_a_name_is_found_by_its_last_part_wherever_it_lies():
    matches = match(archive_of(deep__er__a=b"1", b=b"2"), ["a", "b", "x/b", "c"])
    assert {name: info.filename for name, info in matches.found.items()} == {
        "a": "deep/er/a",
        "b": "b",
        "x/b": "b",
    }
    assert matches.missing == ["c"]


def test_of_several_members_the_one_in_the_named_folder_counts():
    matches = match(archive_of(p__q__a=b"1", p__r__a=b"2"), ["data/r/a"])
    assert matches.found["data/r/a"].filename == "p/r/a"


def test_copies_of_one_content_are_one_and_different_contents_are_ambiguous():
    matches = match(archive_of(p__a=b"1", q__a=b"1", p__b=b"1", q__b=b"2"), ["a", "b"])
    assert matches.found["a"].filename == "p/a"
    assert matches.ambiguous == {"b": ["p/b", "q/b"]}


def test_extract_replaces_the_target_in_one_go_and_leaves_nothing_else(tmp_path):
    archive = archive_of(a=b"new")
    (tmp_path / "a").write_bytes(b"old")
    assert extract(archive, archive.getinfo("a"), tmp_path / "a") is None
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_a_member_with_bad_bytes_is_described_and_the_target_stays(tmp_path):
    archive = archive_of(a=b"woodblock")
    held = archive.fp.getbuffer()
    held[bytes(held).index(b"woodblock")] ^= 1
    (tmp_path / "a").write_bytes(b"old")
    assert "Bad CRC-32" in extract(archive, archive.getinfo("a"), tmp_path / "a")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize(("content", "good"), [(b"print", True), (b"prinT", False), (b"prin", False)])
def test_a_file_is_good_by_size_and_crc(tmp_path, content, good):
    info = archive_of(a=b"print").getinfo("a")
    (tmp_path / "a").write_bytes(content)
    assert is_good(tmp_path / "a", info.file_size, info.CRC) is good
    assert is_good(tmp_path / "b", info.file_size, info.CRC) is False


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"<html>")
    with pytest.raises(FetchError, match=r"x\.zip: not a zip archive"):
        open_local(tmp_path / "x.zip")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=9), st.integers(1, 5))
def test_the_plan_holds_every_member_and_transfers_the_fewest_bytes_for_its_requests(sizes, max_requests):
    archive = archive_of(**{f"m{i}": bytes(size) for i, (size, _) in enumerate(sizes)})
    wanted = {f"m{i}": archive.getinfo(f"m{i}") for i, (_, named) in enumerate(sizes) if named}
    offsets = [info.header_offset for info in archive.infolist()] + [archive.start_dir]
    places = [(offsets[i], offsets[i + 1]) for i, (_, named) in enumerate(sizes) if named]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "SMALLEST_GAP", 0)
        spans = plan(archive, wanted, max_requests)
    assert [name for span in spans for name in span.names] == list(wanted)
    assert all(s.start <= wanted[n].header_offset < s.end for s in spans for n in s.names)
    best = min((_bytes(places, cuts) for cuts in _all_cuts(len(places), max_requests)), default=0)
    assert len(spans) <= max_requests
    assert sum(span.end - span.start for span in spans) == best


def _all_cuts(count: int, max_requests: int) -> list[tuple[int, ...]]:
    cuts = range(1, count)
    return [c for k in range(max_requests) for c in itertools.combinations(cuts, k)] if count else []


def _bytes(places: list[tuple[int, int]], cuts: tuple[int, ...]) -> int:
    edges = [0, *cuts, len(places)]
    return sum(places[b - 1][1] - places[a][0] for a, b in itertools.pairwise(edges))


def test_a_span_is_never_longer_than_memory_allows(monkeypatch):
    monkeypatch.setattr(members, "LONGEST_SPAN", 1000)
    archive = archive_of(**{f"m{i}": bytes(300) for i in range(10)})
    spans = plan(archive, {info.filename: info for info in archive.infolist()}, max_requests=1)
    assert len(spans) == 4
    assert max(span.end - span.start for span in spans) <= 1000
