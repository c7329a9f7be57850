"""A run directory written by untrusted code enters; checked JSON, bytes and float32 arrays leave.

Everything read here is a claim: it is well-formed and bounded, not true. Use it when the run's processes are
gone. Format source: the safetensors specification (an 8-byte length, a JSON header, the data).
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from agent.sandbox.text import clean_text

__all__ = ["ClaimError", "RunDir", "clean_text", "open_run_dir"]

JSON_BYTES = 65_536
JSON_DEPTH = 8
EMBEDDINGS_BYTES = 256 * 2**20
_HEADER_BYTES = 65_536
_MAX_TENSORS = 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ClaimError(ValueError):
    """What untrusted code wrote is not what it may write. `file` is relative to the run directory."""

    def __init__(self, file: str, reason: str) -> None:
        self.file = clean_text(file, limit=200)
        self.reason = clean_text(reason, limit=500)
        super().__init__(f"{self.file}: {self.reason}")


@contextmanager
def open_run_dir(path: Path) -> Iterator[RunDir]:
    """The run directory at `path`, which the caller made and trusts to be a folder, for the `with` block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield RunDir(descriptor)
    finally:
        os.close(descriptor)


class RunDir:
    """Reads below one open folder. Every method raises ClaimError for what it refuses."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._owner = os.fstat(descriptor).st_uid

    def read_bytes(self, name: str, cap: int) -> bytes:
        """The whole of a regular file with one name and the folder's owner, of at most `cap` bytes."""
        file = self._open(name)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ClaimError(name, "is no regular file")
            if status.st_nlink != 1:
                raise ClaimError(name, f"has {status.st_nlink} names (hard links)")
            if status.st_uid != self._owner:
                raise ClaimError(name, f"belongs to user {status.st_uid}, not {self._owner}")
            if status.st_size > cap:
                raise ClaimError(name, f"has {status.st_size} bytes, allowed are {cap}")
            return _read_up_to(file, name, cap)
        finally:
            os.close(file)

    def read_json(
        self,
        name: str,
        keys: Mapping[str, type | tuple[type, ...]],
        cap: int = JSON_BYTES,
    ) -> dict[str, Any]:
        """A JSON object with exactly `keys`; values of the types given.

        `float` takes integers too and gives a float; a bool is neither an int nor a float. `object` takes
        anything. Strict: UTF-8, at most 8 levels deep, no key twice, no NaN or infinity (1e999 included).
        """
        value = _strict_json(name, self.read_bytes(name, cap))
        if not isinstance(value, dict):
            raise ClaimError(name, "is no JSON object")
        if missing := sorted(keys.keys() - value.keys()):
            raise ClaimError(name, f"lacks {', '.join(missing)}")
        if unknown := sorted(value.keys() - keys.keys()):
            raise ClaimError(name, f"has unknown keys: {', '.join(unknown)}")
        return {key: _typed(name, key, item, keys[key]) for key, item in value.items()}

    def read_embeddings(
        self, name: str = "embeddings.safetensors", cap: int = EMBEDDINGS_BYTES
    ) -> dict[str, np.ndarray]:
        """Tensor name -> float32 array of one or two dimensions, from float32, float16 or bfloat16.

        Names, shapes and finiteness are the judge's to check against what it expects. At most 16 tensors.
        """
        data = self.read_bytes(name, cap)
        if len(data) < 8:
            raise ClaimError(name, "is shorter than a safetensors header")
        length = int.from_bytes(data[:8], "little")
        if length > min(_HEADER_BYTES, len(data) - 8):
            raise ClaimError(name, f"announces a header of {length} bytes in a file of {len(data)}")
        header = _strict_json(name, data[8 : 8 + length])
        if not isinstance(header, dict):
            raise ClaimError(name, "has a header that is no JSON object")
        header.pop("__metadata__", None)
        return _tensors(name, header, memoryview(data)[8 + length :])

    def _open(self, name: str) -> int:
        """Walk down without following a link, opening nothing that could block or act."""
        parts = name.split("/")
        if not all(_NAME.fullmatch(part) for part in parts):
            raise ClaimError(name, "is no name that is read from a run directory")
        folder = os.dup(self._descriptor)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _OPEN | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            # a look before the open, since opening a device node is itself an act
            if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                raise ClaimError(name, "is no regular file")
            return os.open(parts[-1], _OPEN, dir_fd=folder)
        except OSError as error:
            raise ClaimError(name, f"cannot be read: {error.strerror}") from error
        finally:
            os.close(folder)


def _read_up_to(file: int, name: str, cap: int) -> bytes:
    chunks, size = [], 0
    while chunk := os.read(file, min(1 << 20, cap + 1 - size)):
        chunks.append(chunk)
        size += len(chunk)
        if size > cap:
            raise ClaimError(name, f"grew past {cap} bytes while being read")
    return b"".join(chunks)


def _strict_json(file: str, data: bytes) -> Any:
    def refuse(reason: str) -> NoReturn:
        raise ClaimError(file, reason)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        return found if len(found) == len(items) else refuse("has a key twice")

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(f"holds {text[:40]}, which is not finite")

    def integer(text: str) -> int:
        # 64 bits, as databases and array libraries have them; a longer text also costs quadratic time
        value = int(text) if len(text) <= 20 else 2**64
        return value if -(2**63) <= value < 2**63 else refuse(f"holds the oversized integer {text[:40]}")

    try:
        text = data.decode("utf-8")
        _check_depth(file, text)
        value = json.loads(
            text, object_pairs_hook=pairs, parse_float=number, parse_int=integer,
            parse_constant=lambda constant: refuse(f"holds {constant}"),
        )  # fmt: skip
        # escapes can spell half a surrogate pair, which no file, database or terminal takes
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise ClaimError(file, f"is not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise ClaimError(file, f"is not JSON: {error}") from error
    return value


def _check_depth(file: str, text: str) -> None:
    """Before parsing, since the parser recurses; in one pass, since the text may be made to be slow."""
    depth, in_text, escaped = 0, False, False
    for character in text:
        if in_text:
            in_text = escaped or character != '"'
            escaped = character == "\\" and not escaped
            continue
        in_text = character == '"'
        depth += (character in "[{") - (character in "]}")
        if depth > JSON_DEPTH:
            raise ClaimError(file, f"is nested more than {JSON_DEPTH} levels deep")


def _typed(file: str, key: str, value: Any, kinds: type | tuple[type, ...]) -> Any:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if object in kinds or type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    wanted = " or ".join(kind.__name__ for kind in kinds)
    raise ClaimError(file, f"{key} must be {wanted}, not {type(value).__name__}")


def _tensors(file: str, header: Mapping[str, Any], data: memoryview) -> dict[str, np.ndarray]:
    """The tensors must fill `data` from its first byte to its last, without overlap."""
    if not 0 < len(header) <= _MAX_TENSORS:
        raise ClaimError(file, f"has {len(header)} tensors, allowed are 1 to {_MAX_TENSORS}")
    entries = [(name, *_entry(file, name, entry)) for name, entry in header.items()]
    arrays, position = {}, 0
    for name, dtype, shape, begin, end in sorted(entries, key=lambda entry: entry[3:]):
        if begin != position or end > len(data):
            raise ClaimError(file, f"tensor {name} lies at {begin}-{end}, expected from {position}")
        arrays[name] = _float32(data[begin:end], dtype).reshape(shape)
        position = end
    if position != len(data):
        raise ClaimError(file, f"has {len(data) - position} bytes that belong to no tensor")
    return arrays


def _entry(file: str, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not _NAME.fullmatch(name):
        raise ClaimError(file, f"has a tensor with the unusable name {name!r}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ClaimError(file, f"tensor {name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ClaimError(file, f"tensor {name} has dtype {dtype!r}, allowed are {', '.join(_ITEM_BYTES)}")
    if not _naturals(shape) or not 1 <= len(shape) <= 2 or 0 in shape:
        raise ClaimError(file, f"tensor {name} has shape {shape!r}, allowed are 1 or 2 sizes above 0")
    if not _naturals(offsets) or len(offsets) != 2:
        raise ClaimError(file, f"tensor {name} has data_offsets {offsets!r}")
    if offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ClaimError(file, f"tensor {name} of shape {shape} does not fit its bytes {offsets}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _float32(data: memoryview, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f4" if dtype == "F32" else "<f2").astype(np.float32)
