"""The checkpoint that survives a kill in the middle, the end of the budget, the bar that shows it."""

from __future__ import annotations

import io
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from eclip.budget import BudgetClock
from eclip.callbacks import BudgetBar, BudgetEnd, Checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*val_dataloader.*")


class Line(L.LightningModule):
    """y = w x, the smallest thing that Lightning trains."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return ((self.w * batch - batch) ** 2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, steps: int, *callbacks: L.Callback) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Line(), DataLoader(torch.ones(64, 1), batch_size=1))
    return trainer


def step_of(path: Path) -> int:
    step: int = torch.load(path, weights_only=False)["global_step"]
    return step


def test_a_checkpoint_is_written_every_so_often_and_at_the_end(tmp_path):
    clock, path = BudgetClock(9, None), tmp_path / "deep" / "fold0.ckpt"
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append(step_of(path) if path.exists() else None)

    fit(tmp_path, 9, BudgetEnd(clock), Checkpoint(path, 1e-9, clock), Look())
    assert seen == list(range(1, 10))
    fit(tmp_path, 5, BudgetEnd(BudgetClock(9, None)), Checkpoint(path, 1e9, clock))
    assert step_of(path) == 5


def test_saving_is_not_training_time(tmp_path):
    class Slow(Checkpoint):
        """Each save takes an hour."""

        def save(self, trainer):
            super().save(trainer)
            time[0] += 3600

    time = [0.0]

    class Tick(L.Callback):
        """Each step takes a second."""

        def on_train_batch_end(self, *_):
            time[0] += 1

    clock = BudgetClock(9, None, lambda: time[0])
    fit(tmp_path, 4, Tick(), BudgetEnd(clock), Slow(tmp_path / "x.ckpt", 1, clock))
    assert time[0] >= 4 * 3600
    assert clock.elapsed() < 3605  # the last save, at the end of training, stops no clock that matters


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    clock, path = BudgetClock(9, None), tmp_path / "fold0.ckpt"
    checkpoint = Checkpoint(path, 1e9, clock)
    trainer = fit(tmp_path, 3, BudgetEnd(clock), checkpoint)
    before = path.read_bytes()

    def die(file: Path, *_: object) -> None:
        Path(file).write_bytes(before[: len(before) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(trainer)
    assert path.read_bytes() == before
    assert step_of(path) == 3
    monkeypatch.undo()
    checkpoint.save(trainer)  # what was left half-written is no obstacle
    assert sorted(item.name for item in tmp_path.iterdir()) == ["fold0.ckpt"]


def test_the_budget_ends_training_and_stops_the_clock(tmp_path):
    time = [0.0]

    class Tick(L.Callback):
        def on_train_batch_end(self, *_):
            time[0] += 1.0

    clock = BudgetClock(1000, 5.0, lambda: time[0])
    trainer = fit(tmp_path, 1000, Tick(), BudgetEnd(clock))
    assert trainer.global_step == 5
    time[0] += 100
    assert clock.elapsed() == 5


def test_an_error_stops_the_clock_too(tmp_path):
    time = [0.0]

    class Fail(L.Callback):
        def on_train_batch_end(self, *_):
            time[0] += 1.0
            raise RuntimeError("no")

    clock = BudgetClock(10, None, lambda: time[0])
    with pytest.raises(RuntimeError, match="no"):
        fit(tmp_path, 10, Fail(), BudgetEnd(clock))
    time[0] += 100
    assert clock.elapsed() == 1


def test_the_bar_shows_step_loss_and_scale(train):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bar = BudgetBar("fold 7", console)
    train("trainer.max_steps=4", callbacks=[bar])
    [task] = bar.bar.tasks
    assert (task.fields["step"], task.completed) == (4, 1.0)
    assert task.fields["loss"] > 0
    shown = console.file.getvalue()
    assert "fold 7" in shown
    assert "loss" in shown
    assert "100%" in shown
