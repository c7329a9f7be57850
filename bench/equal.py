"""A workload goes in; what train.py and the plain loop score after the same steps, seed by seed, comes out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table
from scipy import stats

from bench.evaluation import argsort_ranks
from bench.plain import PlainLoop
from bench.workload import Workload
from eclip.metrics import retrieval_scores
from eclip.training import build_module, embed_candidates, train_fold


@dataclass(frozen=True)
class Pair:
    """Mean ranks (less is better) and seconds of one seed: `fast` is train.py's."""

    seed: int
    fast: float
    plain: float
    fast_seconds: float
    plain_seconds: float


def compare(workload: Workload, seed: int) -> Pair:
    """Trains both ways on one fold for settings.trainer.max_steps, from the same weights."""
    workload = replace(workload, settings=replace(workload.settings, seed=seed))
    began = time.perf_counter()
    fast = fast_score(workload)
    between = time.perf_counter()
    plain = plain_score(workload)
    return Pair(seed, fast, plain, between - began, time.perf_counter() - between)


def fast_score(workload: Workload) -> float:
    """As train.py trains, embeds and scores."""
    settings, data = workload.settings, workload.data
    module = build_module(settings, data, None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = train_fold(module, settings, data, Path(folder), Console(stderr=True))
    return retrieval_scores(*embed_candidates(trainer, module, data))["mean_rank"]


def plain_score(workload: Workload) -> float:
    """From image files and texts to sorted similarities, nothing of it shared."""
    loop = PlainLoop(workload)
    loop.train(workload.settings.trainer.max_steps)
    to_text_N, to_image_N = argsort_ranks(*loop.embed())
    return float(to_text_N.mean() + to_image_N.mean()) / 2


def welch(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of mean(first) - mean(second), the variances not taken for equal."""
    found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(confidence)
    return float(found.low), float(found.high)


def paired(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean difference of pairs."""
    found = stats.ttest_rel(first, second).confidence_interval(confidence)
    return float(found.low), float(found.high)


def table(pairs: Sequence[Pair], title: str) -> Table:
    """Each seed, the means, and the difference with its 95 % intervals (from two seeds on)."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("mean rank")
    for heading in ("train.py", "plain loop", "difference"):
        shown.add_column(heading, justify="right")
    for pair in pairs:
        row = (pair.fast, pair.plain, pair.fast - pair.plain)
        shown.add_row(f"seed {pair.seed}", *(f"{value:.1f}" for value in row))
    fast, plain = [pair.fast for pair in pairs], [pair.plain for pair in pairs]
    if len(pairs) > 1:
        sides = [f"{mean(side):.1f} ± {stdev(side):.1f}" for side in (fast, plain)]
        shown.add_row("all", *sides, f"{mean(fast) - mean(plain):+.1f}")
        for name, interval in (("paired", paired), ("Welch", welch)):
            low, high = interval(fast, plain)
            shown.add_row(f"95 %, {name}", "", "", f"{low:+.1f} to {high:+.1f}")
    return shown
