"""Annotated prints go in; prints a second of the pack's builder and of one thread that decodes come out."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.workload import Workload
from eclip.data.images import decode
from eclip.data.pack import build_pack

PRINTS = 600


def pack_rate(workload: Workload) -> float:
    """Prints a second from image files to a whole pack, texts and vocabulary included."""
    settings = workload.settings
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        pack = build_pack(
            replace(workload.annotations, records=workload.annotations.records[:PRINTS]),
            image_size=settings.model.image_size,
            caption_tokens=settings.model.caption_tokens,
            phrase_tokens=settings.model.phrase_tokens,
            tokenizer=settings.model.tokenizer,
            out_dir=Path(folder),
            workers=settings.data.workers or os.cpu_count() or 1,
            progress=False,
        )
        return len(pack) / (time.perf_counter() - began)


def decode_rate(workload: Workload) -> float:
    """Prints a second of one thread that decodes and resizes."""
    records = workload.annotations.records[:200]
    began = time.perf_counter()
    for record in records:
        decode(record.path, workload.settings.model.image_size)
    return len(records) / (time.perf_counter() - began)
