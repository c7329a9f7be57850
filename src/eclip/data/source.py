"""Data settings go in; the data set is drawn or found, packed once, and its folds come out ready to train on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from eclip.config import ConfigError, Data, Model, Settings
from eclip.data.odvg import Annotations, read_split, summary
from eclip.data.pack import Pack, build_pack
from eclip.data.sealed import open_sealed
from eclip.data.splits import FoldData

log = logging.getLogger("eclip")
# open evaluation embeds in shuffled orders, too, so that it and the sealed one are the same computation
ORDER_SEED = 0


def load_folds(settings: Settings) -> Iterator[FoldData]:
    """The folds of a run, one after the other; with final=true the one that trains on everything."""
    data = settings.data
    if settings.evaluation == "sealed":
        assert data.sealed is not None
        yield open_sealed(Path(data.sealed))
        return
    pool = open_pool(data, settings.model)
    if settings.final:
        test = open_test(data, settings.model, pool)
        yield FoldData.from_test(pool, test, order_seed=ORDER_SEED)
    elif data.fold == "all":
        yield FoldData.from_everything(pool)
    else:
        cut = {"fold_count": data.fold_count, "split_seed": data.split_seed, "order_seed": ORDER_SEED}
        for fold in data.folds if data.fold is None else [data.fold]:
            yield FoldData.from_pack(pool, fold, **cut)


def open_pool(data: Data, model: Model) -> Pack:
    """The pack of train and validation prints together: what the folds are cut from."""
    root = ensure_data_set(data)
    pool = read_split(root, "train", data.on_error) + read_split(root, "val", data.on_error)
    return _packed(pool, data, model, model.tokenizer)


def open_test(data: Data, model: Model, pool: Pack) -> Pack:
    """The pack of the test prints, tokenised with the pool's vocabulary."""
    annotations = read_split(ensure_data_set(data), "test", data.on_error)
    return _packed(annotations, data, model, str(pool.tokenizer_path))


def _packed(annotations: Annotations, data: Data, model: Model, tokenizer: str) -> Pack:
    pack = build_pack(
        annotations,
        image_size=model.image_size,
        caption_tokens=model.caption_tokens,
        phrase_tokens=model.phrase_tokens,
        tokenizer=tokenizer,
        out_dir=Path(data.pack_dir),
        workers=data.workers or os.cpu_count() or 1,
    )
    log.info(summary(len(pack), pack.skipped))
    return pack


def ensure_data_set(data: Data) -> Path:
    """The data set's root. The embedded one is drawn when it is not there; others must have been fetched."""
    root = Path(data.root)
    if data.name == "synthetic":
        from eclip.data.synthetic import draw_dataset

        draw_dataset(
            root, prints=data.prints, test_prints=data.test_prints, seed=data.seed, workers=data.workers
        )
    elif not root.is_dir():
        raise ConfigError(
            f"data.root={root}: no such folder; fetch it with `make data`, or use data=synthetic"
        )
    return root
