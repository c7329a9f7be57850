"""A fold in, a folder to be shown to untrusted code out: training pairs, and candidates without pairing.

The folder holds the training split as a pack, and the candidates' images and captions apart, each side in a
secret order. Both orders go to a key outside it; the judge undoes them with `unseal`. This module needs
no torch.

A folder keeps its secret only alone: the training pairs of one fold are the candidates of another, so a run
must be shown one fold's folder, and a place to write to that no run of another fold can read. Nor must a
run be able to make the prints again: seal prints drawn from a seed that it does not know.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from eclip.data.arrays import Array, create_array, open_array, write_arrays, write_json
from eclip.data.pack import ARRAYS, Pack
from eclip.data.splits import FoldData, Index, Orders, check_same_vocabulary, trim

# the only files of a sealed folder
FILES = (
    *("meta.json", "val_captions.npy", "val_images.npy", "train/meta.json", "train/tokenizer.json"),
    *(f"train/{name}.npy" for name in ARRAYS),
)
# rows copied at once
CHUNK = 256


def seal(
    pack: Pack,
    train_index: Index,
    val_index: Index,
    out_dir: Path,
    key_path: Path,
    rng: np.random.Generator,
    *,
    fold: int | None = None,
    val_pack: Pack | None = None,
) -> Orders:
    """Write the sealed folder `out_dir`, and its key to `key_path`, which must lie outside it.

    `val_index` points into `val_pack` (a test split packed with the same tokenizer), by default into `pack`.
    `rng` must be secret: seed it from the operating system. `out_dir` appears complete or not at all.
    """
    if Path(key_path).resolve().is_relative_to(Path(out_dir).resolve()):
        raise ValueError(f"the key {key_path} would lie inside the sealed folder {out_dir}")
    val_pack = pack if val_pack is None else val_pack
    check_same_vocabulary(pack, val_pack)
    if val_pack is pack and np.intersect1d(train_index, val_index).size:
        raise ValueError("train_index and val_index share prints")
    if Path(out_dir).exists():
        raise FileExistsError(f"{out_dir} is there already: a new key would not fit it")
    orders = Orders.draw(len(val_index), rng)
    unfinished = Path(out_dir).with_name(Path(out_dir).name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "train").mkdir(parents=True)
    _write_train(pack, train_index, unfinished / "train")
    # each side is written front to back in its secret order: no trace of another order on disk
    _copy_rows(val_pack.images_NHWC, val_index[orders.image_N], unfinished / "val_images.npy")
    captions_NL = trim(np.take(val_pack.captions_NL, val_index[orders.text_N], axis=0))
    write_arrays(unfinished, {"val_captions": captions_NL})
    write_json(unfinished / "meta.json", {"fold": fold})
    for path in (*unfinished.rglob("*"), unfinished):
        os.utime(path, (0, 0))
    _write_key(orders, Path(key_path))
    unfinished.rename(out_dir)
    return orders


def open_sealed(directory: Path) -> FoldData:
    """What a run of a sealed fold sees: the same as an open fold, without the orders."""
    directory = Path(directory)
    meta = json.loads((directory / "meta.json").read_text())
    train = Pack.open(directory / "train")
    images_NHWC, captions_NL = (open_array(directory / f"val_{side}.npy") for side in ("images", "captions"))
    return FoldData(train, np.arange(len(train)), images_NHWC, captions_NL, meta["fold"], orders=None)


def read_key(path: Path) -> Orders:
    key = load_file(path)
    return Orders(key["image_order"], key["text_order"])


def unseal(image_ND: Array, text_ND: Array, key: Orders) -> tuple[Array, Array]:
    """Both sides in the candidates' true order, so that row i of one belongs to row i of the other.

    Raises ValueError when a side has not one row for each candidate.
    """
    sides = []
    for name, side_ND, order_N in (("image", image_ND, key.image_N), ("text", text_ND, key.text_N)):
        if side_ND.ndim != 2 or len(side_ND) != len(order_N):
            raise ValueError(f"{name} embeddings of shape {side_ND.shape}: expected {len(order_N)} rows")
        true_ND = np.empty_like(side_ND)
        true_ND[order_N] = side_ND
        sides.append(true_ND)
    return sides[0], sides[1]


def _write_key(orders: Orders, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # its owner and mode must be ours from the first byte
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(save({"image_order": orders.image_N, "text_order": orders.text_N}))


def _write_train(pack: Pack, index: Index, out: Path) -> None:
    """The pack of these prints alone, without names, sources or anything else about the others."""
    _copy_rows(pack.images_NHWC, index, out / "images.npy")
    starts, ends = pack.phrase_offsets_N1[index], pack.phrase_offsets_N1[index + 1]
    owned = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    count_N = pack.box_count_N[index]
    write_arrays(
        out,
        {
            "captions": pack.captions_NL[index],
            "boxes": pack.boxes_NR4[index][:, : count_N.max()],
            "box_count": count_N,
            "phrases": pack.phrases_ML[owned],
            "phrase_offsets": np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64),
        },
    )
    shutil.copyfile(pack.tokenizer_path, out / "tokenizer.json")
    write_json(out / "meta.json", {"vocabulary_size": pack.vocabulary_size})


def _copy_rows(source: Array, index: Index, file: Path) -> None:
    target = create_array(file, (len(index), *source.shape[1:]), source.dtype)
    for start in range(0, len(index), CHUNK):
        rows = slice(start, start + CHUNK)
        target[rows] = source[index[rows]]
