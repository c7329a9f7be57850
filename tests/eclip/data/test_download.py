"""Whole files and ranges over a real connection that fails in every way a connection can."""

import re
import socket
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from eclip.data.client import CHUNK, Client, FetchError, NoNetworkError, Patience, RangesRefusedError
from eclip.data.download import ChecksumError, RemoteFile, download
from eclip.data.fetch import parse_record
from tests.eclip.data.zenodo_server import Zenodo

BODY = bytes(range(256)) * 1200  # 307,200 bytes: more than one chunk


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def client():
    with_little_patience = Client(patience=Patience(attempts=3, backoff=0.001))
    yield with_little_patience
    with_little_patience.close()


@pytest.fixture
def zenodo():
    with Zenodo({"a.bin": BODY}) as server:
        yield server


def file_of(zenodo: Zenodo) -> RemoteFile:
    return parse_record(zenodo.record(), zenodo.record_url)[0]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_a_second_call_sends_nothing(zenodo, client, tmp_path):
    assert download(client, file_of(zenodo), tmp_path / "a") is True
    assert (tmp_path / "a").read_bytes() == BODY
    assert download(client, file_of(zenodo), tmp_path / "a") is False
    assert [sent.body for sent in zenodo.log] == [len(BODY)]
    assert left_in(tmp_path) == ["a"]


def test_a_broken_connection_goes_on_where_it_broke(zenodo, client, tmp_path):
    zenodo.break_after["a.bin"] = [100_000, 50_000]
    download(client, file_of(zenodo), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    starts = [int(re.match(r"bytes=(\d+)-", sent.asked)[1]) for sent in zenodo.log]
    assert starts == [0, 100_000 // CHUNK * CHUNK, 100_000 // CHUNK * CHUNK + 50_000 // CHUNK * CHUNK]
    assert zenodo.bytes_sent("a.bin") < len(BODY) + 2 * CHUNK


def test_breaks_with_new_bytes_between_them_do_not_exhaust_the_patience(zenodo, client, tmp_path):
    zenodo.break_after["a.bin"] = [50_000] * 5
    download(client, file_of(zenodo), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(zenodo.log) == 5 + 1


def test_another_process_goes_on_with_the_partial_file(zenodo, client, tmp_path):
    zenodo.break_after["a.bin"] = [200_000]
    with pytest.raises(FetchError, match=r"a\.bin.*broke off"):
        download(Client(patience=Patience(attempts=1)), file_of(zenodo), tmp_path / "a")
    assert [name.rsplit(".")[-1] for name in left_in(tmp_path)] == ["part"]
    download(client, file_of(zenodo), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert zenodo.bytes_sent("a.bin") < len(BODY) + CHUNK


def test_the_partial_file_of_another_version_is_not_gone_on_with(zenodo, client, tmp_path):
    zenodo.break_after["a.bin"] = [200_000]
    with pytest.raises(FetchError):
        download(Client(patience=Patience(attempts=1)), file_of(zenodo), tmp_path / "a")
    zenodo.files["a.bin"] = BODY[::-1]
    download(client, file_of(zenodo), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY[::-1]
    assert [sent.body for sent in zenodo.log] == [200_000, len(BODY)]


def test_progress_ends_at_the_size_through_breaks_and_a_wrong_checksum(zenodo, client, tmp_path):
    zenodo.break_after["a.bin"] = [100_000]
    zenodo.altered["a.bin"] = 1
    told: list[int] = []
    download(client, file_of(zenodo), tmp_path / "a", told.append)
    assert len(zenodo.log) == 3
    assert sum(told) == len(BODY)


def test_one_wrong_checksum_costs_one_more_download(zenodo, client, tmp_path):
    zenodo.altered["a.bin"] = 1
    download(client, file_of(zenodo), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert [sent.body for sent in zenodo.log] == [len(BODY)] * 2


def test_two_wrong_checksums_are_an_error_that_names_both_and_nothing_is_kept(zenodo, client, tmp_path):
    zenodo.altered["a.bin"] = 99
    file = file_of(zenodo)
    with pytest.raises(ChecksumError, match=rf"a\.bin: md5 expected {file.md5}, actual [0-9a-f]{{32}}, then"):
        download(client, file, tmp_path / "a")
    assert len(zenodo.log) == 2
    assert left_in(tmp_path) == []


def test_a_damaged_file_on_disk_is_fetched_again(zenodo, client, tmp_path):
    (tmp_path / "a").write_bytes(BODY[:-1] + b"?")
    assert download(client, file_of(zenodo), tmp_path / "a") is True
    assert (tmp_path / "a").read_bytes() == BODY


def test_without_ranges_a_broken_file_starts_again(zenodo, client, tmp_path):
    zenodo.no_ranges.add("a.bin")
    zenodo.break_after["a.bin"] = [100_000]
    told: list[int] = []
    download(client, file_of(zenodo), tmp_path / "a", told.append)
    assert (tmp_path / "a").read_bytes() == BODY
    assert sum(told) == len(BODY)


def test_without_ranges_and_always_broken_it_ends_in_an_error(zenodo, client, tmp_path):
    zenodo.no_ranges.add("a.bin")
    zenodo.break_after["a.bin"] = [100_000] * 99
    with pytest.raises(FetchError, match="broke off 4 times"):
        download(client, file_of(zenodo), tmp_path / "a")


def test_a_range_refused_is_its_own_error(zenodo, client):
    zenodo.no_ranges.add("a.bin")
    with pytest.raises(RangesRefusedError, match="was sent the whole file"):
        list(client.stream(file_of(zenodo).url, 10, 20))


def test_a_server_that_recovers_is_waited_for(zenodo, client, tmp_path):
    zenodo.statuses["a.bin"] = [500, 503]
    download(client, file_of(zenodo), tmp_path / "a")
    assert [sent.status for sent in zenodo.log] == [500, 503, 206]


def test_a_server_that_does_not_recover_is_given_up_after_the_set_attempts(zenodo, client, tmp_path):
    zenodo.statuses["a.bin"] = [502] * 99
    with pytest.raises(FetchError, match="HTTP 502 Bad Gateway; 3 attempts"):
        download(client, file_of(zenodo), tmp_path / "a")
    assert len(zenodo.log) == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_to_be_had_is_asked_for_once(zenodo, client, tmp_path, status):
    zenodo.statuses["a.bin"] = [status] * 99
    with pytest.raises(FetchError, match=f"HTTP {status}"):
        download(client, file_of(zenodo), tmp_path / "a")
    assert len(zenodo.log) == 1


def test_the_rate_limits_reset_time_is_waited_for(zenodo, client, tmp_path):
    zenodo.statuses["a.bin"] = [429]
    zenodo.headers["X-RateLimit-Reset"] = f"{time.time() + 0.4:.3f}"
    began = time.monotonic()
    download(client, file_of(zenodo), tmp_path / "a")
    assert 0.3 < time.monotonic() - began < 2
    assert [sent.status for sent in zenodo.log] == [429, 206]


@pytest.mark.parametrize(
    "after", ["90000", formatdate(time.time() + 90000, usegmt=True)], ids=["seconds", "date"]
)
def test_a_wait_of_a_day_is_not_begun(zenodo, client, tmp_path, after):
    zenodo.statuses["a.bin"] = [429]
    zenodo.headers["Retry-After"] = after
    with pytest.raises(FetchError, match=r"wants \d+,\d+ s of waiting"):
        download(client, file_of(zenodo), tmp_path / "a")


def test_a_long_wait_is_announced_and_can_be_ended(zenodo, tmp_path):
    zenodo.statuses["a.bin"] = [429]
    zenodo.headers["Retry-After"] = "600"
    notices: list[str] = []

    def notice(message: str) -> None:
        notices.append(message)
        threading.Timer(0.05, client.close).start()

    client = Client(notice=notice)
    with pytest.raises(FetchError, match="stopped"):
        download(client, file_of(zenodo), tmp_path / "a")
    assert re.search(r"429 .*going on in (600|599) s", notices[0])


def test_no_listening_port_is_no_network_at_once():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(NoNetworkError, match=r"127\.0\.0\.1:\d+ cannot be reached: .*refused"):
            Client().reach(f"http://127.0.0.1:{unused.getsockname()[1]}/x")
    assert time.monotonic() - began < 1


def test_a_network_that_swallows_packets_is_no_network_after_the_set_seconds():
    # Linux drops what arrives while the queue of a listening socket is full
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        began = time.monotonic()
        with pytest.raises(NoNetworkError, match=r"no answer within|timed out"):
            Client(patience=Patience(connect=0.2)).reach(f"http://127.0.0.1:{full.getsockname()[1]}/x")
    assert time.monotonic() - began < 1


def test_a_name_service_that_hangs_is_no_network_after_the_set_seconds(monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hang.wait(5) and [])
    began = time.monotonic()
    with pytest.raises(
        NoNetworkError, match=r"records\.invalid:443 cannot be reached: no answer within 0\.2 s"
    ):
        Client(patience=Patience(connect=0.2)).reach("https://records.invalid/x")
    assert time.monotonic() - began < 1
    hang.set()


def test_behind_a_proxy_it_is_the_proxy_that_must_be_reached(zenodo, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTPS_PROXY", zenodo.base)
    Client().reach("https://records.invalid/x")


@pytest.mark.parametrize("url", ["ftp://zenodo.org/x", "13120879", "http:///x"])
def test_an_address_that_is_none_is_said_to_be_none(url):
    with pytest.raises(FetchError, match="not an http or https address"):
        Client().reach(url)


def test_a_page_instead_of_a_record_is_an_error(zenodo, client):
    with pytest.raises(FetchError, match="something else than JSON"):
        client.json(file_of(zenodo).url)


def test_too_large_for_the_disk_is_said_before_anything_is_sent(zenodo, client, tmp_path):
    zenodo.sizes["a.bin"] = 10**16
    with pytest.raises(FetchError, match=r"a\.bin needs 10,000,000,000,000,000 bytes, [\d,]+ are free"):
        download(client, file_of(zenodo), tmp_path / "a")
    assert zenodo.log == []


def test_a_target_that_cannot_be_written_is_named(zenodo, client, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match=r"file/a: cannot be written: (Not a directory|File exists)"):
        download(client, file_of(zenodo), tmp_path / "file" / "a")
