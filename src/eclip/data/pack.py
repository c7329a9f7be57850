"""Annotated prints in, a pack out: images decoded and resized once, texts tokenised once, all memory-mapped.

A pack is a folder of plain .npy arrays, named by a hash of everything that went into it:

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
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from eclip.data.arrays import Array, open_array, write_arrays, write_json
from eclip.data.images import drop_rows, write_images
from eclip.data.odvg import Annotations, DataError, Record, Skipped
from eclip.data.tokenizer import encode, fingerprint, load_tokenizer

# part of every key: raise it when the same sources and settings give another pack
VERSION = 1
ARRAYS = ("images", "captions", "boxes", "box_count", "phrases", "phrase_offsets")


@dataclass(frozen=True)
class Pack:
    """The arrays of a pack, mapped copy-on-write; see the module for their shapes.

    `skipped` is what was left out on the way: lines of the annotations, and images that do not decode.
    `filenames` is empty for the training prints of a sealed fold.
    """

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
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        arrays = {name: open_array(directory / f"{name}.npy") for name in ARRAYS}
        filenames = directory / "filenames.json"
        return cls(
            directory,
            images_NHWC=arrays["images"],
            captions_NL=arrays["captions"],
            boxes_NR4=arrays["boxes"],
            box_count_N=arrays["box_count"],
            phrases_ML=arrays["phrases"],
            phrase_offsets_N1=arrays["phrase_offsets"],
            filenames=tuple(json.loads(filenames.read_text(encoding="utf-8"))) if filenames.is_file() else (),
            vocabulary_size=meta["vocabulary_size"],
            skipped=tuple(Skipped(Path(source), *rest) for source, *rest in meta.get("skipped", [])),
        )


@dataclass(frozen=True)
class _Settings:
    image_size: int
    caption_tokens: int
    phrase_tokens: int
    tokenizer: str


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
    An image that does not decode in full raises DataError, or its print is skipped and counted where the
    annotations say on_error="skip". Processes that build the same pack wait for the first; a build that was
    killed leaves nothing that is taken for a pack.
    """
    settings = _Settings(image_size, caption_tokens, phrase_tokens, tokenizer)
    target = Path(out_dir) / _key(annotations, settings)
    if target.is_dir():
        return Pack.open(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_suffix(".lock")):
        if not target.is_dir():  # another process may have built it while this one waited
            unfinished = target.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a killed build: nobody else has the lock
            unfinished.mkdir()
            try:
                _build(annotations, settings, unfinished, workers, progress)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return Pack.open(target)


def _key(annotations: Annotations, settings: _Settings) -> str:
    """A hash of the settings and of every source: annotations by content, images by name, size and time."""
    known = asdict(settings) | {"version": VERSION, "tokenizer": fingerprint(settings.tokenizer)}
    lines = [json.dumps(known | {"on_error": annotations.on_error}, sort_keys=True)]
    for record in annotations.records:
        state = record.path.stat()
        file = (record.path.name, state.st_size, state.st_mtime_ns)
        lines.append(repr((file, record.width, record.height, record.caption, record.regions)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time in the `with` block, for everything that locks the same `file`."""
    # the kernel lets go of the lock when its holder dies; the file stays, since deleting it would be a race
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(annotations: Annotations, settings: _Settings, out: Path, workers: int, progress: bool) -> None:
    records, images = annotations.records, out / "images.npy"
    failed = write_images(
        records,
        settings.image_size,
        images,
        on_error=annotations.on_error,
        workers=workers,
        progress=progress,
    )
    if len(failed) == len(records):
        raise DataError(records[0].source, 0, "no usable line", "no image could be decoded")
    if failed:
        records = tuple(record for row, record in enumerate(records) if row not in failed)
        drop_rows(images, set(failed))
    texts = (text for r in records for text in (r.caption, *(region.phrase for region in r.regions)))
    tokenizer = load_tokenizer(settings.tokenizer, texts)
    write_arrays(out, _texts(records, tokenizer, settings) | _boxes(records))
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "filenames.json", [record.path.name for record in records])
    skipped = [(str(s.source), s.line, s.reason, s.detail) for s in annotations.skipped]
    skipped += [(str(e.file), e.line, e.reason, e.detail) for _, e in sorted(failed.items())]
    write_json(out / "meta.json", {"vocabulary_size": tokenizer.get_vocab_size(), "skipped": skipped})


def _texts(records: Sequence[Record], tokenizer: Tokenizer, settings: _Settings) -> dict[str, Array]:
    phrases = [[region.phrase for region in record.regions] for record in records]
    return {
        "captions": encode(tokenizer, [record.caption for record in records], settings.caption_tokens),
        "phrases": encode(tokenizer, [p for listed in phrases for p in listed], settings.phrase_tokens),
        "phrase_offsets": np.cumsum([0, *map(len, phrases)], dtype=np.int64),
    }


def _boxes(records: Sequence[Record]) -> dict[str, Array]:
    # a box that several phrases name is one box: a heatmap is a maximum
    boxes = [list(dict.fromkeys(box for region in r.regions for box in region.boxes)) for r in records]
    count_N = np.array([len(listed) for listed in boxes], dtype=np.int32)
    boxes_NR4 = np.zeros((len(records), count_N.max(), 4), dtype=np.float32)
    for row, record, listed in zip(boxes_NR4, records, boxes, strict=True):
        row[: len(listed)] = np.array(listed) / (record.width, record.height, record.width, record.height)
    return {"boxes": boxes_NR4, "box_count": count_N}
