"""Hydra overrides go in; the settings that train.py would run with, and one fold of drawn prints, come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from eclip.config import Settings, check
from eclip.data.odvg import Annotations, read_split
from eclip.data.source import ensure_data_set, load_folds
from eclip.data.splits import FoldData

ROOT = Path(__file__).resolve().parents[1]
# six hundred prints are drawn in seconds, and a step does not know how many there are
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


def settings_of(*overrides: str) -> Settings:
    """The real configs, composed and checked as train.py does."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return check(compose("train", overrides=list(overrides)))
