"""Trials side by side on a Ray cluster: each run is a task with resources, in the sandbox of the node it gets.

Ray finds a node that has the cores and cards, and another one where a node is lost; the lab does no scheduling of
its own. What is decided and judged stays here, and so do the keys: a node gets code, one sealed fold, a command
and limits, and gives back what the run left.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.executors.base import ExecutorError, checked_count, threads_of
from agent.executors.local import thread_environment
from agent.executors.node import Answer, Errand, carry_out, lab_code
from agent.executors.shipping import Parcel, bundle, digest, files
from agent.runner import Runner
from agent.sandbox import Finished, Job, Preload, Sandbox, SandboxUnavailable

POLL_SECONDS = 0.2
CANCEL_SECONDS = 15.0


class Ray:
    """`workers` runs at a time, anywhere in the cluster.

    address: None starts Ray on this machine alone; "auto" or host:port joins a cluster. threads, gpus: of one run;
    a share of a card is allowed. retries: how often a run begins anew whose node was lost. cache: on each node, for
    code and sealed folds.
    """

    def __init__(
        self,
        workers: int,
        address: str | None = None,
        threads: int | None = None,
        gpus: float = 0.0,
        retries: int = 3,
        cache: str = "~/.cache/kento",
    ) -> None:
        self.workers = checked_count("workers", workers)
        self.address, self.gpus, self.retries, self.cache = address, gpus, retries, cache
        self.threads = threads_of(self.workers, threads)

    def runners(self, runner: Runner, stack: ExitStack) -> Sequence[Runner]:
        """See Executor.runners."""
        ray = _ray()
        if not ray.is_initialized():
            alone = {} if self.address else {"include_dashboard": False}
            try:
                address = self.address or "local"
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ExecutorError(
                    f"executor.address={self.address}: no Ray cluster there ({error}); start one with "
                    "`ray start --head`, join nodes with `ray start --address=HOST:6379`"
                ) from error
            stack.callback(ray.shutdown)
        self._require_room(ray)
        environment = {**runner.environment, **thread_environment(self.threads)}
        sandbox = Elsewhere(ray, runner.sandbox, self)
        # what is compiled on one node may hold instructions that another one lacks
        task = replace(runner.task, compiled=None)
        return [replace(runner, task=task, sandbox=sandbox, environment=environment)] * self.workers

    def _require_room(self, ray: Any) -> None:
        """A run that fits no node would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(
            node.get("CPU", 0) >= self.threads and node.get("GPU", 0) >= min(self.gpus, 1) for node in nodes
        ):
            has = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ExecutorError(
                f"executor.threads={self.threads}, executor.gpus={self.gpus:g}: no node of the cluster has that "
                f"much ({has})"
            )


class Elsewhere:
    """A Sandbox whose runs are carried out on nodes of the cluster; safe for several threads."""

    def __init__(self, ray: Any, inner: Sandbox, settings: Ray) -> None:
        self.name = inner.name
        self._ray, self._inner, self._settings = ray, inner, settings
        self._task = ray.remote(_on_node)
        self._lock = threading.Lock()
        self._data: dict[Path, Parcel] = {}
        self._code: OrderedDict[str, Parcel] = OrderedDict()

    def check(self) -> None:
        """The nodes check themselves, each before its first run."""

    def shown(self) -> Sequence[Path]:
        """See Sandbox.shown; of the machine that the loop is on, which may be a node."""
        return self._inner.shown()

    def gpus(self) -> list[int]:
        """Ray hands out the cards."""
        return []

    def with_gpus(self, numbers: Sequence[int]) -> Elsewhere:
        """Ray hands out the cards."""
        return self

    def prepare(self, preload: Preload, environment: Mapping[str, str]) -> None:
        """Nodes start every interpreter anew."""

    def close(self) -> None:
        """Nothing was prepared."""

    def run(self, job: Job, stop: threading.Event | None = None) -> Finished:
        """See Sandbox.run.

        Raises SandboxUnavailable with the node's name; ShippingError.
        """
        began = time.monotonic()
        parcels = [(self._parcel(mount.source), mount.target) for mount in job.mounts]
        # nodes start every interpreter anew
        there = replace(job, mounts=(), preload=None)
        errand = Errand(self._inner, there, parcels, sys.executable, lab_code(), self._settings.cache)
        task = self._task.options(
            num_cpus=self._settings.threads,
            num_gpus=self._settings.gpus,
            max_retries=self._settings.retries,
            scheduling_strategy="SPREAD",
        ).remote(errand)
        answer = self._answer(task, stop)
        elapsed = time.monotonic() - began
        if answer is None:
            return Finished(None, "stop", elapsed, 0, "", started=True)
        if answer.finished is None:
            cause, fix = answer.refused or ("it was lost", "look at Ray's logs there")
            if answer.refused is None:
                # like a sandbox that something else on the machine has killed
                return Finished(None, None, elapsed, 0, cause, started=True)
            raise SandboxUnavailable(f"node {answer.node}: {cause}", fix)
        for name, content in answer.files.items():
            (job.run_dir / name).write_bytes(content)
        job.log_path.write_bytes(answer.log)
        return replace(answer.finished, waited=max(elapsed - answer.seconds, 0.0))

    def _answer(self, task: Any, stop: threading.Event | None) -> Answer | None:
        """What came back; None when `stop` was set and the run has been ended."""
        ray = self._ray
        while not ray.wait([task], timeout=POLL_SECONDS)[0]:
            if stop is not None and stop.is_set():
                self._cancel(task)
                return None
        try:
            answer: Answer = ray.get(task)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as error:
            return Answer("", finished=None, log=str(error).encode())
        return answer

    def _cancel(self, task: Any) -> None:
        """Ends the run: asked first, so that the sandbox clears up; then by force, which ends it as well."""
        for force in (False, True):
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(task, force=force)
            if self._ray.wait([task], timeout=CANCEL_SECONDS)[0]:
                return

    def _parcel(self, folder: Path) -> Parcel:
        """The folder in Ray's object store, put there once."""
        with self._lock:
            if (folder / ".git").exists():
                return self._code_parcel(folder)
            if folder not in self._data:
                parts = {name: self._put(path) for name, path in files(folder).items()}
                self._data[folder] = Parcel("files", digest(folder), parts)
            return self._data[folder]

    def _code_parcel(self, folder: Path) -> Parcel:
        tree, data = bundle(folder)
        if tree not in self._code:
            self._code[tree] = Parcel("bundle", tree, {"bundle": self._ray.put(data)})
        self._code.move_to_end(tree)
        while len(self._code) > 4 * self._settings.workers:
            self._code.popitem(last=False)
        return self._code[tree]

    def _put(self, path: Path) -> Any:
        return self._ray.put(np.fromfile(path, dtype=np.uint8))


def _on_node(errand: Errand) -> Answer:
    """The body of a task."""
    import ray

    return carry_out(errand, ray.get, [int(card) for card in ray.get_gpu_ids()])


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ExecutorError("executor=ray needs Ray: pip install 'kento[ray]'") from error
    return ray
