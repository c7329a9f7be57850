"""Sixty drawn prints on disk, and a training run in this process over the real configs, shrunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from eclip.config import check
from eclip.data.source import load_folds
from eclip.data.synthetic import draw_dataset
from eclip.run import Run

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = (
    "data.prints=60 data.test_prints=12 data.workers=2 trainer.max_steps=6 trainer.batch_size=8 trainer.threads=2 "
    "trainer.precision=fp32 model.image.width=32 model.image.depth=1 model.text.width=32 model.text.depth=1 "
    "model.projection.dim=16 logger=none data.folds=[0]"
).split()
Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def prints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set and its packs."""
    folder = tmp_path_factory.mktemp("prints")
    draw_dataset(folder / "synthetic", prints=60, test_prints=12, seed=0, workers=2, progress=False)
    return folder


def composed(*overrides: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def train_in(prints: Path, folder: Path, *overrides: str, callbacks: Any = ()) -> dict[str, Any]:
    """A run in this process: its `result.json` with `dir`, its folder; of several processes only the first has one."""
    where = (f"data.root={prints}/synthetic", f"data.pack_dir={prints}/packs", f"run.dir={folder}")
    config = composed(*SMALL, *where, *overrides)
    settings = check(config)
    with Run(settings, config, list(callbacks)) as open_run:
        for fold in load_folds(settings):
            open_run.fold(fold)
    if open_run.ranks.rank:
        return {}
    return {"dir": folder, **json.loads((folder / "result.json").read_text())}


@pytest.fixture(scope="session")
def train(prints: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """train("optimizer.lr=1") runs it and gives `result.json` with `dir`, the run's folder."""

    def run(*overrides: str, callbacks: Any = ()) -> dict[str, Any]:
        return train_in(prints, tmp_path_factory.mktemp("run"), *overrides, callbacks=callbacks)

    return run
