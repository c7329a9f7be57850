"""Every refusal names the key, the value and what is allowed; every combination that ships is allowed."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from omegaconf import OmegaConf

from eclip.config import ConfigError, Settings, check
from tests.eclip.conftest import composed

MODELS = ("eclip_tiny", "eclip_vits", "clip_vits", "clip_tiny")


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(composed("run.dir=x"), resolve=True)
    return plain


def changed(default: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The default with dotted keys set; an unknown one is added."""
    plain = copy.deepcopy(default)
    for key, value in values.items():
        *sections, name = key.split(".")
        node = plain
        for section in sections:
            node = node[section]
        node[name] = value
    return plain


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("experiment", ["baseline", "published", "none"])
def test_every_combination_that_ships_is_allowed(model, experiment):
    settings = check(composed("run.dir=x", f"model={model}", f"experiment={experiment}"))
    assert isinstance(settings, Settings)
    assert settings.model.name == model
    assert settings.model.experts == model.startswith("eclip")


CHOICES = [
    "loss=siglip", "loss=clip", "expert=none", "expert=phased", "expert=baseline", "augment=light", "logger=csv",
    "logger=none", "logger=wandb", "data=ukiyoe_vg", "optimizer=adamw",
]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_a_group_is_allowed(choice):
    check(composed("run.dir=x", choice))


@pytest.mark.parametrize("model", ["eclip_vits", "clip_vits"])
def test_the_published_starting_point_has_its_published_values(model):
    settings = check(composed("run.dir=x", f"model={model}", "experiment=baseline"))
    optimizer, scale = settings.optimizer, settings.model.logit_scale
    assert (optimizer.lr, optimizer.weight_decay, optimizer.warmup) == (3e-4, 1e-4, 0.1)
    assert (settings.trainer.batch_size, settings.trainer.max_steps) == (48, 400)
    assert settings.model.projection.dim == 128
    assert (settings.expert.probability.max, settings.expert.mixup_alpha, settings.expert.weight) == (
        0.3,
        0.3,
        0.1,
    )
    assert settings.expert.probability.schedule == "constant"
    assert optimizer.gradient_clip == 1.0
    # the bug: it starts at 14.3, above its limit, and so never learns
    assert scale.max == 2.0
    assert scale.init == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("model", ["eclip_vits", "clip_vits"])
def test_the_published_end_has_its_published_values(model):
    settings = check(composed("run.dir=x", f"model={model}", "experiment=published"))
    assert (settings.optimizer.lr, settings.optimizer.warmup) == (2e-4, 0.2)
    assert (settings.trainer.batch_size, settings.trainer.max_steps) == (64, 800)
    assert settings.expert.probability.max == 0.8
    assert settings.model.projection.dim == 512
    assert settings.model.logit_scale.max == 100


def test_the_published_model_is_the_published_one():
    model = check(composed("run.dir=x", "model=eclip_vits")).model
    assert (model.image.name, model.text.name) == ("vit_small_patch16_224", "distilbert-base-uncased")
    assert (model.image_size, model.caption_tokens, model.phrase_tokens) == (224, 128, 64)
    assert (model.projection.layers, model.text.pooling, model.pretrained) == (1, "cls", True)


def test_the_tiny_baseline_has_the_bug_and_the_tiny_end_does_not():
    scales = {
        name: check(composed("run.dir=x", f"experiment={name}")).model.logit_scale.max
        for name in ("baseline", "published")
    }
    assert scales == {"baseline": 2, "published": 100}


REFUSED = [
    ("optimizer.lr", 0, "optimizer.lr=0: expected a number in (0, 1]"),
    ("optimizer.lr", "1e-3x", "optimizer.lr=1e-3x: expected a number in (0, 1]"),
    ("optimizer.lr", math.nan, "optimizer.lr=nan: expected a number in (0, 1]"),
    ("optimizer.lr", math.inf, "optimizer.lr=inf: expected"),
    ("optimizer.lr", None, "optimizer.lr=null: expected"),
    ("optimizer.lr", True, "optimizer.lr=True: expected"),
    ("optimizer.lr", [1], "optimizer.lr=[1]: expected"),
    ("optimizer.beta2", 1.0, "optimizer.beta2=1.0: expected a number in [0, 0.99999]"),
    ("optimizer", 3, "optimizer=3: expected a section with keys, not a value"),
    ("trainer.max_steps", 2.5, "trainer.max_steps=2.5: expected a whole number in [1, 1e+07]"),
    ("trainer.max_steps", True, "trainer.max_steps=True: expected a whole number"),
    ("trainer.batch_size", 1, "trainer.batch_size=1: expected a whole number in [2, 65536]"),
    ("trainer.precision", "fp16", "trainer.precision=fp16: expected one of auto, fp32, bf16"),
    ("trainer.threads", 0, "trainer.threads=0: expected a whole number in [1, 1024] or null"),
    ("trainer.compile", "yes", "trainer.compile=yes: expected true or false"),
    ("seed", -1, "seed=-1: expected a whole number in [0, 2.14748e+09]"),
    ("evaluation", "shut", "evaluation=shut: expected one of open, sealed"),
    ("budget.seconds", 0, "budget.seconds=0: expected a number in (0, 1e+06] or null"),
    ("data.fold", "some", "data.fold=some: expected a whole number or all or null"),
    ("data.folds", [0, "x"], "data.folds=[0, 'x']: expected a list, each a whole number"),
    ("data.folds", 0, "data.folds=0: expected a list"),
    ("data.prints", 3, "data.prints=3: expected a whole number in [9, 1e+07]"),
    ("data.on_error", "ignore", "data.on_error=ignore: expected one of raise, skip"),
    ("model.image._target_", "os.system", "model.image._target_=os.system: expected one of eclip.models"),
    ("model.text.pooling", "sum", "model.text.pooling=sum: expected one of cls, mean, max"),
    ("model.projection.layers", 3, "model.projection.layers=3: expected a whole number in [1, 2]"),
    ("model.logit_scale.max", 1e9, "model.logit_scale.max=1000000000.0: expected a number in [1, 1000]"),
    ("expert.fusion", "magic", "expert.fusion=magic: expected one of cross_attention, pixel_mask"),
    ("expert.probability.max", 1.2, "expert.probability.max=1.2: expected a number in [0, 1]"),
    ("loss.name", "mse", "loss.name=mse: expected one of clip, siglip"),
    ("augment.crop_scale", 0, "augment.crop_scale=0: expected a number in [0.05, 1]"),
    ("logger.name", "tensorboard", "logger.name=tensorboard: expected one of wandb, csv, none"),
    # unknown keys
    ("optimizer.learning_rte", 1, "optimizer.learning_rte=1: unknown key; allowed: beta1, beta2"),
    ("optimizer.weight_decai", 1, "optimizer.weight_decai=1: unknown key; did you mean optimizer.weight_decay?"),
    ("expert.mixup", 1, "expert.mixup=1: unknown key; did you mean expert.mixup_alpha?"),
    ("sead", 1, "sead=1: unknown key; did you mean seed?"),
    # what keys demand of each other
    ("evaluation", "sealed", "evaluation=sealed: needs data.sealed=DIR"),
    ("data.folds", [], "data.folds=[]: expected distinct folds, at least one"),
    ("data.folds", [1, 1], "data.folds=[1, 1]: expected distinct folds"),
    ("data.folds", [0, 3], "data.folds=[0, 3]: fold 3 is not in [0, 2]"),
    ("model.logit_scale.min", 200, "model.logit_scale.min=200: above model.logit_scale.max=100"),
    ("model.image.patch_size", 15, "model.image.patch_size=15: must divide model.image_size=64"),
    ("model.image.heads", 5, "model.image.heads=5: must divide model.image.width=96"),
    ("model.text.width", 130, "model.text.heads=4: must divide model.text.width=130"),
    ("expert.probability.min", 0.9, "expert.probability.min=0.9: above max=0.8"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_refusal_says_key_value_and_what_is_allowed(default, key, value, message):
    with pytest.raises(ConfigError) as refusal:
        check(changed(default, **{key: value}))
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss.name": "siglip", "loss.label_smoothing": 0.1}, "loss.label_smoothing=0.1: siglip has no smoothing"),
        (
            {"expert.probability.schedule": "phased", "expert.probability.cold": 0.5},
            "expert.probability: cold + warmup + cooldown are shares",
        ),
    ],
)  # fmt: skip
def test_pairs_that_do_not_go_together(default, values, message):
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        check(changed(default, **values))


def test_siglip_with_hard_negatives_is_refused_before_anything_is_drawn(default):
    with pytest.raises(ConfigError, match=r"loss\.hard_negative=0\.5"):
        check(changed(default, **{"loss.name": "siglip", "loss.hard_negative": 0.5}))


def test_a_fold_that_is_not_there_is_named(default):
    with pytest.raises(ConfigError, match=r"data\.fold=7: .*\[0, 2\]"):
        check(changed(default, **{"data.fold": 7}))


def test_a_missing_key_is_named(default):
    plain = copy.deepcopy(default)
    del plain["optimizer"]["lr"]
    with pytest.raises(ConfigError, match=r"optimizer\.lr is missing"):
        check(plain)


def test_no_mapping_at_all():
    with pytest.raises(ConfigError, match="expected a mapping of settings, got list"):
        check([])  # type: ignore[arg-type]


def test_a_long_value_is_cut(default):
    with pytest.raises(ConfigError) as refusal:
        check(changed(default, **{"loss.name": "x" * 500}))
    assert len(str(refusal.value)) < 150


def test_whole_numbers_become_floats_where_floats_are_meant(default):
    settings = check(changed(default, **{"optimizer.lr": 1, "model.logit_scale.max": 64}))
    assert isinstance(settings.optimizer.lr, float)
    assert isinstance(settings.model.logit_scale.max, float)


def test_hydras_own_section_is_left_out(default):
    check({**default, "hydra": {"anything": 1}})
