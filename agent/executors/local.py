"""Trials side by side on this machine: each worker gets its share of the cores and a GPU of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from agent.executors.base import ExecutorError, checked_count, threads_of
from agent.runner import Runner
from agent.sandbox import Sandbox
from agent.sandbox.devices import card_numbers, gpu_devices


class Local:
    """`workers` runs at a time.

    threads: of one run; None: this machine's cores, shared out. per_gpu: how many workers may share a GPU,
    on machines that have one.
    """

    def __init__(self, workers: int = 1, threads: int | None = None, per_gpu: int = 1) -> None:
        self.workers = checked_count("workers", workers)
        self.threads = threads_of(self.workers, threads)
        self.per_gpu = checked_count("per_gpu", per_gpu)

    def runners(self, runner: Runner, stack: ExitStack) -> Sequence[Runner]:
        """See Executor.runners."""
        shared = replace(runner, environment={**runner.environment, **thread_environment(self.threads)})
        if self.workers == 1:
            return [shared]
        cards = self._cards(runner.sandbox)
        return [
            replace(shared, sandbox=runner.sandbox.with_gpus([cards[n % len(cards)]])) if cards else shared
            for n in range(self.workers)
        ]

    def _cards(self, sandbox: Sandbox) -> Sequence[int]:
        cards = sandbox.gpus()
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if cards and chosen is not None and cards == card_numbers(gpu_devices()):
            raise ExecutorError(
                f"CUDA_VISIBLE_DEVICES={chosen} counts cards in CUDA's order, and several workers are given cards by "
                f"their device's number, here {cards}: unset it, and name those to use (sandbox.backend.gpus={cards})"
            )
        if cards and self.workers > len(cards) * self.per_gpu:
            raise ExecutorError(
                f"executor.workers={self.workers}: runs may use {len(cards)} GPU(s), {self.per_gpu} worker(s) each; "
                f"take executor.workers={len(cards) * self.per_gpu}, let workers share a card "
                f"(executor.per_gpu={-(-self.workers // len(cards))}), or leave the cards alone "
                "(sandbox.backend.gpus=none)"
            )
        return cards


def thread_environment(threads: int) -> Mapping[str, str]:
    """What makes a run use so many threads."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
