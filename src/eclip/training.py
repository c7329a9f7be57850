"""Settings and a fold go in; it is trained under its share of the budget, its validation inputs are embedded."""

from __future__ import annotations

from eclip import lean_lightning  # noqa: F401  # isort: skip

import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from rich.console import Console
from torch.utils.data import DataLoader

from eclip.budget import BudgetClock
from eclip.callbacks import BudgetBar, BudgetEnd, Checkpoint
from eclip.compilation import compile_model, time_without_compilation
from eclip.config import Settings, Trainer
from eclip.data.candidates import candidate_batches
from eclip.data.datamodule import PrintsDataModule
from eclip.data.splits import FoldData
from eclip.gpu import gpu_has_bf16, on_gpu
from eclip.launch import devices
from eclip.lightning_module import ECLIPModule
from eclip.losses import Objective
from eclip.models.build import build_model
from eclip.models.provide import WEIGHTS, provided
from eclip.ranks import ALONE, AgreedTime, Ranks
from eclip.retrieval_metric import Pairs

# Lightning's hints about workers and validation do not fit data that is gathered from memory and judged at the end
for hint in (
    ".*does not have many workers.*",
    ".*have no `val_dataloader`.*",
    ".*LeafSpec.*",
    ".*checkpoint directory.*",
):
    warnings.filterwarnings("ignore", message=hint)


def module_seed(seed: int, fold: int | None) -> int:
    """The seed of everything random in one fold's training (None: the final one), drawn from the run's seed."""
    return int(np.random.SeedSequence([seed, 0 if fold is None else 1 + fold]).generate_state(1)[0])


def build_module(
    settings: Settings, data: FoldData, seconds: float | None, ranks: Ranks = ALONE
) -> ECLIPModule:
    """The model with its weights drawn (or loaded) and everything that a step needs to know."""
    now = time_without_compilation if settings.trainer.compile else time.perf_counter
    agreed = AgreedTime(ranks, now)
    clock = BudgetClock(settings.trainer.max_steps, seconds, agreed, agreed.tick)
    seed = module_seed(settings.seed, data.fold)
    torch.manual_seed(seed)
    wanted = settings.model
    if settings.data.sealed is not None:  # no network there, and no cache
        wanted = provided(wanted, Path(settings.data.sealed) / WEIGHTS)
    model = build_model(wanted, settings.expert.fusion, settings.loss.name, data.train.vocabulary_size)
    if settings.trainer.compile:
        compile_model(model, settings.trainer.compile_cache, on_gpu(settings.trainer))
    return ECLIPModule(
        model,
        objective=objective(settings),
        expert=settings.expert,
        optimizer=settings.optimizer,
        augment=settings.augment,
        image_size=settings.model.image_size,
        pixel_mean=model.image.pixel_mean,
        pixel_std=model.image.pixel_std,
        micro_batch=settings.trainer.batch_size // ranks.world_size,
        ema_decay=settings.model.ema_decay,
        wise_ft=settings.model.wise_ft,
        clock=clock,
        seed=seed,
        ranks=ranks,
    )


def objective(settings: Settings) -> Objective:
    """The loss that the settings describe."""
    return Objective(
        **asdict(settings.loss),
        expert_weight=settings.expert.weight,
        reconstruction_weight=settings.expert.reconstruction.weight,
    )


def embed_candidates(trainer: L.Trainer, module: ECLIPModule, data: FoldData, batch_size: int = 256) -> Pairs:
    """(image_ND, text_ND) of the validation inputs, float32, gathered over ranks, each in order of its number."""
    module.use_evaluation_weights()
    size = min(batch_size, data.candidates)
    batches = candidate_batches(data, size, trainer.global_rank, trainer.world_size)
    sides = [DataLoader(cast(Any, side), batch_size=None) for side in batches]
    # each shape is embedded a few times: compiling it would take longer
    with torch.compiler.set_stance("force_eager"):
        trainer.validate(module, dataloaders=sides, verbose=False)
    with module.retrieval.sync_context():
        return module.retrieval.ordered()


def train_fold(
    module: ECLIPModule,
    settings: Settings,
    data: FoldData,
    folder: Path,
    console: Console,
    loggers: Iterable[Any] = (),
    callbacks: Iterable[L.Callback] = (),
) -> L.Trainer:
    """Trains `module` until its clock says so. Raises Diverged or torch's out-of-memory errors.

    With settings.run.resume, continues from that run's checkpoint of this fold to the same loss curve.
    """
    clock, ranks = module.clock, module.ranks
    start = _start_of(settings, data.fold)
    prints = PrintsDataModule(
        data,
        batch_size=settings.trainer.batch_size,
        accumulate=settings.trainer.accumulate,
        seed=module.seed,
        first_step=start["step"],
        share=ranks.share,
        # on a GPU the prints live on the device, if they fit
        device=f"cuda:{ranks.local_rank}" if on_gpu(settings.trainer) else None,
    )
    own: list[L.Callback] = [BudgetEnd(clock, start["seconds"])]
    if ranks.rank == 0:
        own.append(BudgetBar(f"fold {data.fold}", console))
    if settings.run.checkpoint_seconds is not None:
        own.append(Checkpoint(folder / checkpoint_name(data.fold), settings.run.checkpoint_seconds, clock))
    trainer = make_trainer(settings.trainer, [*own, *callbacks], list(loggers), folder)
    ranks.check_equal(module.parameters())
    # a fold that was at its end is loaded, and not one step is taken
    trainer.fit(module, datamodule=prints, ckpt_path=start["path"], weights_only=False)
    return trainer


def checkpoint_name(fold: int | None) -> str:
    """The file in a run's folder that one fold is resumed from."""
    return f"fold{'-final' if fold is None else fold}.ckpt"


def half_precision(settings: Trainer) -> bool:
    """Whether steps run under bf16 autocast: when told to, or on a GPU or a CPU that multiplies bf16."""
    if settings.precision == "auto":
        return gpu_has_bf16() if on_gpu(settings) else cpu_has_bf16()
    return settings.precision == "bf16"


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16 numbers; where it has none, they are emulated, slowly."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def make_trainer(
    settings: Trainer, callbacks: list[L.Callback], loggers: list[Any], folder: Path
) -> L.Trainer:
    """Lightning's Trainer with the budget's rules: steps end it, nothing is validated on the way."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    count = devices(settings)
    alone = count * settings.num_nodes == 1
    return L.Trainer(
        accelerator="gpu" if on_gpu(settings) else "cpu",
        devices=count,
        num_nodes=settings.num_nodes,
        strategy=Alone("cuda:0" if on_gpu(settings) else "cpu") if alone else Together(),
        # who is who was settled before (launch.joined), by torchrun's variables
        plugins=LightningEnvironment(),
        precision="bf16-mixed" if half_precision(settings) else "32-true",
        max_steps=settings.max_steps,
        max_epochs=-1,
        logger=loggers,
        callbacks=callbacks,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=10**9,
    )


class Staying:
    """A strategy with which everything stays where it is between training and evaluation.

    Lightning's own would send weights, averages of gradients and embeddings' metric from the GPU to the host
    and give the GPU's memory back after each: a gigabyte there and a third of it back for the published model.
    """

    def teardown(self) -> None:
        """Nothing is moved: the process's end, or the next fold, frees what this one held."""


class Alone(Staying, SingleDeviceStrategy):
    """One process on one device."""


class Together(Staying, DDPStrategy):
    """Lightning's processes, ranks and checkpoints; the module sums its gradients over ranks itself."""

    def configure_ddp(self) -> None:
        """No wrapper: DistributedDataParallel would average, and search each step for unused parameters."""


def _start_of(settings: Settings, fold: int | None) -> dict[str, Any]:
    """Where a resumed run's fold stands: step, training seconds, path of the checkpoint; zeros for a fresh run."""
    if settings.run.resume is None:
        return {"step": 0, "seconds": 0.0, "path": None}
    path = Path(settings.run.resume) / checkpoint_name(fold)
    if not path.is_file():
        if Path(settings.run.resume).is_dir():
            return {"step": 0, "seconds": 0.0, "path": None}  # the run ended before this fold began
        raise FileNotFoundError(f"run.resume={settings.run.resume}: no such run folder")
    state = torch.load(path, map_location="cpu", weights_only=False)
    return {"step": state["global_step"], "seconds": state["eclip"]["seconds"], "path": path}
