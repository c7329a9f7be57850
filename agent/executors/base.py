"""Settings of an executor go in; runners leave, one for each trial that may run at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from agent.runner import Runner


class ExecutorError(ValueError):
    """The executor cannot be set up as asked; the message names the key and says what to do."""


class Executor(Protocol):
    """Where runs are carried out. Trials, verdicts and the keys of sealed folds stay where the loop is."""

    workers: int

    def runners(self, runner: Runner, stack: ExitStack) -> Sequence[Runner]:
        """`workers` runners that may be used at the same time, each by one thread.

        runner: of one run alone on this machine. What must be given up at the end is put on `stack`. Raises
        ExecutorError, SandboxUnavailable.
        """


def checked_count(key: str, value: int) -> int:
    """Raises ExecutorError for what is no number of workers, threads, …"""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ExecutorError(f"executor.{key}={value!r}: expected a whole number of at least 1")
    return value


def threads_of(workers: int, threads: int | None) -> int:
    """Of one run; None: this machine's cores, shared out. Raises ExecutorError."""
    shared = max(1, len(os.sched_getaffinity(0)) // workers)
    return shared if threads is None else checked_count("threads", threads)
