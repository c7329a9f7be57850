"""Hostile result files: what untrusted code may leave behind, and what reading it must refuse."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from agent.claims import ClaimError, open_run_dir
from tests.contract.sandbox import SANDBOXED, open_lab

KEYS = {"status": str, "steps": int, "seconds": float, "metrics": dict, "curve": list}
RESULT = {"status": "completed", "steps": 4, "seconds": 1.5, "metrics": {"loss": 0.1}, "curve": [[1, 2.0]]}


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """On the real file system, as a run's is."""
    for lab in open_lab("caller"):
        yield lab.run_dir


def read_json(run_dir: Path, name: str = "result.json", **keys: type) -> dict:
    with open_run_dir(run_dir) as opened:
        return opened.read_json(name, keys or KEYS)


def refusal(read: Callable[[], object]) -> str:
    began = time.monotonic()
    with pytest.raises(ClaimError) as caught:
        read()
    assert time.monotonic() - began < 1, "a refusal must be quick"
    assert str(caught.value) == f"{caught.value.file}: {caught.value.reason}"
    return caught.value.reason


def test_good_result(run_dir: Path) -> None:
    (run_dir / "result.json").write_text(json.dumps(RESULT))
    assert read_json(run_dir) == RESULT


def test_file_in_a_folder_below(run_dir: Path) -> None:
    (run_dir / "deep").mkdir()
    (run_dir / "deep" / "result.json").write_text(json.dumps(RESULT))
    assert read_json(run_dir, "deep/result.json") == RESULT


def symlink(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def hard_link(path: Path) -> None:
    path.write_text("{}")
    os.link(path, path.parent / "other")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 36)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (symlink, "is no regular file"),
        (dangling, "is no regular file"),
        (hard_link, "has 2 names"),
        (os.mkfifo, "is no regular file"),
        (unix_socket, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (sparse, "has 68719476736 bytes, allowed are 65536"),
    ],
)
def test_only_plain_files_are_read(run_dir: Path, plant: Callable[[Path], None], reason: str) -> None:
    plant(run_dir / "result.json")
    assert reason in refusal(lambda: read_json(run_dir))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes and give files away")
def test_devices_and_others_files_are_not_read(run_dir: Path) -> None:
    os.mknod(run_dir / "result.json", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert "is no regular file" in refusal(lambda: read_json(run_dir))
    (run_dir / "other.json").write_text("{}")
    os.chown(run_dir / "other.json", 61_234, 61_234)
    assert "belongs to user 61234" in refusal(lambda: read_json(run_dir, "other.json"))


def test_folder_on_the_way_may_be_no_link(run_dir: Path) -> None:
    (run_dir.parent / "elsewhere").mkdir()
    (run_dir.parent / "elsewhere" / "result.json").write_text(json.dumps(RESULT))
    (run_dir / "deep").symlink_to(run_dir.parent / "elsewhere")
    assert "cannot be read" in refusal(lambda: read_json(run_dir, "deep/result.json"))


def test_run_directory_itself_may_be_no_link(run_dir: Path) -> None:
    (run_dir.parent / "link").symlink_to(run_dir)
    with pytest.raises(OSError, match=r"directory|symbolic"), open_run_dir(run_dir.parent / "link"):
        pass


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a//b", "x\0y", "-rf", "ä"]
)
def test_names_stay_below(run_dir: Path, name: str) -> None:
    assert "is no name" in refusal(lambda: read_json(run_dir, name))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "is no JSON object"),
        (b'"text"', "is no JSON object"),
        (b"null", "is no JSON object"),
        (b'{"score": NaN}', "holds NaN"),
        (b'{"score": Infinity}', "holds Infinity"),
        (b'{"score": -Infinity}', "holds -Infinity"),
        (b'{"score": 1e999}', "not finite"),
        (b'{"score": -1e999}', "not finite"),
        (b'{"score": 1' + b"0" * 5000 + b"}", "oversized integer"),
        (b'{"score": 9223372036854775808}', "oversized integer"),
        (b'{"score": 1, "score": 2}', "has a key twice"),
        (b'{"score": {"a": 1, "a": 2}}', "has a key twice"),
        (b'{"score": "\xff"}', "is not UTF-8"),
        ('{"score": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'\xef\xbb\xbf{"score": 1}', "is not JSON"),
        (b'{"score": "\\ud800"}', "is not UTF-8"),
        (b'{"score": "\x1b[2J"}', "is not JSON"),
        (b'{"score": true}', "score must be float, not bool"),
        (b'{"score": null}', "score must be float, not NoneType"),
        (b'{"score": "1.0"}', "score must be float, not str"),
        (b"{}", "lacks score"),
        (b'{"score": 1, "bonus": 2}', "unknown keys: bonus"),
        (b'{"score": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 8"),
        (b"[" * 60_000, "nested more than 8"),
        (b'{"a":' * 10_000, "nested more than 8"),
        (b'{"score": "' + b'\\"' * 30_000, "is not JSON"),
        (b'{"score": ' + b" " * 70_000 + b"1}", "allowed are 65536"),
        (pickle.dumps({"score": 1.0}), "is not UTF-8"),
    ],
)
def test_json_is_strict(run_dir: Path, text: bytes, reason: str) -> None:
    (run_dir / "result.json").write_bytes(text)
    assert reason in refusal(lambda: read_json(run_dir, score=float))


def test_json_numbers(run_dir: Path) -> None:
    (run_dir / "result.json").write_text(
        '{"score": 3, "count": 3, "any": [1, true], "text": "[[[[[[[[[[\\"{{{{{{{{{{"}'
    )
    result = read_json(run_dir, score=float, count=int, any=object, text=str)
    assert (result["score"], result["count"], result["any"]) == (3.0, 3, [1, True])
    assert (type(result["score"]), type(result["count"])) == (float, int)


def test_json_alternatives(run_dir: Path) -> None:
    (run_dir / "result.json").write_text('{"commit": null}')
    with open_run_dir(run_dir) as opened:
        assert opened.read_json("result.json", {"commit": (str, type(None))}) == {"commit": None}
        assert "commit must be str" in refusal(lambda: opened.read_json("result.json", {"commit": str}))


TEXT = st.text(max_size=20)
NUMBER = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENT = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENT.filter(lambda value: _depth(value) <= 7))
def test_every_plain_document_survives(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    run_dir = tmp_path_factory.getbasetemp()
    (run_dir / "any.json").write_text(json.dumps({"value": value}, ensure_ascii=False), encoding="utf-8")
    with open_run_dir(run_dir) as opened:
        assert opened.read_json("any.json", {"value": object}) == {"value": value}


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (isinstance(value, dict | list)) + max(map(_depth, inner), default=0)


def read_embeddings(run_dir: Path, data: bytes, cap: int = 1 << 20) -> dict[str, np.ndarray]:
    (run_dir / "embeddings.safetensors").write_bytes(data)
    with open_run_dir(run_dir) as opened:
        return opened.read_embeddings(cap=cap)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_embeddings_as_the_library_writes_them(run_dir: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    written = {"text": rng.normal(size=(5, 3)).astype(dtype), "image": rng.normal(size=(4, 3)).astype(dtype)}
    read = read_embeddings(run_dir, save(written, metadata={"anything": "goes"}))
    assert read.keys() == written.keys()
    for name, array in read.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, written[name].astype(np.float32))
        array[0] = 0  # the caller's own


def test_bfloat16(run_dir: Path) -> None:
    values = np.array([[1.0, -2.5, 0.15625]], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    np.testing.assert_array_equal(
        read_embeddings(run_dir, tensors(upper, image=("BF16", [1, 3], [0, 6])))["image"], values
    )


def tensors(data: bytes, /, **entries: tuple[object, object, object]) -> bytes:
    header = {
        name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True))
        for name, entry in entries.items()
    }
    return framed(json.dumps(header).encode(), data)


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


EIGHT = b"\0" * 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter than"),
        (b"\x80\x04\x95", "shorter than"),
        (pickle.dumps(np.zeros(100)), "announces a header"),
        (struct.pack("<Q", 2**63) + b"{}", "announces a header"),
        (framed(b" " * 70_000), "announces a header"),
        (framed(b"{"), "is not JSON"),
        (framed(b"[]"), "no JSON object"),
        (framed(b"{}"), "has 0 tensors"),
        (framed(b'{"__metadata__": {}}'), "has 0 tensors"),
        (framed(b'{"a": 1, "a": 2}'), "key twice"),
        (framed(b'{"a": 1}'), "not described by"),
        (framed(b"[" * 1000), "nested more than"),
        (
            tensors(EIGHT, a=("F32", [2], [0, 8]), b=("F32", [2], [0, 8])),
            "tensor b lies at 0-8, expected from 8",
        ),
        (tensors(EIGHT, a=("F32", [1], [4, 8])), "expected from 0"),
        (tensors(EIGHT, a=("F32", [1], [0, 4])), "4 bytes that belong to no tensor"),
        (tensors(EIGHT, a=("F32", [4], [0, 16])), "lies at 0-16"),
        (tensors(EIGHT, a=("F32", [2], [8, 0])), "does not fit"),
        (tensors(EIGHT, a=("F32", [3], [0, 8])), "does not fit"),
        (tensors(EIGHT, a=("F64", [1], [0, 8])), "dtype 'F64'"),
        (tensors(EIGHT, a=("I64", [1], [0, 8])), "dtype 'I64'"),
        (tensors(EIGHT, a=(["F32"], [2], [0, 8])), "dtype ['F32']"),
        (tensors(EIGHT, a=("F32", [-2], [0, 8])), "has shape [-2]"),
        (tensors(EIGHT, a=("F32", [True, 2], [0, 8])), "has shape [True, 2]"),
        (tensors(EIGHT, a=("F32", [2.0], [0, 8])), "has shape [2.0]"),
        (tensors(EIGHT, a=("F32", [1, 1, 2], [0, 8])), "allowed are 1 or 2"),
        (tensors(EIGHT, a=("F32", [], [0, 4])), "allowed are 1 or 2"),
        (tensors(b"", a=("F32", [0, 2**62], [0, 0])), "sizes above 0"),
        (tensors(EIGHT, a=("F32", [2**62, 4], [0, 8])), "does not fit"),
        (tensors(EIGHT, a=("F32", [2], [0, 8, 9])), "has data_offsets"),
        (tensors(EIGHT, a=("F32", [2], ["0", 8])), "has data_offsets"),
        (tensors(EIGHT, **{"../a": ("F32", [2], [0, 8])}), "unusable name"),
        (tensors(EIGHT, **{"a\n": ("F32", [2], [0, 8])}), "unusable name"),
        (
            tensors(b"\0" * 68, **{f"t{i}": ("F32", [1], [4 * i, 4 * i + 4]) for i in range(17)}),
            "has 17 tensors",
        ),
        (save({"a": np.zeros(300_000, dtype=np.float32)}), "allowed are 1048576"),
        (save({"a": np.zeros(2, dtype=np.int32)}), "dtype 'I32'"),
    ],
)
def test_bad_embeddings_are_refused(run_dir: Path, data: bytes, reason: str) -> None:
    assert reason in refusal(lambda: read_embeddings(run_dir, data))


def test_pickle_is_never_executed(run_dir: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (run_dir.parent / "exploded",)

    data = pickle.dumps(Bomb())
    (run_dir / "result.json").write_bytes(data)
    refusal(lambda: read_json(run_dir))
    refusal(lambda: read_embeddings(run_dir, data))
    assert not (run_dir.parent / "exploded").exists()


def refusal_of(run_dir: Path, name: str) -> str:
    return refusal(lambda: read_json(run_dir, name, score=float))


@pytest.mark.parametrize("kind", SANDBOXED)
def test_what_a_hostile_run_really_leaves(kind: str) -> None:
    """Planted by attack code from inside a sandbox, read by the host afterwards."""
    for lab in open_lab(kind):
        ended = lab.attack("""
            os.symlink("/etc/shadow", "result.json")
            os.symlink("/proc/self/environ", "config.yaml")
            os.mkfifo("embeddings.safetensors")
            open("train.log", "w").write("log")
            os.link("train.log", "again.log")
            open("huge.json", "w").truncate(1 << 24)
            open("deep.json", "w").write("[" * 20000)
            open("nan.json", "w").write('{"score": NaN}')
            os.makedirs("/".join("d" * 40))
            tell(planted=sorted(os.listdir(".")))
        """)
        assert len(ended.said["planted"]) == 9
        refused = {name: refusal_of(ended.run_dir, name) for name in ended.said["planted"]}
    assert refused["result.json"] == refused["config.yaml"] == refused["d"] == "is no regular file"
    assert refused["embeddings.safetensors"] == "is no regular file"
    assert refused["train.log"] == refused["again.log"] == "has 2 names (hard links)"
    assert "allowed are 65536" in refused["huge.json"]
    assert "nested more than 8" in refused["deep.json"]
    assert refused["nan.json"] == "holds NaN"


def test_refusals_are_safe_to_print(run_dir: Path) -> None:
    (run_dir / "result.json").write_text('{"\\u001b[2Jkey\\u202e": 1}')
    assert refusal(lambda: read_json(run_dir, score=float)) == "lacks score"
    (run_dir / "result.json").write_text('{"score": 1, "\\u001b[2Jkey\\u202e\\r": 1}')
    assert refusal(lambda: read_json(run_dir, score=float)) == "has unknown keys: key\n"
    assert len(refusal(lambda: read_json(run_dir, "\x1b]0;x\x07" + "n" * 9999))) < 600
