"""A composed config goes in; sealed folders for untrusted runs, and the keys that stay on the host, come out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eclip.config import Model, check
from eclip.data.pack import Pack, locked
from eclip.data.sealed import seal
from eclip.data.source import open_pool, open_test
from eclip.data.splits import Index
from eclip.data.splits import folds as split_folds
from eclip.models.provide import WEIGHTS, provide, wanted


def seal_folds(config: Any, folds: Sequence[int], out_root: Path) -> list[tuple[int, Path, Path]]:
    """(fold, folder to mount, key) for each fold of the config's data, under `out_root`.

    Sealed once for each pack and cut, and used again. The orders come from the operating system's entropy. A
    fold's folder holds other folds' validation pairs, so a run may be shown one of them only; and the
    pretrained weights, where the model has any. ConfigError where these are not to be had.
    """
    settings = check(config)
    data, pool = settings.data, open_pool(settings.data, settings.model)
    parts = split_folds(len(pool), data.fold_count, data.split_seed)
    cut = (
        out_root / f"{pool.directory.name}-{data.fold_count}-{data.split_seed}{_weights_mark(settings.model)}"
    )
    made = [(fold, *_sealed_once(cut, f"fold{fold}", pool, *parts[fold], fold=fold)) for fold in folds]
    for _, folder, _ in made:
        _provide_once(cut, settings.model, folder / WEIGHTS)
    return made


def seal_test(config: Any, out_root: Path) -> tuple[Path, Path]:
    """(folder, key) of the final training: everything to learn from, the test prints to embed."""
    settings = check(config)
    pool = open_pool(settings.data, settings.model)
    test = open_test(settings.data, settings.model, pool)
    everything, candidates = np.arange(len(pool)), np.arange(len(test))
    cut = out_root / f"{pool.directory.name}-{test.directory.name}{_weights_mark(settings.model)}"
    folder, key = _sealed_once(cut, "test", pool, everything, candidates, val_pack=test)
    _provide_once(cut, settings.model, folder / WEIGHTS)
    return folder, key


def _weights_mark(model: Model) -> str:
    """What keeps folders with other pretrained weights apart; empty where there are none."""
    names = wanted(model)
    return "" if names is None else "-" + hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]


def _provide_once(cut: Path, model: Model, folder: Path) -> None:
    """The pretrained weights beside a sealed fold's data: a run has no network and no cache."""
    names = wanted(model)
    with locked(cut.with_suffix(".lock")):
        if names is not None and not folder.is_dir():
            provide(names, folder)


def _sealed_once(
    cut: Path,
    name: str,
    pool: Pack,
    train_index: Index,
    val_index: Index,
    *,
    fold: int | None = None,
    val_pack: Pack | None = None,
) -> tuple[Path, Path]:
    """The folder that is mounted and the key that is not lie apart; what is there whole is used again."""
    folder, key = cut / name, cut / "keys" / f"{name}.safetensors"
    cut.parent.mkdir(parents=True, exist_ok=True)
    with locked(cut.with_suffix(".lock")):
        if not (folder.is_dir() and key.is_file()):
            shutil.rmtree(folder, ignore_errors=True)
            rng = np.random.default_rng()
            seal(pool, train_index, val_index, folder, key, rng, fold=fold, val_pack=val_pack)
    return folder, key
