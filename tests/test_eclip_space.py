"""The search space of eCLIP and eCLIP itself: what a sampler may draw can be trained, every knob together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import optuna
from omegaconf import OmegaConf

from agent.composition import laid_over
from agent.space import Space
from agent.task import Task
from agent.validation import quoted
from eclip.config import check
from eclip.models.build import build_model

ROOT = Path(__file__).resolve().parents[1]


def test_every_draw_is_accepted_and_its_model_can_be_built() -> None:
    """A sampler knows no rule that joins two knobs: each draw that cannot run is a trial that it loses."""
    task = Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT)
    knobs = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(ROOT / "configs/space/eclip.yaml")))
    space = Space.from_mapping(knobs, task)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        drawn = study.ask(dict(space.distributions)).params
        words = [f"{key}={quoted(value)}" for key, value in drawn.items()]
        settings = check(laid_over(task, [*words, "run.dir=x"]))
        build_model(settings.model, settings.expert.fusion, settings.loss.name, vocabulary_size=500)
