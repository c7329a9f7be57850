"""Image files in, one array of squares out; a file that does not decode in full is an error with its line."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eclip.data.arrays import create_array
from eclip.data.odvg import DataError, OnError, Record


def write_images(
    records: Sequence[Record], size: int, file: Path, *, on_error: OnError, workers: int, progress: bool
) -> dict[int, DataError]:
    """Decode every record's image into `file`, row by row; the rows that failed, each with its error.

    Under on_error="raise" the first bad image (in order of records) is raised. Threads, not processes: Pillow
    decodes and resizes outside the interpreter's lock (measured on a busy machine: as fast as processes),
    and threads neither fork a process that holds torch's threads nor import the main program again.
    """
    images_NHWC = create_array(file, (len(records), size, size, 3), np.uint8)

    def write(row: int) -> DataError | None:
        return _write(images_NHWC[row], records[row])

    failed: dict[int, DataError] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool, _bar(progress) as bar:
        try:
            for row, error in enumerate(bar.track(pool.map(write, range(len(records))), len(records))):
                if error is not None:
                    failed[row] = error
                    if on_error == "raise":
                        raise error
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the rest is not wanted
    return failed


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("packing prints"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _write(image_HWC: npt.NDArray[np.uint8], record: Record) -> DataError | None:
    try:
        image_HWC[:] = decode(record.path, len(image_HWC))
    # Pillow raises SyntaxError for a broken PNG
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return DataError(record.source, record.line, "unreadable image", f"{record.path}: {error}")
    return None


def decode(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """image_HWC, squashed to a square of `size` pixels, bicubic. Raises what Pillow raises."""
    with Image.open(path) as image:
        # JPEG only: decoded at 1/2, 1/4 or 1/8 as long as twice the wanted size remains
        image.draft("RGB", (2 * size, 2 * size))
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def drop_rows(file: Path, rows: set[int]) -> None:
    """Rewrite an array's file without these rows."""
    old = np.load(file, mmap_mode="r")
    kept = [row for row in range(len(old)) if row not in rows]
    smaller = create_array(file.with_suffix(".kept"), (len(kept), *old.shape[1:]), old.dtype)
    for target, source in enumerate(kept):
        smaller[target] = old[source]
    file.with_suffix(".kept").rename(file)
