"""Pretrained files without a network, from the cache, and from a hub that a local HTTP server plays."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eclip.models.hub import WeightsUnavailable, answers, is_cached, local_path, snapshot

FILES = {"config.json": b'{"a": 1}', "model.safetensors": b"weights"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download of one small repository asks for."""

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if self.path.startswith("/team/model/resolve/") and name in FILES:
            body = FILES[name]
        else:
            self.send_response(404)
            self.send_header(
                "X-Error-Code", "EntryNotFound" if "team/model/" in self.path else "RepoNotFound"
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter: the hub's client reads its environment when it is imported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


FETCH = """
from eclip.models.hub import snapshot
directory = snapshot("team/model", ["config.json", "model.safetensors"], "ADVICE")
print(directory, (directory / "model.safetensors").read_bytes())
"""


def test_files_are_downloaded_once_and_then_cached(hub_url: str, tmp_path: Path) -> None:
    first = python(FETCH, HF_HOME=str(tmp_path), HF_ENDPOINT=hub_url)
    assert "b'weights'" in first.stdout, first.stderr
    gone = f"http://127.0.0.1:{closed_port()}"
    assert python(FETCH, HF_HOME=str(tmp_path), HF_ENDPOINT=gone).stdout == first.stdout
    lacking = FETCH.replace("model.safetensors", "pytorch_model.bin")
    assert "WeightsUnavailable: team/model could not be downloaded" in (
        python(lacking, HF_HOME=str(tmp_path), HF_ENDPOINT=hub_url).stderr
    )


def test_a_repository_that_does_not_exist_is_named(hub_url: str, tmp_path: Path) -> None:
    missing = FETCH.replace("team/model", "team/typo")
    error = python(missing, HF_HOME=str(tmp_path), HF_ENDPOINT=hub_url).stderr
    assert "WeightsUnavailable: team/typo could not be downloaded" in error
    assert "ADVICE" in error


IMPATIENT = """
import sys, time
from eclip.models.encoders import DistilBertText, TimmImage
for encoder in (DistilBertText, TimmImage):
    start = time.perf_counter()
    try:
        encoder()
    except RuntimeError as error:
        print(error)
    print("SECONDS", time.perf_counter() - start)
print("HEAVY", sorted(set(sys.modules) & {"timm", "transformers"}))
"""


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_error_comes_at_once_and_helps(offline: bool, tmp_path: Path) -> None:
    gone = f"http://127.0.0.1:{closed_port()}"
    environment = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_ENDPOINT": gone}
    output = python(IMPATIENT, HF_HOME=str(tmp_path), **environment).stdout
    text, image, _ = output.split("SECONDS ")
    assert "'hf download distilbert/distilbert-base-uncased'" in text
    assert "TimmImage(name='vit_small_patch16_224')" in image
    for message in (text, image):
        assert "model.pretrained=false" in message
        assert ("HF_HUB_OFFLINE is set" if offline else f"{gone} cannot be reached") in message
    assert "HEAVY []" in output
    assert all(float(part.split()[0]) < 1 for part in output.split("SECONDS ")[1:])


def test_reachability_is_known_within_its_time(hub_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert answers(hub_url)
    assert not answers(f"http://127.0.0.1:{closed_port()}")
    # a host whose queue is full neither accepts nor refuses
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        held = [socket.create_connection(silent.getsockname(), timeout=1)]
        start = time.perf_counter()
        assert not answers(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
        assert time.perf_counter() - start < 0.6
        held[0].close()


def test_a_name_that_is_never_resolved_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    released = threading.Event()

    def hang(*_: object, **__: object) -> list:
        released.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.perf_counter()
    assert not answers("http://hub.invalid", seconds=0.1)
    assert time.perf_counter() - start < 1
    released.set()


def test_a_proxy_is_asked_in_the_hosts_place(hub_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", hub_url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert answers("https://hub.invalid")
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed_port()}")
    assert not answers("https://hub.invalid")
    monkeypatch.setenv("https_proxy", hub_url)
    monkeypatch.setenv("no_proxy", "hub.invalid")
    assert not answers("https://hub.invalid")


def test_caches_are_found_by_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not is_cached("timm/vit_small")
    folder = tmp_path / "models--timm--vit_small.augreg" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    assert not is_cached("timm/vit_small")
    (folder / "model.safetensors").write_bytes(b"weights")
    assert is_cached("timm/vit_small")
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    assert snapshot("timm/vit_small.augreg", ["model.safetensors"], "") == folder
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(WeightsUnavailable, match="not in the local cache"):
        snapshot("timm/vit_small.augreg", ["model.safetensors", "config.json"], "")


def test_local_paths_are_checked_first(tmp_path: Path) -> None:
    assert local_path(None, "model.text.weights") is None
    assert local_path(tmp_path, "model.text.weights") == tmp_path
    with pytest.raises(FileNotFoundError, match=r"model\.text\.weights=\./nowhere: no such file"):
        local_path("./nowhere", "model.text.weights")
