"""A view and a command enter; a bubblewrap that is set up and waits for the word to go leaves."""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from agent.sandbox.account import drop_command
from agent.sandbox.arguments import View, etc_files, masked_sources, view_arguments
from agent.sandbox.base import RUN_DIR, Limits, SandboxUnavailable
from agent.sandbox.forkserver import ForkServer, ForkServerFailed, namespaces_of
from agent.sandbox.processes import NamespaceProcesses
from agent.sandbox.refusals import explain, not_installed
from agent.sandbox.seccomp import filter_program
from agent.sandbox.strays import supervisor_mark
from agent.sandbox.text import clean_text

# Everything is isolated but the user namespace, which only an ordinary user needs and may have.
_ISOLATION = (
    *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--cap-drop", "ALL", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
)
_AS_USER = ("--unshare-user", "--disable-userns")
# Root stays root until every bind source is open, then becomes nobody (account.py). Process 1 stays root's:
# the payload cannot touch it.
_AS_ROOT = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP")
# The first line of output proves that every step of the setup worked; the command starts when the supervisor
# watches, and never if the supervisor has died meanwhile. If the machine runs out of memory, it goes first.
_READY = b"ready\n"
_PRELUDE = (
    'echo 1000 >/proc/self/oom_score_adj && echo ready && read -r go || exit 125; "$@" </dev/null; exit $?'
)
# With a fork server, a process from outside comes in, and its end is the sandbox's.
_PRELUDE_OF_FORKS = (
    'echo 1000 >/proc/self/oom_score_adj && echo ready && read -r code || exit 125; exit "$code"'
)
_START_SECONDS = 30.0


class SandboxKilled(RuntimeError):
    """Something on this machine killed it while it started; nothing ran."""


@dataclass(frozen=True)
class Started:
    """A sandbox whose command has not begun. `status`, `output`: read ends of bubblewrap's two pipes."""

    process: subprocess.Popen[bytes]
    processes: NamespaceProcesses
    status: int
    output: int
    first: int
    view: View

    def go(self) -> None:
        """Let the command begin."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # killed from elsewhere; the supervisor will see it gone
            self.process.stdin.write(b"go\n")
        self.process.stdin.close()

    def go_by(self, server: ForkServer, command: Sequence[str]) -> None:
        """Let a fork of the server come in and run `command`, a script and its arguments.

        Raises ForkServerFailed; then the sandbox is of no further use.
        """
        assert self.process.stdin is not None
        request = {
            "command": list(command),
            "uid": self.view.uid if os.geteuid() == 0 else None,
            "rlimits": rlimits(self.view.limits),
            "folder": RUN_DIR,
        }
        with ExitStack() as stack:
            stack.callback(self.process.stdin.close)
            program = _content(stack, filter_program(platform.machine()))
            try:
                output = os.open(f"/proc/{self.process.pid}/fd/1", os.O_WRONLY | os.O_CLOEXEC)
                stack.callback(os.close, output)
                namespaces = namespaces_of(self.first, stack)
            except OSError as error:
                raise ForkServerFailed(f"the sandbox was gone before the run came: {error}") from error
            server.fork(request, self.process.stdin.fileno(), output, [program, *namespaces])

    def exit_code(self) -> int | None:
        """Wait for bubblewrap; the code that it reported, None when it was itself killed."""
        self.process.wait()
        os.set_blocking(self.status, False)
        try:
            documents = [json.loads(line) for line in os.read(self.status, 4096).splitlines()]
        except BlockingIOError:
            return None
        return next((document["exit-code"] for document in documents if "exit-code" in document), None)


@contextmanager
def start(view: View, command: Sequence[str] | None) -> Iterator[Started]:
    """bubblewrap, set up and waiting for the word to go; killed, with all inside, on leaving.

    command: None where a fork server's process will come in.
    The caller's thread must live until then: the kernel ties --die-with-parent to it.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise not_installed()
    with ExitStack() as stack:
        passed = [_content(stack, filter_program(platform.machine()))]
        data = {name: _content(stack, content) for name, content in etc_files(view.uid).items()}
        masked = masked_sources(view.masked, view.mounts)
        empty = {path: _content(stack, b"") for path, is_folder in masked.items() if not is_folder}
        arguments = [*_ISOLATION, *(_AS_ROOT if os.geteuid() == 0 else _AS_USER)]
        arguments += [*view_arguments(view, data, empty), "--seccomp", str(passed[0])]
        # through a descriptor, so that /proc/1/cmdline shows no host path
        passed.append(_content(stack, "\0".join(arguments).encode()))
        status, status_inside = os.pipe()
        stack.callback(os.close, status)
        prelude = [_PRELUDE, "sh", *command] if command is not None else [_PRELUDE_OF_FORKS]
        inside = [*drop_command(view.uid), *_prlimit(view.limits), "sh", "-c", *prelude]
        try:
            process = subprocess.Popen(
                [bwrap, "--args", str(passed[1]), "--json-status-fd", str(status_inside), "--", *inside],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                close_fds=True, pass_fds=[*passed, *data.values(), *empty.values(), status_inside],
                env={"PATH": "/usr/bin:/bin"}, cwd="/", start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(status_inside)
        stack.enter_context(process)
        # bubblewrap's death is the namespace's: --die-with-parent
        stack.callback(process.kill)
        assert process.stdout is not None
        # programs may open /dev/stdout anew, and then it must be theirs
        os.fchown(process.stdout.fileno(), view.uid, -1)
        yield _await_ready(stack, process, status, view)


def _await_ready(stack: ExitStack, process: subprocess.Popen[bytes], status: int, view: View) -> Started:
    assert process.stdout is not None
    output = process.stdout.fileno()
    line = _read_line(output, time.monotonic() + _START_SECONDS)
    if line != _READY:
        if not line:
            _refuse_killed(process)
        process.kill()
        process.wait()
        raise explain(clean_text(line + process.stdout.read()))
    said = os.read(status, 4096).splitlines()
    if not said:
        raise explain("it reported no process, so what answers to `bwrap` is something else")
    first = json.loads(said[0])["child-pid"]
    try:
        processes = NamespaceProcesses(first, parent=process.pid)
    except OSError as error:
        _refuse_killed(process)
        raise SandboxUnavailable(
            f"the sandbox's own /proc cannot be watched from outside ({error})",
            "let this user see its own processes' /proc entries (hidepid, ptrace restrictions)",
        ) from error
    stack.callback(processes.close)
    stack.callback(_kill_and_wait, processes)
    return Started(process, processes, status, output, first, view)


def _refuse_killed(process: subprocess.Popen[bytes]) -> None:
    """Raises SandboxKilled if that is how it ended. bubblewrap says 128 + signal of what it held."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(timeout=2.0)
        if code < 0 or code > 128:
            raise SandboxKilled(code)


def _kill_and_wait(processes: NamespaceProcesses) -> None:
    processes.kill()
    select.select([processes.fileno()], [], [])


def _read_line(descriptor: int, deadline: float) -> bytes:
    """Up to and with the first newline, byte by byte so that nothing behind it is taken; less at the end."""
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return line + b"(and then nothing for %d s)" % _START_SECONDS
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return line


def rlimits(limits: Limits) -> dict[str, int]:
    """Name of a kernel limit of one process -> its value, soft and hard."""
    found = {
        "nproc": limits.processes,
        "nofile": limits.open_files,
        "fsize": limits.file_bytes,
        "core": 0,
    }
    if limits.cpu_seconds is not None:
        # per process, behind the watch, which counts them all
        found["cpu"] = int(limits.cpu_seconds) + 2
    return found


def _prlimit(limits: Limits) -> list[str]:
    return ["prlimit", *(f"--{name}={value}:{value}" for name, value in rlimits(limits).items()), "--"]


def _content(stack: ExitStack, content: bytes) -> int:
    """A descriptor at the beginning of a memory file with `content`."""
    descriptor = os.memfd_create(supervisor_mark())
    stack.callback(os.close, descriptor)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
