"""Lightning callbacks of a run: the budget that ends it, the checkpoint that survives it, the bar a person sees."""

from __future__ import annotations

from eclip import lean_lightning  # noqa: F401  # isort: skip

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from eclip.budget import BudgetClock
from eclip.lightning_module import ECLIPModule


class BudgetEnd(L.Callback):
    """Ends training when the clock says so; `used` are seconds that a resumed run had spent."""

    def __init__(self, clock: BudgetClock, used: float = 0.0) -> None:
        self.clock, self.used = clock, used

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.clock.tick()
        self.clock.start(self.used)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.tick()
        if self.clock.over(trainer.global_step):
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.clock.pause()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.clock.pause()


class Checkpoint(L.Callback):
    """Writes `path` every `seconds` of training and at its end; a half-written file never replaces a whole one.

    Saving takes all ranks together: the clock that they share decides.
    """

    def __init__(self, path: Path, seconds: float, clock: BudgetClock) -> None:
        self.path, self.seconds, self.clock = path, seconds, clock
        self._last = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last = self.clock.elapsed()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.clock.elapsed() - self._last >= self.seconds:
            self.clock.pause()
            self.save(trainer)
            self.clock.tick()
            self.clock.resume()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".partial")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(self.path)
        self._last = self.clock.elapsed()


class BudgetBar(L.Callback):
    """A Rich progress bar over the share of the budget: loss, logit scale, time left."""

    def __init__(self, title: str, console: Console) -> None:
        columns: list[ProgressColumn] = [
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("step {task.fields[step]:>5}  loss {task.fields[loss]:6.3f}"),
            TextColumn("scale {task.fields[scale]:5.1f}"),
            TimeRemainingColumn(),
        ]
        self.shown: dict[str, float] | None = None
        self.bar = Progress(*columns, console=console, transient=not console.is_terminal)
        self.task = self.bar.add_task(title, total=1.0, step=0, loss=float("nan"), scale=float("nan"))

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, ECLIPModule)
        if module.curve and module.curve[-1] is not self.shown:
            point = self.shown = module.curve[-1]
            self.bar.update(
                self.task,
                completed=module.clock.share(trainer.global_step),
                step=trainer.global_step,
                loss=point["loss"],
                scale=point["logit_scale"],
            )

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.bar.update(self.task, completed=1.0, step=trainer.global_step)
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()
