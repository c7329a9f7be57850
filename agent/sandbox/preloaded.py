"""The fork server's program: libraries are imported once; a request leaves a process inside a waiting sandbox.

It runs as `python /dev/fd/N` and imports nothing of the lab: what it forks is to hold libraries and nothing else.
Never runs or imports what a request brings: the fork does, after it has entered the sandbox and given up every
right, descriptor and way back. Nothing that a fork does reaches this process: no shared memory, no descriptor.
"""

# ruff: noqa: PTH110, PTH120, PTH123, PTH208, S102
from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MOST_DESCRIPTORS = 16
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 22, 24, 38, 47
_AMBIENT_CLEAR_ALL, _SECCOMP_FILTER, _CAPABILITIES_VERSION_3 = 4, 2, 0x20080522


def main() -> None:
    """Serves until the other end of the control socket is closed."""
    control = socket.socket(fileno=os.dup2(int(sys.argv[1]), 3))
    _close_all_but(0, 1, 2, control.fileno())
    setup = json.loads(control.recv(1 << 16))
    del sys.path[0]  # where this program lies
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    try:
        preload(setup["modules"], setup["hidden"])
        problem = shared_with_forks(control.fileno())
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    control.send(json.dumps({"problem": problem}).encode())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks' guardians
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, MOST_DESCRIPTORS)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            return guard(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def preload(modules: list[str], hidden: list[str]) -> None:
    """Imports `modules`; meanwhile the packages `hidden`, though installed, are not to be found by probes."""
    version, find_spec = importlib.metadata.version, importlib.util.find_spec
    done = False

    def hiding(probe: Callable[..., Any], error: type[Exception]) -> Callable[..., Any]:
        def probed(name: str, *rest: Any) -> Any:
            if not done and name.partition(".")[0] in hidden:
                raise error(name)
            return probe(name, *rest)

        return probed

    importlib.metadata.version = hiding(version, importlib.metadata.PackageNotFoundError)
    importlib.util.find_spec = hiding(find_spec, ModuleNotFoundError)
    gc.disable()
    try:
        for name in modules:
            importlib.import_module(name)
    finally:
        done = True  # for those who have taken the probes along
        importlib.metadata.version, importlib.util.find_spec = version, find_spec
    gc.freeze()  # a collection in a fork would copy every page
    gc.enable()


def shared_with_forks(control: int) -> str:
    """What forks would share with this process or with each other, or lack; empty if nothing.

    Memory that is shared and may be written, descriptors, and threads (which a fork does not get). Libraries that
    know of forks (OpenBLAS) end their threads before the first one and start them anew where they are needed.
    """
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
        return "an imported library has started threads, which a fork would lack"
    with open("/proc/self/smaps") as smaps:
        flags = [line.split()[1:] for line in smaps if line.startswith("VmFlags:")]
    if any("sh" in flag and "mw" in flag for flag in flags):
        return "an imported library holds writable shared memory"
    strange = {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, control}
    strange = {number for number in strange if _is_open(number)}  # the listing's own is closed by now
    return f"an imported library holds descriptors {sorted(strange)}" if strange else ""


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def guard(request: dict[str, Any], descriptors: list[int]) -> None:
    """In the first fork: enters the sandbox's namespaces and forks once more, since a PID namespace takes in
    children only; waits for that child and tells the sandbox how it ended. In the child: the command.
    """
    ending, report, output, *rest = descriptors
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if the machine runs out of memory, the run goes first
        program = os.pread(rest.pop(0), 1 << 16, 0)
        for namespace in rest:
            _checked(_LIBC.setns(namespace, 0), "setns")
        child = os.fork()
        if child:
            for descriptor in (report, output, *rest, 0, 1, 2):
                os.close(descriptor)
            code = _exit_code(child)
            with suppress(BrokenPipeError):  # the sandbox was killed, and with it the child
                os.write(ending, b"%d\n" % code)
            os._exit(0)
        become(request, output, report, program)
    except BaseException as error:
        os.write(report, f"{type(error).__name__}: {error}".encode())
        os._exit(125)
    os.write(report, b"begun")
    os.close(report)
    code = 1
    try:
        code = run(request["command"])
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter's end does
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = 120  # Python's own for this
    # the rest of the interpreter's end would touch, and so copy, every page of what was imported (0.2 s)
    os._exit(code)


def become(request: dict[str, Any], output: int, report: int, program: bytes) -> None:
    """In the second fork: gives up every descriptor but the output, every right, and the way to more."""
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _close_all_but(0, 1, 2, report)
    os.set_inheritable(report, False)
    os.chdir(request["folder"])
    os.environ["PWD"] = request["folder"]
    os.umask(0o022)
    for name, value in request["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
    _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    if request["uid"] is not None:
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    header = struct.pack("=Ii", _CAPABILITIES_VERSION_3, 0)
    _checked(_LIBC.capset(header, bytes(24)), "capset")
    # as after the execve that does not take place; what could read this process is seccomp's to refuse
    _prctl(_PR_SET_DUMPABLE, 1)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, ctypes.create_string_buffer(filters, len(filters)))


def run(command: list[str]) -> int:
    """The script `command[0]` with its arguments, as `python SCRIPT …` would run it; its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    script = command[0]
    sys.argv[:] = command
    sys.path[:] = [os.path.dirname(script), *(path for path in sys.path if os.path.exists(path))]
    sys.path_importer_cache.clear()
    module = types.ModuleType("__main__")
    vars(module).update(__file__=script, __cached__=None, __annotations__={}, __builtins__=builtins)
    sys.modules["__main__"] = module
    try:
        with open(script, "rb") as file:
            code = compile(file.read(), script, "exec")
        exec(code, vars(module))
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.stdout.flush()  # what was printed comes before the traceback
        trace = error.__traceback__.tb_next if error.__traceback__ else None  # from the script's own frame on
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _exit_code(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - code if code < 0 else code


def _close_all_but(*kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(int(name))


def _prctl(option: int, second: Any, third: Any = 0) -> None:
    arguments = [
        value if isinstance(value, ctypes.Array) else ctypes.c_ulong(value) for value in (second, third)
    ]
    _checked(_LIBC.prctl(option, *arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl {option}")


def _checked(answer: int, what: str) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
