"""One training step as a LightningModule: a batch goes in, the weights change, points of the curve come out."""

from __future__ import annotations

from eclip import lean_lightning  # noqa: F401  # isort: skip

import math
from dataclasses import asdict
from typing import Any, cast

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from eclip.accumulate import cached_step
from eclip.averaging import EMA, wise_ft
from eclip.budget import BudgetClock
from eclip.config import Augment, Expert, Optimizer
from eclip.data.augment import normalise_, prepare, unit_range
from eclip.data.transfer import Reading, sent
from eclip.losses import Objective
from eclip.models.eclip import ECLIP
from eclip.ranks import ALONE, Ranks
from eclip.retrieval_metric import RetrievalMetric
from eclip.schedules import expert_probability, learning_rate_factor

CURVE_POINTS = 200
Outputs = dict[str, Tensor]
Inputs = dict[str, Any]


class Diverged(RuntimeError):
    """The loss is not finite any more; more steps would not mend it."""


class ECLIPModule(L.LightningModule):
    """Contrastive training with expert batches, as FACTS of the published experiment define it.

    Every step draws its randomness (augmentation, expert coin, mixing, dropout) from (seed, step) alone,
    so that a resumed run continues exactly and two runs with one seed are one run. Several processes that
    share a batch draw what one would: all but dropout, whose masks each rank draws for its own rows.
    """

    def __init__(
        self,
        model: ECLIP,
        *,
        objective: Objective,
        expert: Expert,
        optimizer: Optimizer,
        augment: Augment,
        image_size: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        micro_batch: int,
        ema_decay: float,
        wise_ft: float,
        clock: BudgetClock,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.objective, self.expert, self.optimizer, self.augment = objective, expert, optimizer, augment
        self.image_size, self.pixels = image_size, {"mean": pixel_mean, "std": pixel_std}
        self._probability = asdict(expert.probability)
        self.micro_batch, self.clock, self.seed, self.ranks = micro_batch, clock, seed, ranks
        self.average = EMA(model, ema_decay) if ema_decay else None
        self.wise_ft = wise_ft
        self.pretrained = model.backbone_state() if wise_ft else {}
        self.curve: list[dict[str, float]] = []
        self._trained: list[nn.Parameter] = []
        self._unread: tuple[dict[str, float], Reading] | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, one group of parameters for each part and for whether it decays."""
        settings, groups = self.optimizer, []
        for part, parameters in self.model.parameter_groups().items():
            factor = getattr(settings.factors, part)
            for decays in (True, False):
                # norms, biases, positions and the logit scale are not shrunk: CLIP's practice
                chosen = [p for p in parameters if p.requires_grad and (p.ndim > 1) == decays]
                if chosen and factor > 0:
                    decay = settings.weight_decay if decays else 0.0
                    groups.append({"params": chosen, "weight_decay": decay, "factor": factor})
        self._trained = [parameter for group in groups for parameter in group["params"]]
        betas = (settings.beta1, settings.beta2)
        return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        step, share = self.global_step, self.clock.share(self.global_step)
        optimizer = cast(LightningOptimizer, self.optimizers())
        rate = self._set_learning_rate(optimizer.optimizer, share)
        inputs = self.inputs(batch, step, share)
        optimizer.zero_grad()
        losses = self._backward(inputs)
        self.ranks.sum_gradients(self._trained)
        norm = self.clip()
        optimizer.step()
        if self.average is not None:
            self.average.update()
        self._record(step, rate, losses, norm)

    def inputs(self, batch: dict[str, Tensor], step: int, share: float) -> Inputs:
        """What the model takes at `step`: image and caption; in an expert step heatmap, phrase and mixing weights.

        Draws all randomness of the step; the global generators (dropout) start anew from it.
        """
        dice, part = np.random.default_rng([self.seed, step]), self.ranks.share
        first = int(dice.integers(2**62))
        _seed(first + part.rank, self.device)
        generator = torch.Generator(self.device).manual_seed(int(dice.integers(2**62)))
        expert = self._expert_step(first / 2**62, share)
        batch = prepare(
            batch,
            image_size=self.image_size,
            crop_scale=self.augment.crop_scale,
            color_jitter=self.augment.color_jitter,
            generator=generator,
            heatmaps=expert,
            share=part,
            **self.pixels,
        )
        inputs: Inputs = {"image_BCHW": batch["image_BCHW"], "caption_BL": batch["caption_BL"]}
        if expert:
            alpha = self.expert.mixup_alpha
            rows = len(batch["image_BCHW"]) * part.ranks
            mix_B = dice.beta(alpha, alpha, size=rows)[part.of(rows)].astype(np.float32)
            inputs |= {"heatmap_BHW": batch["heatmap_BHW"], "phrase_BL": batch["phrase_BL"]}
            inputs["mix_B"] = sent(mix_B, self.device)
        if self.model.fusion is not None:
            warm_up = self.expert.reconstruction
            inputs["reconstruct"] = warm_up.weight > 0 and share < warm_up.share
        return inputs

    def _expert_step(self, coin: float, share: float) -> bool:
        """Whether the step's coin, in [0, 1), asks for an expert batch: one coin for all ranks, or they would wait
        for each other's gradients."""
        return self.model.fusion is not None and coin < expert_probability(share, **self._probability)

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer, share: float) -> float:
        settings = self.optimizer
        rate = settings.lr * learning_rate_factor(share, settings.warmup, settings.cosine_floor)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def _backward(self, inputs: Inputs) -> Outputs:
        """Losses of the whole effective batch under one contrastive matrix; gradients are in place."""
        size = len(inputs["image_BCHW"])
        if size <= self.micro_batch:
            losses = self.loss(**self.model(**inputs))
            # not Lightning's manual_backward: its hooks, to which nobody listens, take 0.35 ms a step
            losses["loss"].backward()
            return losses
        starts = range(0, size, self.micro_batch)
        chunks = [_rows(inputs, slice(start, start + self.micro_batch)) for start in starts]
        return cached_step(self.model, chunks, self.loss)

    def loss(self, **outputs: Tensor) -> Outputs:
        """The objective over the rows of all ranks, on every rank."""
        return self.objective(**self.ranks.spanning(outputs))

    def clip(self) -> Tensor:
        """Global gradient norm, clipped in place when a limit is set."""
        limit = self.optimizer.gradient_clip or float("inf")
        return nn.utils.clip_grad_norm_(self._trained, limit, foreach=True)

    def _record(self, step: int, rate: float, losses: Outputs, norm: Tensor) -> None:
        """A point of the curve every max_steps / 200 steps; on a CPU every loss is looked at, on a GPU the points',
        each when the next is made: by then its step is done, and nothing waits for it."""
        if step % max(1, self.clock.max_steps // CURVE_POINTS) == 0:
            scalars = {"logit_scale": self.model.scale(), "gradient_norm": norm, **losses}
            point = {"step": float(step), "seconds": self.clock.elapsed(), "learning_rate": rate}
            self.read_point()
            self._unread = point, Reading(scalars)
        if self.device.type == "cpu":
            _check_finite(losses["loss"].item(), step, rate)
            self.read_point()

    def read_point(self) -> None:
        """Looks at the step that `_record` saw last, if it has not been. Raises Diverged."""
        if self._unread is None:
            return
        (point, reading), self._unread = self._unread, None
        step, numbers = int(point["step"]), reading.read()
        _check_finite(numbers["loss"], step, point["learning_rate"])
        self.curve.append(point | numbers)
        for logger in self.loggers:
            logged = {f"train/{k}": v for k, v in self.curve[-1].items() if k != "step"}
            logger.log_metrics(logged, step=step)

    def on_train_end(self) -> None:
        self.read_point()

    def use_evaluation_weights(self) -> None:
        """What is evaluated: the average of the weights if one is kept, then mixed with the pretrained backbones."""
        if self.average is not None:
            self.average.copy_to_model()
        if self.pretrained:
            self.model.load_state_dict(wise_ft(self.pretrained, self.model.state_dict(), self.wise_ft))

    def on_validation_epoch_start(self) -> None:
        self.retrieval = RetrievalMetric().to(self.device)

    def validation_step(self, batch: Inputs, batch_index: int, dataloader_idx: int = 0) -> None:
        """Images and captions come apart: the pairing is not known here."""
        if "image_BHWC" in batch:
            pixels_BCHW = normalise_(unit_range(batch["image_BHWC"]), **self.pixels)
            self.retrieval.update("image", batch["number_B"], self.model.encode_image(pixels_BCHW))
        else:
            self.retrieval.update("text", batch["number_B"], self.model.encode_text(batch["caption_BL"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.read_point()
        checkpoint["eclip"] = {
            "seconds": self.clock.elapsed(),
            "curve": self.curve,
            "average": self.average.state_dict() if self.average is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["eclip"]
        self.curve = state["curve"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _check_finite(loss: float, step: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"the loss is {loss} at step {step} (learning rate {rate:.3g})")


def _rows(inputs: Inputs, rows: slice) -> Inputs:
    """These rows of every tensor; what is no tensor holds for all rows."""
    return {key: value[rows] if isinstance(value, Tensor) else value for key, value in inputs.items()}


def _seed(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, which without a GPU takes 1.6 ms: it keeps the call's stack for one that may come."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
