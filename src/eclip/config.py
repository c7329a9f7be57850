"""A composed Hydra config goes in, the same settings come out typed and range-checked, or a ConfigError.

Defaults live in `configs/` alone; here stand the keys, their types and the values that make sense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf

from eclip.typed import ConfigError as ConfigError
from eclip.typed import Range, section

Share = Annotated[float, Range(0, 1)]
Width = Annotated[int, Range(8, 4096)]
Count = Annotated[int, Range(1, 10_000_000)]
Positive = Annotated[float, Range(0, 1e6, open_low=True)]


@dataclass(frozen=True)
class Data:
    name: Literal["synthetic", "ukiyoe_vg"]
    root: str
    seed: int
    prints: Annotated[int, Range(9, 10_000_000)]
    test_prints: Annotated[int, Range(2, 10_000_000)]
    split_seed: int
    fold_count: Annotated[int, Range(2, 20)]
    folds: list[int]
    fold: int | Literal["all"] | None
    on_error: Literal["raise", "skip"]
    pack_dir: str
    workers: Annotated[int, Range(1, 256)] | None
    sealed: str | None


@dataclass(frozen=True)
class Augment:
    crop_scale: Annotated[float, Range(0.05, 1)]
    color_jitter: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class ImageEncoder:
    _target_: Literal["eclip.models.encoders.TinyViT", "eclip.models.encoders.TimmImage"]
    pooling: Literal["cls", "mean"]
    frozen: bool
    patch_size: Annotated[int, Range(2, 64)] | None = None
    width: Width | None = None
    depth: Annotated[int, Range(1, 64)] | None = None
    heads: Annotated[int, Range(1, 64)] | None = None
    dropout: Annotated[float, Range(0, 0.9)] | None = None
    name: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class TextEncoder:
    _target_: Literal["eclip.models.encoders.TinyText", "eclip.models.encoders.DistilBertText"]
    pooling: Literal["cls", "mean", "max"]
    frozen: bool
    width: Width | None = None
    depth: Annotated[int, Range(1, 64)] | None = None
    heads: Annotated[int, Range(1, 64)] | None = None
    dropout: Annotated[float, Range(0, 0.9)] | None = None
    name: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Projection:
    dim: Width
    layers: Annotated[int, Range(1, 2)]
    dropout: Annotated[float, Range(0, 0.9)]


@dataclass(frozen=True)
class LogitScale:
    init: Annotated[float, Range(0.01, 1000)]
    min: Annotated[float, Range(0.0001, 1000)]
    max: Annotated[float, Range(1, 1000)]


@dataclass(frozen=True)
class Model:
    name: str
    experts: bool
    pretrained: bool
    image_size: Annotated[int, Range(16, 1024)]
    caption_tokens: Annotated[int, Range(4, 512)]
    phrase_tokens: Annotated[int, Range(4, 512)]
    tokenizer: str
    image: ImageEncoder
    text: TextEncoder
    projection: Projection
    logit_scale: LogitScale
    wise_ft: Share
    ema_decay: Annotated[float, Range(0, 0.99999)]


@dataclass(frozen=True)
class ExpertProbability:
    schedule: Literal["constant", "phased"]
    max: Share
    min: Share
    cold: Share
    warmup: Share
    cooldown: Share


@dataclass(frozen=True)
class Reconstruction:
    weight: Annotated[float, Range(0, 100)]
    share: Share


@dataclass(frozen=True)
class Expert:
    fusion: Literal[
        "cross_attention",
        "pixel_mask",
        "weighted_pooling",
        "prompt_tokens",
        "input_channel",
        "attention_bias",
    ]
    probability: ExpertProbability
    mixup_alpha: Annotated[float, Range(0.01, 100)]
    weight: Annotated[float, Range(0, 100)]
    reconstruction: Reconstruction


@dataclass(frozen=True)
class Loss:
    name: Literal["clip", "siglip"]
    label_smoothing: Annotated[float, Range(0, 0.9)]
    hard_negative: Annotated[float, Range(0, 10)]


@dataclass(frozen=True)
class Factors:
    image: Annotated[float, Range(0, 100)]
    text: Annotated[float, Range(0, 100)]
    heads: Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class Optimizer:
    lr: Annotated[float, Range(0, 1, open_low=True)]
    weight_decay: Annotated[float, Range(0, 10)]
    beta1: Annotated[float, Range(0, 0.9999)]
    beta2: Annotated[float, Range(0, 0.99999)]
    warmup: Share
    cosine_floor: Share
    gradient_clip: Annotated[float, Range(0, 1e4)]
    factors: Factors


@dataclass(frozen=True)
class Trainer:
    max_steps: Count
    batch_size: Annotated[int, Range(2, 65_536)]
    accumulate: Annotated[int, Range(1, 1024)]
    precision: Literal["auto", "fp32", "bf16"]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Annotated[int, Range(1, 1024)] | Literal["auto"]
    num_nodes: Annotated[int, Range(1, 1024)]
    timeout: Positive
    compile: bool
    compile_cache: str | None
    threads: Annotated[int, Range(1, 1024)] | None


@dataclass(frozen=True)
class Budget:
    seconds: Positive | None


@dataclass(frozen=True)
class Run:
    dir: str
    resume: str | None
    checkpoint_seconds: Positive | None


@dataclass(frozen=True)
class Logger:
    name: Literal["wandb", "csv", "none"]
    project: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Settings:
    """Everything a training run is told. One field a config group."""

    seed: Annotated[int, Range(0, 2**31 - 1)]
    evaluation: Literal["open", "sealed"]
    final: bool
    run: Run
    budget: Budget
    data: Data
    augment: Augment
    model: Model
    expert: Expert
    loss: Loss
    optimizer: Optimizer
    trainer: Trainer
    logger: Logger
    callbacks: Any


def check(config: DictConfig | dict[str, Any]) -> Settings:
    """Types and ranges of every key, then what keys demand of each other.

    Raises ConfigError with the key, the value and what is allowed.
    """
    plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    if not isinstance(plain, dict):
        raise ConfigError(f"expected a mapping of settings, got {type(plain).__name__}")
    plain = {key: value for key, value in plain.items() if key != "hydra"}
    settings: Settings = section(Settings, plain)
    _together(settings)
    return settings


def _together(settings: Settings) -> None:
    """What one key demands of another."""
    data, model, expert = settings.data, settings.model, settings.expert
    if settings.evaluation == "sealed" and data.sealed is None:
        raise ConfigError("evaluation=sealed: needs data.sealed=DIR, the folder of one sealed fold")
    if not data.folds or len(set(data.folds)) != len(data.folds):
        raise ConfigError(f"data.folds={data.folds}: expected distinct folds, at least one")
    for fold in data.folds:
        if not 0 <= fold < data.fold_count:
            raise ConfigError(f"data.folds={data.folds}: fold {fold} is not in [0, {data.fold_count - 1}]")
    if isinstance(data.fold, int) and not 0 <= data.fold < data.fold_count:
        raise ConfigError(f"data.fold={data.fold}: expected all, null or one of [0, {data.fold_count - 1}]")
    if model.logit_scale.min > model.logit_scale.max:
        scale = model.logit_scale
        raise ConfigError(f"model.logit_scale.min={scale.min:g}: above model.logit_scale.max={scale.max:g}")
    trainer = settings.trainer
    if trainer.devices != "auto":
        check_shares(trainer.batch_size, trainer.devices * trainer.num_nodes)
    tiny = model.image._target_.endswith("TinyViT")
    if tiny and model.image.patch_size and model.image_size % model.image.patch_size:
        raise ConfigError(
            f"model.image.patch_size={model.image.patch_size}: must divide model.image_size={model.image_size}"
        )
    for name, part in (("image", model.image), ("text", model.text)):
        if part.width and part.heads and part.width % part.heads:
            raise ConfigError(f"model.{name}.heads={part.heads}: must divide model.{name}.width={part.width}")
    loss = settings.loss
    if loss.name == "siglip" and loss.label_smoothing:
        raise ConfigError(
            f"loss.label_smoothing={loss.label_smoothing:g}: siglip has no smoothing; set it to 0"
        )
    if loss.name == "siglip" and loss.hard_negative:
        raise ConfigError(
            f"loss.hard_negative={loss.hard_negative:g}: siglip does not weigh negatives; set it to 0"
        )
    probability = expert.probability
    if probability.schedule == "phased" and probability.cold + probability.warmup + probability.cooldown > 1:
        raise ConfigError(
            "expert.probability: cold + warmup + cooldown are shares of the budget and must sum to at most 1"
        )
    if probability.min > probability.max:
        raise ConfigError(f"expert.probability.min={probability.min:g}: above max={probability.max:g}")


def check_shares(batch_size: int, processes: int) -> None:
    """ConfigError where processes cannot take equal parts of a batch."""
    if batch_size % processes:
        raise ConfigError(
            f"trainer.batch_size={batch_size}: {processes} processes share it (trainer.devices x trainer.num_nodes); "
            f"use a multiple of {processes}"
        )
