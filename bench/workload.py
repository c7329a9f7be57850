"""Hydra overrides go in; the settings that train.py would run with, and one fold of drawn prints, come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from eclip.config import Settings, check
from eclip.data.odvg import Annotations, read_split
from eclip.data.pack import Pack
from eclip.data.source import ensure_data_set, load_folds
from eclip.data.splits import FoldData

ROOT = Path(__file__).resolve().parents[1]
# six hundred prints are drawn in seconds, and a step does not know how many there are
PUBLISHED = (
    "model=eclip_vits",
    "model.pretrained=false",
    "model.tokenizer=wordpiece",  # as long as DistilBERT's own texts, and there without a network
    "trainer.batch_size=64",
    "trainer.max_steps=800",
)
PUBLISHED_PRINTS = 11_000
FOLD_PRINTS = 4_000  # of the embedded data: the plain loop starts its workers anew in each epoch
DATA = ("data.prints=600", "data.test_prints=60", "data.folds=[0]", "logger=none")


@dataclass(frozen=True)
class Workload:
    """What is measured: `overrides` are those that train.py takes for the same work."""

    overrides: tuple[str, ...]
    settings: Settings
    data: FoldData
    annotations: Annotations

    @classmethod
    def prepare(cls, overrides: Sequence[str], folder: Path) -> Workload:
        """Draws and packs the prints under `folder`, unless they are there."""
        where = (f"data.root={folder}/synthetic", f"data.pack_dir={folder}/packs")
        overrides = (*DATA, *where, *overrides)
        settings = settings_of(*overrides, f"run.dir={folder}/run")
        root = ensure_data_set(settings.data)
        annotations = read_split(root, "train", "raise") + read_split(root, "val", "raise")
        return cls(overrides, settings, next(iter(load_folds(settings))), annotations)

    def grown(self, prints: int) -> Workload:
        """The same with so many training prints: those that are there, again and again."""
        pack = repeated(self.data.train, prints)
        copies = -(-prints // len(self.annotations.records))
        annotations = replace(self.annotations, records=(tuple(self.annotations.records) * copies)[:prints])
        data = replace(self.data, train=pack, train_rows_N=np.arange(prints))
        return replace(self, data=data, annotations=annotations)


def repeated(pack: Pack, prints: int) -> Pack:
    """A pack of `prints` rows: the given one's, repeated in order; phrases are shared out alike."""
    row_N = np.arange(prints) % len(pack)
    first_N, end_N = pack.phrase_offsets_N1[row_N], pack.phrase_offsets_N1[row_N + 1]
    phrase_M = np.concatenate([np.arange(a, b) for a, b in zip(first_N, end_N, strict=True)])
    return replace(
        pack,
        images_NHWC=pack.images_NHWC[row_N],
        captions_NL=pack.captions_NL[row_N],
        boxes_NR4=pack.boxes_NR4[row_N],
        box_count_N=pack.box_count_N[row_N],
        phrases_ML=pack.phrases_ML[phrase_M],
        phrase_offsets_N1=np.cumsum([0, *(end_N - first_N)], dtype=np.int64),
        filenames=tuple(pack.filenames[row] for row in row_N),
    )


def settings_of(*overrides: str) -> Settings:
    """The real configs, composed and checked as train.py does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return check(compose("train", overrides=list(overrides)))
