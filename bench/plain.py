"""The plain recipe on a workload's prints: what a person would write first goes in, seconds of each lap come out.

Four DataLoader workers open, decode and resize each print and draw its heatmap, item by item; texts are
tokenised in every step, padded to their full length; float32, AdamW parameter by parameter.
The model, the loss and the share of expert steps are those of train.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.loops import Seconds, device_of, timed
from bench.workload import Workload
from eclip.data.odvg import Record
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


class PlainLoop:
    """Call `lap` as often as wanted; close() ends the workers."""

    def __init__(self, workload: Workload) -> None:
        settings = self.settings = workload.settings
        self.device = device_of(settings)
        self.module = build_module(settings, workload.data, None).to(self.device).train()
        self.tokenizer = Tokenizer.from_file(str(workload.data.tokenizer_path))
        groups = [dict(group) for group in self.module.configure_optimizers().param_groups]
        plain = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in groups]
        self.optimizer = torch.optim.AdamW(plain, lr=settings.optimizer.lr, foreach=False, fused=False)
        rows = workload.data.train_rows_N
        files = PrintFiles([workload.annotations.records[row] for row in rows], settings.model.image_size)
        self.loader = DataLoader(
            files, settings.trainer.batch_size, shuffle=True, drop_last=True, num_workers=WORKERS
        )
        self.rng = np.random.default_rng(settings.seed)

    def seconds(self, lap: int, laps: int) -> Seconds:
        """Seconds of `laps` laps; a first one, in which the workers start and their queues fill, does not count."""
        batches = self._endless()
        times = [timed(lambda: self._steps(batches, lap), self.device) for _ in range(1 + laps)]
        batches.close()
        return times[1:]

    def _endless(self) -> Any:
        def generate() -> Iterator[Any]:
            while True:
                yield from self.loader

        return generate()

    def _steps(self, batches: Iterator[Any], count: int) -> None:
        for _ in range(count):
            self.step(*next(batches))

    def step(self, image_BCHW: Tensor, heatmap_BHW: Tensor, captions: Any, phrases: Any) -> float:
        """One training step; the loss is read, as plain code does to print it."""
        model = self.settings.model
        pixels = self.module.pixels
        mean_C11, std_C11 = (torch.tensor(pixels[name])[:, None, None] for name in ("mean", "std"))
        inputs = {
            "image_BCHW": ((image_BCHW - mean_C11) / std_C11).to(self.device),
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
        return float(loss.detach())

    def _tokens(self, texts: list[str], length: int) -> Tensor:
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(length=length)
        return torch.tensor([encoded.ids for encoded in self.tokenizer.encode_batch(texts)]).to(self.device)
