"""An untrusted command enters; it runs inside bubblewrap under limits, and how it ended leaves."""

from __future__ import annotations

import copy
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.sandbox.account import owned_by, payload_uid, require_open
from agent.sandbox.arguments import HOME, View, system_folders
from agent.sandbox.base import Finished, Job, Limits, Preload, SandboxUnavailable
from agent.sandbox.cuda import PROBE, unusable
from agent.sandbox.devices import Gpus, card_numbers, choice_of_cards, gpu_devices
from agent.sandbox.forkserver import ForkServerFailed
from agent.sandbox.interpreter import interpreter_folders, require_readable
from agent.sandbox.launch import SandboxKilled, Started, start
from agent.sandbox.log import Log
from agent.sandbox.strays import sweep_strays
from agent.sandbox.supervise import Supervisor
from agent.sandbox.warm import Warmth
from agent.sandbox.watch import Watch


class Bubblewrap:
    """Runs commands in bubblewrap 0.8 or newer, as root or as an ordinary user; see the package's docstring.

    gpus: which NVIDIA devices are passed, "all", "none" or their numbers.
    libraries: further folders shown read-only at their own place, for drivers outside /usr.
    warm: where a run says what to preload, fork it from a process that has imported it (agent.sandbox.warm).
    """

    name = "bubblewrap"

    def __init__(self, gpus: Gpus = "all", libraries: Sequence[str] = (), warm: bool = False) -> None:
        self._gpus: Gpus = gpus
        self._devices = gpu_devices(gpus)
        self._libraries = tuple(Path(folder) for folder in libraries)
        self._warmth = Warmth() if warm else None

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Sent to another machine, it becomes that machine's sandbox, with the devices found there."""
        return Bubblewrap, (self._gpus, self._libraries)

    def check(self) -> None:
        """Start the interpreter inside once, and look at what it is allowed; where GPUs are shown, start CUDA.

        Raises SandboxUnavailable: no run is to train on the CPU because its GPU does not work inside.

        Also clears away what a supervisor killed during a start may have left on this machine.
        """
        sweep_strays()
        probe = (
            "import os; status = open('/proc/self/status').read(); "
            "assert os.getuid(), 'still root'; "
            "assert 'CapEff:\\t0000000000000000' in status and 'Seccomp:\\t2' in status, status"
        )
        finished = self._probed(probe, memory_bytes=2**29)
        if finished.returncode != 0:
            raise SandboxUnavailable(
                f"{sys.executable} did not run inside as it must: {finished.log_tail.strip() or finished}",
                "check that the interpreter runs with `-I -c 1`; report this if it does",
            )
        if self._devices:
            finished = self._probed(PROBE, memory_bytes=2**33)
            if finished.returncode != 0:
                raise unusable(finished.log_tail.strip() or str(finished), self._devices)

    def _probed(self, program: str, memory_bytes: int) -> Finished:
        """How a small program ends inside."""
        limits = Limits(
            wall_seconds=60, memory_bytes=memory_bytes, file_bytes=2**20, disk_bytes=2**24, inodes=100,
            log_bytes=2**16, log_kill_bytes=2**20, shm_bytes=2**20, tmp_bytes=2**26,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
            run_dir = Path(folder, "run")
            run_dir.mkdir()
            command = [sys.executable, "-I", "-c", program]
            return self.run(
                Job(command=command, run_dir=run_dir, limits=limits, log_path=Path(folder, "log"))
            )

    def shown(self) -> Sequence[Path]:
        """See Sandbox.shown."""
        return [*system_folders(), *self._interpreter(), *self._libraries]

    def gpus(self) -> list[int]:
        """See Sandbox.gpus."""
        return card_numbers(self._devices)

    def with_gpus(self, numbers: Sequence[int]) -> Bubblewrap:
        """See Sandbox.with_gpus."""
        other = copy.copy(self)
        other._gpus, other._devices = list(numbers), gpu_devices(numbers)
        return other

    def run(self, job: Job, stop: threading.Event | None = None) -> Finished:
        """See Sandbox.run. Safe to call from several threads at once.

        Raises SandboxUnavailable when bubblewrap cannot start, ValueError for a mount that the payload could
        not read or a mask that would hide nothing. The folder's owner is restored afterwards.
        """
        uid = payload_uid()
        require_open(job.mounts, job.run_dir, uid)
        view = View(
            uid, self._interpreter(), self._libraries, self._devices, job.mounts, job.masked,
            job.run_dir.absolute(), self._environment(job.command, job.environment), job.limits,
        )  # fmt: skip
        try:
            with ExitStack() as stack:
                log = stack.enter_context(closing(Log(job.log_path, job.limits.log_bytes)))
                folder = os.open(job.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, folder)
                stack.enter_context(owned_by(job.run_dir, uid))
                cold = ""
                if job.preload is not None and self._warmth is not None:
                    try:
                        server = self._warmth.server(job.command, job.preload, view.environment)
                        with start(view, None) as waiting:
                            watch = Watch(waiting.processes, job.limits, folder)
                            go = partial(waiting.go_by, server, job.command[1:])
                            return _finish(waiting, go, watch, log, job.limits, stop)
                    except ForkServerFailed as error:
                        cold = str(error)
                started = stack.enter_context(start(view, job.command))
                watch = Watch(started.processes, job.limits, folder)
                return replace(_finish(started, started.go, watch, log, job.limits, stop), cold=cold)
        except SandboxKilled:
            return Finished(None, None, 0.0, 0, "", started=False)

    def prepare(self, preload: Preload, environment: Mapping[str, str]) -> None:
        """See Sandbox.prepare."""
        if self._warmth is not None:
            self._warmth.prepare(preload, self._environment([sys.executable], environment))

    def close(self) -> None:
        """See Sandbox.close."""
        if self._warmth is not None:
            self._warmth.close()

    def _environment(self, command: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
        """All that a run sees: ours, what makes the GPUs' drivers found and chosen as outside, and the run's own."""
        libraries = {"LD_LIBRARY_PATH": ":".join(map(str, self._libraries))} if self._libraries else {}
        chosen = choice_of_cards(os.environ) if self._gpus == "all" else {}
        return {**_environment(command), **libraries, **chosen, **environment}

    def _interpreter(self) -> tuple[Path, ...]:
        folders = interpreter_folders()
        require_readable(folders)
        return folders


def _finish(
    started: Started,
    go: Callable[[], None],
    watch: Watch,
    log: Log,
    limits: Limits,
    stop: threading.Event | None,
) -> Finished:
    """Let the command begin, see it to its end, and say how that was."""
    if stop is not None and stop.is_set():
        return Finished(None, "stop", 0.0, 0, "", started=False)
    supervisor = Supervisor(started.processes, watch, started.output, log, limits, started.processes.fileno())
    began = time.monotonic()
    go()
    killed_by = supervisor.supervise(stop)
    seconds = time.monotonic() - began
    code = started.exit_code()
    if killed_by is None and code == 128 + signal.SIGKILL and watch.kernel_ran_out_of_memory():
        killed_by = "memory"
    returncode = None if killed_by else code
    return Finished(returncode, killed_by, seconds, watch.peak_memory_bytes, log.tail(), started=True)


def _environment(command: Sequence[str]) -> dict[str, str]:
    folder = str(Path(command[0]).parent) if command[0].startswith("/") else ""
    path = ":".join(filter(None, (folder, "/usr/local/bin:/usr/bin:/bin")))
    return {
        "PATH": path,
        "HOME": HOME,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "CUDA_CACHE_PATH": "/tmp/cuda",
    }
