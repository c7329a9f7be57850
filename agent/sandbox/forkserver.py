"""Names of libraries enter; a process that has imported them, and starts a run inside a sandbox in no time, leaves.

Importing takes seconds of CPU time, which a run would pay before its first step, or, imported ahead, would take
from the run before it. A fork pays them once. The server holds libraries alone: it never sees a run's code, data or
output, and a fork cannot reach it (agent/sandbox/preloaded.py). What it was built on is looked at before each fork;
where anything differs it is replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent.sandbox.base import Preload

BEGUN = "begun"  # as preloaded.py says it
_PROGRAM = Path(__file__).with_name("preloaded.py")
_NS_GET_PARENT = 0xB702
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_READY_SECONDS, _FORK_SECONDS = 120.0, 30.0


class ForkServerFailed(RuntimeError):
    """Nothing was started, and a cold start is needed: the message says why."""


class ForkServer:
    """Use it from several threads at once; `close` it, or use it as a context manager."""

    def __init__(self, preload: Preload, environment: Mapping[str, str]) -> None:
        """Returns at once; the imports go on meanwhile. `environment` is all that the forks see of it."""
        self.preload, self.environment = preload, dict(environment)
        self._packages = installed_packages()
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as stack:
            program = _sealed(stack, "preloaded", _PROGRAM)
            interpreter = _sealed(stack, "python", Path(sys.executable))
            self._process = subprocess.Popen(
                # a copy of the interpreter: /proc/self/exe leads around a sandbox's read-only mounts
                [sys.executable, f"/dev/fd/{program}", str(theirs.fileno())],
                executable=f"/proc/self/fd/{interpreter}",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=True,
                pass_fds=[program, interpreter, theirs.fileno()], env=self.environment, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        self._control.send(json.dumps({"modules": preload.modules, "hidden": preload.hidden}).encode())

    def fits(self, preload: Preload, environment: Mapping[str, str]) -> bool:
        """Whether this server is what would be started now."""
        wanted = (preload, dict(environment), installed_packages())
        return wanted == (self.preload, self.environment, self._packages) and self._process.poll() is None

    def wait(self) -> None:
        """Return when everything is imported. Raises ForkServerFailed, at once where that is known."""
        with self._lock:
            if self._problem is None:
                self._problem = self._answer()
            if self._problem:
                raise ForkServerFailed(self._problem)

    def _answer(self) -> str:
        """What went wrong, as it says once; empty if nothing."""
        try:
            readable = select.select([self._control], [], [], _READY_SECONDS)[0]
            answer = self._control.recv(1 << 16) if readable else b""
        except (OSError, ValueError):  # closed meanwhile, for another server
            answer = b""
        return json.loads(answer)["problem"] if answer else "the fork server did not start"

    def fork(self, request: Mapping[str, Any], ending: int, output: int, others: Sequence[int]) -> None:
        """A process that runs request["command"]; see preloaded.py. Returns when it is about to begin.

        ending: receives the exit code as a line. output: its standard output and error. others: the seccomp
        program and the namespaces, in the order of their being entered. Raises ForkServerFailed.
        """
        self.wait()
        read, write = os.pipe()
        try:
            with self._lock:
                socket.send_fds(
                    self._control, [json.dumps(request).encode()], [ending, write, output, *others]
                )
        except OSError as error:
            raise ForkServerFailed(f"the fork server is gone: {error.strerror}") from error
        finally:
            os.close(write)
            with os.fdopen(read, "rb", buffering=0) as report:
                said = _until_closed(report.fileno())
        if said != BEGUN:
            raise ForkServerFailed(f"the fork did not get into the sandbox: {said or 'its server ended'}")

    def close(self) -> None:
        """Ends the server; what it has forked lives on."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def installed_packages() -> tuple[tuple[str, int], ...]:
    """What changes when a package is installed, upgraded or removed: folders of packages, and when they changed."""
    paths = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")} | {
        os.path.realpath(sys.executable)
    }
    return tuple((path, Path(path).stat().st_mtime_ns) for path in sorted(paths))


def namespaces_of(first: int, stack: ExitStack) -> list[int]:
    """Descriptors of the namespaces of process `first` that differ from ours, in the order of their being entered.

    bubblewrap's --disable-userns leaves two user namespaces, one in the other. The outer one owns all the others and
    comes first, since only there may they be entered; the inner one, which is the payload's, comes last.
    """

    def opened(name: str) -> int:
        descriptor = os.open(f"/proc/{first}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        return descriptor

    others = [opened(name) for name in ("cgroup", "ipc", "uts", "net", "pid", "mnt")]
    inner, ours = opened("user"), Path("/proc/self/ns/user").stat().st_ino
    if os.fstat(inner).st_ino == ours:
        return others
    outer = fcntl.ioctl(inner, _NS_GET_PARENT)
    stack.callback(os.close, outer)
    return [*([] if os.fstat(outer).st_ino == ours else [outer]), *others, inner]


def _sealed(stack: ExitStack, name: str, path: Path) -> int:
    """A descriptor of a copy of `path` in memory that nobody can write to."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    with path.open("rb") as source, os.fdopen(os.dup(descriptor), "wb") as copy:
        shutil.copyfileobj(source, copy)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _until_closed(descriptor: int) -> str:
    """What the fork reports until it closes its end: BEGUN, or what went wrong."""
    deadline, said = time.monotonic() + _FORK_SECONDS, b""
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(descriptor, 4096)
        if not chunk:
            return said.decode(errors="replace")
        said += chunk
    return f"no answer within {_FORK_SECONDS:g} s"
