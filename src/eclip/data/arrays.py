"""Numpy arrays and JSON to and from the files of a pack."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def open_array(file: Path) -> Array:
    """The .npy file, mapped. Copy-on-write: torch wraps it without a copy, and no write reaches the file."""
    return np.asarray(np.load(file, mmap_mode="c"))


def write_arrays(folder: Path, arrays: dict[str, Array]) -> None:
    """One .npy file an array, called by its key."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def create_array(file: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A new .npy file, mapped for writing.

    Its room is taken at once: a full disk is an OSError here, where a later write to the map would kill the
    process.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
    with file.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return array


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")
