"""Trains eCLIP on prints and their captions, fold by fold; writes result, embeddings and config to run.dir."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # the code beside this file is what runs

import hydra
from omegaconf import DictConfig

from eclip.entry import checked, launch, one_line_refusals


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
@one_line_refusals
def main(config: DictConfig) -> float:
    """A model learns from two thirds of the prints and is measured on the rest, once for every fold."""
    settings = checked(config)  # every key typed and in range, before anything heavy is imported
    from eclip.data.source import load_folds
    from eclip.run import Run

    with Run(settings, config, hydra.utils.instantiate(list(config.callbacks.values()))) as run:
        for prints in load_folds(settings):
            run.fold(prints)
    return run.score()


if __name__ == "__main__":
    launch(main)
