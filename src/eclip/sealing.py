"""A composed config goes in; sealed folders for untrusted runs, and the keys that stay on the host, come out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eclip.config import check
from eclip.data.pack import locked
from eclip.data.sealed import seal
from eclip.data.source import open_pool, open_test
from eclip.data.splits import folds as split_folds


def seal_folds(config: Any, folds: Sequence[int], out_root: Path) -> list[tuple[int, Path, Path]]:
    """(fold, folder to mount, key) for each fold of the config's data, under `out_root`.

    Sealed once for each pack and cut, and used again. The orders come from the operating
    system's entropy. A fold's folder holds other folds'
    validation pairs, so a run may be shown one of them only.
    """
    settings = check(config)
    pool = open_pool(settings.data, settings.model)
    data = settings.data
    cut = f"{pool.directory.name}-{data.fold_count}-{data.split_seed}"
    parts = split_folds(len(pool), data.fold_count, data.split_seed)
    sealed = []
    for fold in folds:
        folder, key = _places(out_root / cut, f"fold{fold}")
        with locked(out_root / f"{cut}.lock"):
            if not (folder.is_dir() and key.is_file()):
                shutil.rmtree(folder, ignore_errors=True)
                seal(pool, *parts[fold], folder, key, np.random.default_rng(), fold=fold)
        sealed.append((fold, folder, key))
    return sealed


def seal_test(config: Any, out_root: Path) -> tuple[Path, Path]:
    """(folder, key) of the final training: everything to learn from, the test prints to embed. Sealed once."""
    settings = check(config)
    pool = open_pool(settings.data, settings.model)
    test = open_test(settings.data, settings.model, pool)
    cut = f"{pool.directory.name}-{test.directory.name}"
    folder, key = _places(out_root / cut, "test")
    everything, candidates = np.arange(len(pool)), np.arange(len(test))
    with locked(out_root / f"{cut}.lock"):
        if not (folder.is_dir() and key.is_file()):
            shutil.rmtree(folder, ignore_errors=True)
            seal(pool, everything, candidates, folder, key, np.random.default_rng(), fold=None, val_pack=test)
    return folder, key


def _places(out_root: Path, name: str) -> tuple[Path, Path]:
    """Folders that are mounted and keys that are not lie apart."""
    return out_root / name, out_root / "keys" / f"{name}.safetensors"
