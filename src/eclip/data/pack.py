"""Annotated prints in, a pack out: images decoded and resized once, texts tokenised once, all memory-mapped.

A pack is a folder of plain .npy arrays named by a hash of everything that went into it:

    images.npy          uint8   N S S 3    squashed to a square, bicubic
    captions.npy        int32   N L        0 = padding
    boxes.npy           float32 N R 4      x1 y1 x2 y2 as shares of the print's sides, padded with 0
    box_count.npy       int32   N
    phrases.npy         int32   M L        the prints' phrases, one after the other
    phrase_offsets.npy  int64   N+1        print n owns phrases offsets[n] to offsets[n + 1]
    tokenizer.json, meta.json, filenames.json
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from eclip.data.odvg import Annotations, DataError, Record, Skipped
from eclip.data.tokenizer import encode, find_tokenizer, load_tokenizer

# part of every key: raise it when the same sources would give another pack
VERSION = 1
Arrays = dict[str, npt.NDArray[Any]]
ARRAYS = ("images", "captions", "boxes", "box_count", "phrases", "phrase_offsets")


@dataclass(frozen=True)
class Pack:
    """The arrays of a pack, mapped privately: what is written to them never reaches the files."""

    directory: Path
    images_NHWC: npt.NDArray[np.uint8]
    captions_NL: npt.NDArray[np.int32]
    boxes_NR4: npt.NDArray[np.float32]
    box_count_N: npt.NDArray[np.int32]
    phrases_ML: npt.NDArray[np.int32]
    phrase_offsets_N1: npt.NDArray[np.int64]
    filenames: tuple[str, ...]
    vocabulary_size: int
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.images_NHWC)

    @property
    def image_size(self) -> int:
        return int(self.images_NHWC.shape[1])

    @property
    def tokenizer_path(self) -> Path:
        return self.directory / "tokenizer.json"

    @classmethod
    def open(cls, directory: Path) -> Pack:
        """Map the pack in `directory`; nothing is read yet. Raises FileNotFoundError when it is not whole."""
        files = (*(f"{name}.npy" for name in ARRAYS), "tokenizer.json", "meta.json")
        if missing := [name for name in files if not (directory / name).is_file()]:
            raise FileNotFoundError(f"{directory} is no whole pack, delete it: {missing[0]} is missing")
        meta = json.loads((directory / "meta.json").read_text())
        filenames = directory / "filenames.json"
        arrays = {name: open_array(directory / f"{name}.npy") for name in ARRAYS}
        return cls(
            directory,
            images_NHWC=arrays["images"],
            captions_NL=arrays["captions"],
            boxes_NR4=arrays["boxes"],
            box_count_N=arrays["box_count"],
            phrases_ML=arrays["phrases"],
            phrase_offsets_N1=arrays["phrase_offsets"],
            filenames=tuple(json.loads(filenames.read_text())) if filenames.is_file() else (),
            vocabulary_size=meta["vocabulary_size"],
            skipped=tuple(Skipped(Path(source), *rest) for source, *rest in meta.get("skipped", [])),
        )


def build_pack(
    annotations: Annotations,
    *,
    image_size: int,
    caption_tokens: int,
    phrase_tokens: int,
    tokenizer: str,
    out_dir: Path,
    workers: int,
    progress: bool = True,
) -> Pack:
    """The pack of these prints under `out_dir`, built unless it is there already.

    `tokenizer`: see `tokenizer.load_tokenizer`; for a test split, the training pack's `tokenizer_path`.
    An image that cannot be decoded in full raises DataError, or its print is skipped and counted where the
    annotations say on_error="skip". Processes that build the same pack wait for the first; a build that was
    killed leaves nothing that is taken for a pack.
    """
    settings = {
        "version": VERSION,
        "image_size": image_size,
        "caption_tokens": caption_tokens,
        "phrase_tokens": phrase_tokens,
        "tokenizer": _fingerprint(tokenizer),
        "on_error": annotations.on_error,
    }
    target = Path(out_dir) / _key(settings, annotations.records)
    if target.is_dir():
        return Pack.open(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if not target.is_dir():  # another process may have built it while this one waited
            unfinished = target.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a killed build: nobody else has the lock
            unfinished.mkdir()
            try:
                _build(annotations, settings, tokenizer, unfinished, workers, progress)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return Pack.open(target)


def _key(settings: dict[str, Any], records: Sequence[Record]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for record in records:
        state = record.path.stat()
        file = (record.path.name, state.st_size, state.st_mtime_ns)
        digest.update(repr((file, record.width, record.height, record.caption, record.regions)).encode())
    return digest.hexdigest()[:16]


def _fingerprint(tokenizer: str) -> str:
    """What tells two tokenizers apart: the content of a local one, the name of another."""
    if tokenizer == "wordpiece":
        return tokenizer
    path = find_tokenizer(tokenizer)
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    content = [file.read_bytes() for file in files if file.name in ("tokenizer.json", "vocab.txt", path.name)]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    # the kernel lets go of the lock when its holder dies; the file stays, since deleting it would be a race
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(
    annotations: Annotations, settings: dict[str, Any], name: str, out: Path, workers: int, progress: bool
) -> None:
    failed = _write_images(annotations.records, settings["image_size"], out / "images.npy", workers, progress)
    if failed and annotations.on_error == "raise":
        raise failed[min(failed)]
    records = [record for row, record in enumerate(annotations.records) if row not in failed]
    if not records:
        raise DataError(annotations.records[0].source, 0, "no usable line", "no image could be decoded")
    if failed:
        _drop_rows(out / "images.npy", failed)
    skipped = [Skipped(e.file, e.line, e.reason, e.detail) for _, e in sorted(failed.items())]
    texts = (text for r in records for text in (r.caption, *(region.phrase for region in r.regions)))
    tokenizer = load_tokenizer(name, texts)
    write_arrays(out, _texts(records, tokenizer, settings) | _boxes(records))
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "filenames.json", [record.path.name for record in records])
    reasons = [(str(s.source), s.line, s.reason, s.detail) for s in (*annotations.skipped, *skipped)]
    found = {"vocabulary_size": tokenizer.get_vocab_size(), "skipped": reasons}
    write_json(out / "meta.json", settings | found)


def open_array(file: Path) -> npt.NDArray[Any]:
    # copy-on-write: torch wraps such a map without a copy, and no write reaches the file
    return np.asarray(np.load(file, mmap_mode="c"))


def write_arrays(out: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", array)


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value))


def _texts(records: Sequence[Record], tokenizer: Tokenizer, settings: dict[str, Any]) -> Arrays:
    phrases = [[region.phrase for region in record.regions] for record in records]
    return {
        "captions": encode(tokenizer, [record.caption for record in records], settings["caption_tokens"]),
        "phrases": encode(tokenizer, [p for listed in phrases for p in listed], settings["phrase_tokens"]),
        "phrase_offsets": np.cumsum([0, *map(len, phrases)], dtype=np.int64),
    }


def _boxes(records: Sequence[Record]) -> Arrays:
    # a box named by several phrases is one box: a heatmap is a maximum
    boxes = [list(dict.fromkeys(b for region in r.regions for b in region.boxes)) for r in records]
    count_N = np.array([len(listed) for listed in boxes], dtype=np.int32)
    boxes_NR4 = np.zeros((len(records), count_N.max(), 4), dtype=np.float32)
    for row, record, listed in zip(boxes_NR4, records, boxes, strict=True):
        row[: len(listed)] = np.array(listed) / (record.width, record.height, record.width, record.height)
    return {"boxes": boxes_NR4, "box_count": count_N}


def create_array(file: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A new .npy file, mapped for writing. Its room is taken at once: a full disk is an error here, where a
    write to a map without room would kill the process."""
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with file.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return array


def _write_images(
    records: Sequence[Record], size: int, file: Path, workers: int, progress: bool
) -> dict[int, DataError]:
    """Decode all prints into `file`; the rows that failed, each with its error.

    Threads, not processes: Pillow decodes and resizes outside the interpreter's lock, and threads neither
    fork a process that holds torch's threads nor import the main program again.
    """
    images_NHWC = create_array(file, (len(records), size, size, 3), np.uint8)
    failed: dict[int, DataError] = {}
    columns = (TextColumn("packing prints"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress)
    with ThreadPoolExecutor(max(1, workers)) as pool, bar:
        decoded = pool.map(partial(_write_image, images_NHWC, records), range(len(records)))
        for row, error in enumerate(bar.track(decoded, total=len(records))):
            if error is not None:
                failed[row] = error
    return failed


def _write_image(images_NHWC: npt.NDArray[np.uint8], records: Sequence[Record], row: int) -> DataError | None:
    record = records[row]
    try:
        images_NHWC[row] = decode(record.path, images_NHWC.shape[1])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return DataError(record.source, record.line, "unreadable image", f"{record.path}: {error}")
    return None


def decode(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """image_HWC, `size` pixels square. Raises what Pillow raises; a truncated file is an error."""
    with Image.open(path) as image:
        # JPEG only: decode at 1/2, 1/4 or 1/8 as long as twice the wanted size remains
        image.draft("RGB", (2 * size, 2 * size))
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def _drop_rows(file: Path, rows: dict[int, DataError]) -> None:
    images_NHWC = np.load(file, mmap_mode="r")
    kept = [row for row in range(len(images_NHWC)) if row not in rows]
    smaller = create_array(file.with_suffix(".kept"), (len(kept), *images_NHWC.shape[1:]), np.uint8)
    for new, old in enumerate(kept):
        smaller[new] = images_NHWC[old]
    file.with_suffix(".kept").rename(file)
