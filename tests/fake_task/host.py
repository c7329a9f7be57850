"""What the lab calls for the toy task on the host: check a config, seal the folds, judge embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.fake_task.src.toy.data import draw, split

TEST_PAIRS = 300


def check(config: Any) -> None:
    """Raises ValueError with key, value and what is allowed."""
    if not isinstance(config.optimizer.steps, int) or not 1 <= config.optimizer.steps <= 2000:
        raise ValueError(f"optimizer.steps={config.optimizer.steps}: expected a whole number in [1, 2000]")
    if config.model.activation not in ("tanh", "relu"):
        raise ValueError(f"model.activation={config.model.activation}: expected one of tanh, relu")


def seal(config: Any, folds: Sequence[int], out_root: Path) -> list[tuple[int, Path, Path]]:
    """(fold, folder to mount, key that stays on the host) for each fold; sealed once under `out_root`."""
    random = np.random.default_rng()
    image, text = draw(config.data.seed, config.data.pairs)
    sealed = []
    for fold in folds:
        train, validation = split(config.data.pairs, fold)
        places = out_root / f"fold{fold}", out_root / "keys" / f"fold{fold}.safetensors"
        _write(*places, image, text, train, validation, random)
        sealed.append((fold, *places))
    return sealed


def seal_test(config: Any, out_root: Path) -> tuple[Path, Path]:
    """(folder, key) of the final training: as many pairs as all folds hold, and others to embed."""
    pairs = config.data.pairs
    image, text = draw(config.data.seed, pairs + TEST_PAIRS)
    places = out_root / "test", out_root / "keys" / "test.safetensors"
    everything, others = np.arange(pairs), np.arange(pairs, pairs + TEST_PAIRS)
    _write(*places, image, text, everything, others, np.random.default_rng())
    return places


def _write(
    folder: Path, key: Path, image: Any, text: Any, train: Any, validation: Any, random: np.random.Generator
) -> None:
    if key.is_file():  # written last
        return
    orders = {name: random.permutation(len(validation)) for name in ("image", "text")}
    folder.mkdir(parents=True, exist_ok=True)
    key.parent.mkdir(exist_ok=True)
    save_file({"image": image[train], "text": text[train]}, folder / "train.safetensors")
    views = {"image": image[validation][orders["image"]], "text": text[validation][orders["text"]]}
    save_file(views, folder / "validation.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; the sandbox is somebody else
    save_file(orders, key)


def judge(embeddings: Mapping[str, np.ndarray], key_path: Path) -> dict[str, float]:
    """{"mean_rank": …} from 0, both directions averaged, ties against the run. Raises ValueError."""
    orders = load_file(key_path)
    sides: dict[str, np.ndarray] = {}
    for name, array in embeddings.items():
        side = name.rsplit(".", 1)[-1]
        if side not in orders or side in sides:
            raise ValueError(f"unexpected embeddings {name!r}")
        if array.shape != (len(orders[side]), 8):
            raise ValueError(f"{name}: shape {array.shape}, expected {(len(orders[side]), 8)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: not finite")
        sides[side] = np.empty_like(array)
        sides[side][orders[side]] = array
    if set(sides) != set(orders):
        raise ValueError(f"expected embeddings of image and text, got {sorted(embeddings)}")
    unit = {
        side: array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)
        for side, array in sides.items()
    }
    similarity = unit["image"] @ unit["text"].T
    own = np.diag(similarity)
    forward = (similarity >= own[:, None]).sum(1) - 1
    backward = (similarity >= own[None, :]).sum(0) - 1
    return {"mean_rank": float((forward.mean() + backward.mean()) / 2)}
