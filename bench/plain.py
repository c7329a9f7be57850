"""The plain recipe on a workload's prints: what a person would write first, to be trained or timed in laps.

Four DataLoader workers open, decode and resize each print and draw its heatmap, item by item; texts are
tokenised in every step, padded to their full length, and the padding is encoded; patches are embedded by the
general convolution; float32, AdamW parameter by parameter. The weights at the start, the loss, the schedule and
the share of expert steps are those of train.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench.loops import device_of
from bench.workload import Workload
from eclip.data.odvg import Record
from eclip.data.splits import folds
from eclip.metrics import Array
from eclip.models.tiny import TinyText
from eclip.models.transformer import PatchConv
from eclip.schedules import learning_rate_factor
from eclip.training import build_module

WORKERS = 4
Item = tuple[Tensor, Tensor, str, str]


class PrintFiles(Dataset[Item]):
    """(image_CHW in [0, 1], heatmap_HW, caption, one phrase) of each print, from its file."""

    def __init__(self, records: list[Record], size: int) -> None:
        self.records, self.size = records, size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        record = self.records[index]
        with Image.open(record.path) as file:
            image = file.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        image_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        phrase = record.regions[int(torch.randint(len(record.regions), ()))].phrase
        return image_CHW, item_heatmap(record, self.size), record.caption, phrase


def item_heatmap(record: Record, size: int) -> Tensor:
    """FACTS' definition, box after box, over the whole image."""
    pixels = (torch.arange(size) + 0.5) / size
    heatmap_HW = torch.zeros(size, size)
    for region in record.regions:
        for left, top, right, bottom in region.boxes:
            x, y = (left + right) / 2 / record.width, (top + bottom) / 2 / record.height
            wide = max((right - left) / 2 / record.width, 0.02)
            high = max((bottom - top) / 2 / record.height, 0.02)
            square_HW = ((pixels - x) / wide)[None, :] ** 2 + ((pixels - y) / high)[:, None] ** 2
            heatmap_HW = torch.maximum(heatmap_HW, torch.exp(-0.5 * square_HW))
    return heatmap_HW


class Convolution(nn.Module):
    """A patch embedding with the weights of `fast`, by the general kernel: [B, C, H, W] -> [B, P, F]."""

    def __init__(self, fast: PatchConv) -> None:
        super().__init__()
        self.weight, self.bias, self.stride = fast.weight, fast.bias, fast.patch_size

    def forward(self, image_BCHW: Tensor) -> Tensor:
        image_BFhw = nn.functional.conv2d(image_BCHW, self.weight, self.bias, self.stride)
        return image_BFhw.flatten(2).transpose(1, 2)


def make_plain(model: nn.Module) -> None:
    """The same function of the same weights without what train.py's model does to be fast, in place."""
    for part in list(model.modules()):
        if isinstance(part, TinyText):
            part.skip_padding = False
        for name, child in list(part.named_children()):
            if isinstance(child, PatchConv):
                setattr(part, name, Convolution(child))


class PlainLoop:
    """`train` runs a training; `load` and `run` make laps of it. Use it as a context: at its end the workers end.

    Between laps the workers are stopped: else they would take the processor from the other loops' laps, and fill
    their queues for free.
    """

    def __init__(self, workload: Workload) -> None:
        settings = self.settings = workload.settings
        self.device = device_of(settings)
        self.workload = workload
        self.module = build_module(settings, workload.data, None).to(self.device).train()
        make_plain(self.module.model)
        self.tokenizer = Tokenizer.from_file(str(workload.data.tokenizer_path))
        groups = [dict(group) for group in self.module.configure_optimizers().param_groups]
        plain = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in groups]
        self.optimizer = torch.optim.AdamW(plain, lr=settings.optimizer.lr, foreach=False, fused=False)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        files = self._files(workload.data.train_rows_N)
        # the order of its own seed: the start of the weights is train.py's, the rest is not
        generator = torch.Generator().manual_seed(self.module.seed)
        self.loader = DataLoader(
            files,
            settings.trainer.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=WORKERS,
            generator=generator,
        )
        self._batches = self._endless()
        self._workers: list[Any] = []
        self._lap = 0
        self.rng = np.random.default_rng(settings.seed)

    def _rate(self, step: int) -> float:
        """The factor of the learning rate, as train.py's."""
        settings = self.settings.optimizer
        share = step / self.settings.trainer.max_steps
        return learning_rate_factor(share, settings.warmup, settings.cosine_floor)

    def _files(self, rows: Iterable[int]) -> PrintFiles:
        records = self.workload.annotations.records
        return PrintFiles([records[row] for row in rows], self.settings.model.image_size)

    def train(self, steps: int) -> None:
        with self:
            self._steps(self._batches, steps)

    @torch.no_grad()
    def embed(self) -> tuple[Array, Array]:
        """(image_ND, text_ND) of the fold's validation prints, in one order, decoded and tokenised anew."""
        data, model = self.settings.data, self.module.model.eval()
        fold = self.workload.data.fold
        assert fold is not None
        pool = len(self.workload.annotations.records)
        _, rows = folds(pool, data.fold_count, data.split_seed)[fold]
        images, texts = [], []
        for image_BCHW, _, captions, _ in DataLoader(self._files(rows), 256, num_workers=WORKERS):
            images.append(model.encode_image(self._normalised(image_BCHW)))
            tokens_BL = self._tokens(list(captions), self.settings.model.caption_tokens)
            texts.append(model.encode_text(tokens_BL))
        return torch.cat(images).cpu().numpy(), torch.cat(texts).cpu().numpy()

    def _normalised(self, image_BCHW: Tensor) -> Tensor:
        pixels = self.module.pixels
        mean_C11, std_C11 = (torch.tensor(pixels[name])[:, None, None] for name in ("mean", "std"))
        return ((image_BCHW - mean_C11) / std_C11).to(self.device)

    def load(self, steps: range) -> None:
        self._lap = len(steps)

    def run(self) -> None:
        """A lap of as many steps as were loaded. In the first one the workers start and their queues fill."""
        self._signal(signal.SIGCONT)
        self._steps(self._batches, self._lap)
        self._signal(signal.SIGSTOP)

    def __enter__(self) -> PlainLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        self._batches.close()

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.is_alive():
                os.kill(worker.pid, number)

    def _endless(self) -> Any:
        def generate() -> Iterator[Any]:
            while True:
                epoch: Any = iter(self.loader)
                self._workers = epoch._workers
                yield from epoch

        return generate()

    def _steps(self, batches: Iterator[Any], count: int) -> None:
        for _ in range(count):
            self.step(*next(batches))

    def step(self, image_BCHW: Tensor, heatmap_BHW: Tensor, captions: Any, phrases: Any) -> float:
        """One training step; the loss is read, as plain code does to print it."""
        model = self.settings.model
        inputs = {
            "image_BCHW": self._normalised(image_BCHW),
            "caption_BL": self._tokens(list(captions), model.caption_tokens),
        }
        if self.module.model.fusion is not None and self.rng.random() < self.settings.expert.probability.max:
            alpha = self.settings.expert.mixup_alpha
            mix_B = self.rng.beta(alpha, alpha, size=len(image_BCHW)).astype(np.float32)
            inputs["heatmap_BHW"] = heatmap_BHW.to(self.device)
            inputs["phrase_BL"] = self._tokens(list(phrases), model.phrase_tokens)
            inputs["mix_B"] = torch.from_numpy(mix_B).to(self.device)
        loss = self.module.objective(**self.module.model(**inputs))["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.model.parameters(), self.settings.optimizer.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _tokens(self, texts: list[str], length: int) -> Tensor:
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(length=length)
        return torch.tensor([encoded.ids for encoded in self.tokenizer.encode_batch(texts)]).to(self.device)
