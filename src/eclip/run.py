"""One training run: settings go in; folds are trained, embedded and scored; the run's folder holds the results."""

from __future__ import annotations

from eclip import lean_lightning  # noqa: F401  # isort: skip

import gc
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from eclip.config import ConfigError, Settings
from eclip.data.splits import FoldData
from eclip.device_ranks import ranks_on
from eclip.gpu import device_name, idle_card
from eclip.launch import joined
from eclip.lightning_module import Diverged, ECLIPModule
from eclip.loggers import finish, make_loggers
from eclip.metrics import Array, retrieval_scores
from eclip.run_directory import Result, RunDirectory, seconds_since_process_start
from eclip.training import build_module, embed_candidates, half_precision, train_fold

log = logging.getLogger("eclip")
Embeddings = dict[str, Array]


class Run:
    """Context of one run: whatever happens inside, `result.json` says how it ended.

    A divergence or a lack of memory is an outcome: it is reported and ends the run with exit status 1.
    Of several processes the first one alone writes, and says how it went for all.
    """

    def __init__(self, settings: Settings, config: DictConfig, callbacks: list[L.Callback]) -> None:
        self.settings, self.config, self.callbacks = settings, config, callbacks
        self.path = Path(settings.run.dir)
        self.console = Console(stderr=True)
        self.result = Result()
        self.embeddings: Embeddings = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.seconds_left = settings.budget.seconds
        self._folds_left = 1 if settings.final or settings.data.fold is not None else len(settings.data.folds)
        resume = settings.run.resume
        if resume is not None and not Path(resume).is_dir():  # before minutes of drawing and packing
            raise ConfigError(f"run.resume={resume}: no such run folder")
        if idle := idle_card(settings.trainer):
            _refuse_or_warn(settings, idle)
        self.processes = ExitStack()
        self.ranks = self.processes.enter_context(joined(settings.trainer, self._lose))
        self.loggers: list[Any] = []
        if self.ranks.rank == 0:
            self.directory = RunDirectory(self.path, config)
            plain: Any = OmegaConf.to_container(config, resolve=True)
            self.loggers = make_loggers(settings.logger, self.path, plain)
        _log_to(self.path / "train.log" if self.ranks.rank == 0 else None)
        log.info(
            "on %s, in %s",
            device_name(settings.trainer),
            "bf16" if half_precision(settings.trainer) else "fp32",
        )

    def __enter__(self) -> Run:
        # what is imported by now stays: no later collection walks it, least of all the one at the
        # interpreter's end (measured: 1.3 s before, 0.2 s after)
        gc.freeze()
        return self

    def fold(self, data: FoldData) -> None:
        """Trains on one fold's training prints under its share of what is left, embeds its validation inputs."""
        log.info(
            "fold %s: %d to learn from, %d candidates", data.fold, len(data.train_rows_N), data.candidates
        )
        seconds = self.seconds_left / self._folds_left if self.seconds_left is not None else None
        module = build_module(self.settings, data, seconds, self.ranks)
        try:
            trainer = train_fold(
                module, self.settings, data, self.path, self.console, self.loggers, self.callbacks
            )
        finally:
            self._charge(module, data)  # a run that diverged has a curve, too
        if data.candidates:
            self._keep(*embed_candidates(trainer, module, data), data, module.device)
        if self._folds_left:
            # Lightning's circles of references would keep weights, moments and gradients beside the next fold's
            del trainer, module
            gc.collect()

    def _charge(self, module: ECLIPModule, data: FoldData) -> None:
        used = module.clock.elapsed()
        if not self.result.setup_seconds:  # from the command to the first step
            self.result.setup_seconds = seconds_since_process_start() - module.clock.age()
        self._folds_left -= 1
        if self.seconds_left is not None:
            self.seconds_left = max(self.seconds_left - used, 0.0)
        self.result.train_seconds += used
        self.result.steps += module.global_step
        fold = {} if data.fold is None else {"fold": float(data.fold)}
        self.result.curve += [fold | point for point in module.curve]

    def _keep(self, image_ND: Array, text_ND: Array, data: FoldData, device: torch.device) -> None:
        """Embeddings in the order given; where the pairs are known (open evaluation), the scores, too."""
        name = "test" if data.fold is None else str(data.fold)
        self.embeddings |= {f"fold{name}.image": image_ND, f"fold{name}.text": text_ND}
        if data.orders is not None:
            self.scores[name] = retrieval_scores(image_ND, text_ND, ranks_on(device))

    def score(self) -> float:
        """Mean rank over the folds; NaN where the pairs are sealed."""
        return float(np.mean([fold["mean_rank"] for fold in self.scores.values()])) if self.scores else np.nan

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> Literal[False]:
        status, reason = _ending(error)
        elsewhere = self.ranks.failure() if self.ranks.cut_off(error) else None
        if elsewhere is not None:
            status, reason = elsewhere["status"], f"rank {elsewhere['rank']}: {elsewhere['reason']}"
        elif error is not None:
            if self.ranks.cut_off(error):
                limit = self.settings.trainer.timeout
                reason = (
                    f"another process is gone, or did not answer for trainer.timeout={limit:g} s: {reason}"
                )
            self.ranks.report(status, reason)
        if self.ranks.rank == 0:
            self._write(status, reason)
            if error is None:
                show(self.console, self.result, self.scores, self.path)
        self.processes.__exit__(kind, error, error.__traceback__ if error else None)
        if elsewhere is not None or self.ranks.cut_off(error) or status in ("diverged", "out_of_memory"):
            if self.ranks.rank == 0:
                log.error("%s: %s", status.replace("_", " "), reason)
            raise SystemExit(1) from error
        return False

    def _write(self, status: str, reason: str) -> None:
        self.result.status, self.result.reason = status, reason
        self.result.metrics = _over_folds(self.scores)
        if self.embeddings:
            self.directory.write_embeddings(self.embeddings)
        self.directory.write(self.result)
        finish(self.loggers, self.result.metrics)

    def _lose(self, reason: str) -> None:
        """A process is gone and this one waits for it in a call that does not return."""
        self.directory = RunDirectory(self.path, self.config)  # it may have waited since before there was one
        self._write("crashed", reason)
        log.error("crashed: %s", reason)
        os._exit(1)


def _refuse_or_warn(settings: Settings, idle: str) -> None:
    """A GPU is here and cannot be used: a person is told; the lab's run fails, or a study would be a slow one."""
    if settings.evaluation == "sealed":
        raise ConfigError(
            f"trainer.accelerator=auto: {idle}; or leave the GPU alone: sandbox.backend.gpus=none"
        )
    log.warning("training on the CPU, though there is a GPU (trainer.accelerator=cpu says so): %s", idle)


def _ending(error: BaseException | None) -> tuple[str, str]:
    """(status, reason) of a run that ended with `error`."""
    if error is None:
        return "completed", ""
    text = f"{type(error).__name__}: {error}"[:2000]
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return "out_of_memory", text
    return ("interrupted" if isinstance(error, KeyboardInterrupt) else "crashed"), text


def _over_folds(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Means over folds under the plain names, `mean_rank_std` (over folds), and fold<k>/<name>."""
    if not scores:
        return {}
    names = next(iter(scores.values()))
    metrics = {name: float(np.mean([fold[name] for fold in scores.values()])) for name in names}
    if len(scores) > 1:
        metrics["mean_rank_std"] = float(np.std([fold["mean_rank"] for fold in scores.values()], ddof=1))
    for number, fold in scores.items():
        metrics |= {f"fold{number}/{name}": value for name, value in fold.items()}
    return metrics


def show(console: Console, result: Result, scores: dict[str, dict[str, float]], path: Path) -> None:
    """One table with the score and the folds, and the run's folder."""
    table = Table(
        title=f"{result.steps} steps, {result.train_seconds:.0f} s of training", title_justify="left"
    )
    table.add_column("")
    for heading in ("mean rank", "of", "median", "R@1", "R@5", "R@10"):
        table.add_column(heading, justify="right")
    rows = {f"fold {number}": fold for number, fold in sorted(scores.items())}
    if len(scores) > 1:
        rows["mean"] = result.metrics
    for name, row in rows.items():
        spread = f" ± {row['mean_rank_std']:.1f}" if "mean_rank_std" in row else ""
        recalls = [f"{100 * row[f'recall_at_{k}']:.1f} %" for k in (1, 5, 10)]
        cells = [f"{row['mean_rank']:.1f}{spread}", f"{row['candidates']:.0f}", f"{row['median_rank']:.0f}"]
        table.add_row(name, *cells, *recalls, style="bold" if name == "mean" else "")
    if rows:
        console.print(table)
    console.print(f"[dim]{path}[/dim]")


def _log_to(path: Path | None) -> None:
    """What is logged in this process goes to `path`, too. None: only warnings are logged, and to no file."""
    root = logging.getLogger()
    for old in [item for item in root.handlers if isinstance(item, logging.FileHandler)]:
        root.removeHandler(old)
    root.setLevel(logging.WARNING if path is None else logging.INFO)
    if path is not None:
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
