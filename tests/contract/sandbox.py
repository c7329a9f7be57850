"""Attack code in a real sandbox, supervised by the test's user and, if that is root, by an ordinary one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agent.sandbox import Bubblewrap, Finished, Job, Limits, Mount, Preload, Sandbox, Unsandboxed

ROOT = Path(__file__).parents[2]
ORDINARY_UID = 61_234
MIB = 2**20
LIMITS = Limits(
    wall_seconds=20, memory_bytes=512 * MIB, processes=64, open_files=256, file_bytes=32 * MIB,
    disk_bytes=16 * MIB, inodes=500, log_bytes=64 * 1024, log_kill_bytes=8 * MIB, shm_bytes=8 * MIB,
    tmp_bytes=8 * MIB,
)  # fmt: skip

# What attack code starts with: it says what it tried and what came of it, as one JSON line.
PRELUDE = r'''
import ctypes, errno, json, os, signal, socket, sys, time

libc = ctypes.CDLL(None, use_errno=True)

def attempt(function, *arguments):
    """The name of the error that stopped it; "done" if nothing did."""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return "done"

def syscall(number, *arguments):
    ctypes.set_errno(0)
    answer = libc.syscall(number, *[ctypes.c_long(argument) for argument in arguments])
    return errno.errorcode[ctypes.get_errno()] if answer == -1 else "done"

def status_of(pid):
    """/proc/PID/status as a dict."""
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

def tell(**facts):
    print(json.dumps(facts), flush=True)
'''

_ONCE = """
import dataclasses, json, os, sys
from pathlib import Path
from agent.sandbox import Bubblewrap, Job, Limits, Mount, Preload
request = json.loads(Path(sys.argv[1]).read_text())
preload = Preload(tuple(request["preload"])) if request["preload"] else None
if request["leak"]:
    os.dup2(os.open(request["leak"], os.O_RDONLY), 77, inheritable=True)
finished = Bubblewrap(warm=preload is not None).run(Job(
    command=request["command"], run_dir=Path(request["run_dir"]), masked=request["masked"],
    mounts=[Mount(Path(source), target) for source, target in request["mounts"]],
    environment=request["environment"], limits=Limits(**request["limits"]),
    log_path=Path(request["log_path"]), preload=preload,
))
assert not finished.cold, finished.cold
print(json.dumps(dataclasses.asdict(finished)))
"""


@dataclass(frozen=True)
class Ended:
    """What came of an attack: how it ended, what it said last, and where its files are on the host."""

    finished: Finished
    run_dir: Path
    log: Path

    @property
    def said(self) -> dict[str, Any]:
        """The attack's last JSON line; fails the test, with the log, when it never got to say anything."""
        lines = [line for line in self.finished.log_tail.splitlines() if line.startswith("{")]
        assert lines, f"the attack said nothing: {self.finished}"
        return json.loads(lines[-1])


def job(lab: Lab, command: Sequence[str], **more: Any) -> Job:
    """A run of `command` in the lab's folders, under LIMITS."""
    places = {"run_dir": lab.run_dir, "log_path": lab.folder / "log", "mounts": lab.mounts}
    return Job(command=command, **{**places, "limits": LIMITS, **more})


class Lab:
    """One way of supervising a sandboxed run; its `code` and `data` are mounted at /code and /data."""

    kind = "caller"
    python = sys.executable
    preload: Preload | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code, self.data, self.run_dir = (folder / name for name in ("code", "data", "run"))
        for path in (self.code, self.data, self.run_dir):
            path.mkdir()
        (self.code / "model.py").write_text("original\n")
        (self.data / "pack").write_text("pixels\n")
        (folder / "secret").write_text("hunter2\n")
        self.mounts = [Mount(self.code, "/code"), Mount(self.data, "/data")]

    def sandbox(self) -> Sandbox:
        return Bubblewrap()

    def write(self, code: str) -> list[str]:
        """Save attack code; the command that runs it inside."""
        path = self.code / "attack.py"
        path.write_text(PRELUDE + textwrap.dedent(code))
        path.chmod(0o644)
        return [self.python, *(["-I"] if self.preload is None else []), "/code/attack.py"]

    def attack(
        self,
        code: str,
        *,
        masked: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
        leak: Path | None = None,
        **limits: float,
    ) -> Ended:
        """Run attack code inside and wait. leak: a file that the supervisor holds open, inheritably."""
        command = self.write(code)
        log = self.folder / "log"
        changed = dataclasses.replace(LIMITS, **limits)
        finished = self._run(command, masked, environment or {}, stop, leak, changed, log)
        return Ended(finished, self.run_dir, log)

    def _run(
        self,
        command: Sequence[str],
        masked: Sequence[str],
        environment: Mapping[str, str],
        stop: threading.Event | None,
        leak: Path | None,
        limits: Limits,
        log: Path,
    ) -> Finished:
        if leak is not None:
            os.dup2(os.open(leak, os.O_RDONLY), 77, inheritable=True)
        sandbox = self.sandbox()
        try:
            finished = sandbox.run(
                job(
                    self, command, masked=masked, environment=environment, limits=limits, preload=self.preload
                ),
                stop,
            )
            assert not finished.cold, finished.cold
            return finished
        finally:
            sandbox.close()
            if leak is not None:
                os.close(77)


class WarmLab(Lab):
    """Bubblewrap whose runs are forks of a process that has something imported."""

    kind = "warm"
    preload = Preload(("decimal", "socket"))

    def sandbox(self) -> Sandbox:
        return Bubblewrap(warm=True)


class BareLab(Lab):
    """sandbox=none."""

    kind = "none"

    def sandbox(self) -> Sandbox:
        return Unsandboxed()


class OrdinaryLab(Lab):
    """A supervisor that is an ordinary user: its own process, with an interpreter that it can read."""

    kind = "ordinary"
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin") or ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        ignored = shutil.ignore_patterns("__pycache__")
        for package in (ROOT / "agent" / "sandbox", Path(psutil.__file__).parent):
            inner = folder / "library" / ("agent/sandbox" if package.name == "sandbox" else package.name)
            shutil.copytree(package, inner, ignore=ignored)
        (folder / "once.py").write_text(_ONCE)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, ORDINARY_UID, ORDINARY_UID)

    def supervisor(self, request: Mapping[str, Any]) -> subprocess.Popen[str]:
        """Start a supervisor; it prints how the run ended, as JSON."""
        path = self.folder / "request.json"
        path.write_text(json.dumps(request))
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.folder / "library")}
        secrets = {name: value for name, value in os.environ.items() if name.startswith("SECRET_")}
        return subprocess.Popen(
            [self.python, str(self.folder / "once.py"), str(path)], user=ORDINARY_UID, group=ORDINARY_UID,
            extra_groups=[], env={**environment, **secrets}, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def request(self, command: Sequence[str], limits: Limits = LIMITS, **changed: Any) -> dict[str, Any]:
        mounts = [(str(mount.source), mount.target) for mount in self.mounts]
        return {
            "command": list(command), "run_dir": str(self.run_dir), "masked": [], "mounts": mounts,
            "environment": {}, "limits": dataclasses.asdict(limits), "log_path": str(self.folder / "log"),
            "leak": None, "preload": self.preload and self.preload.modules, **changed,
        }  # fmt: skip

    def _run(
        self,
        command: Sequence[str],
        masked: Sequence[str],
        environment: Mapping[str, str],
        stop: threading.Event | None,
        leak: Path | None,
        limits: Limits,
        log: Path,
    ) -> Finished:
        assert stop is None, "the event cannot reach another process"
        changed = {"masked": list(masked), "environment": dict(environment), "leak": leak and str(leak)}
        with self.supervisor(self.request(command, limits, **changed)) as process:
            output, errors = process.communicate()
        assert process.returncode == 0, errors
        return Finished(**json.loads(output))


class WarmOrdinaryLab(OrdinaryLab):
    """The same for a supervisor that is an ordinary user."""

    kind = "warm-ordinary"
    preload = WarmLab.preload


LABS: dict[str, type[Lab]] = {"caller": Lab, "none": BareLab, "warm": WarmLab}
if os.geteuid() == 0 and OrdinaryLab.python:
    LABS |= {"ordinary": OrdinaryLab, "warm-ordinary": WarmOrdinaryLab}
SANDBOXED = [kind for kind in LABS if kind != "none"]


def open_lab(kind: str) -> Iterator[Lab]:
    """A lab in a fresh folder that an ordinary user can reach; for a fixture to yield from."""
    folder = Path(tempfile.mkdtemp(prefix="sandbox-test-"))
    folder.chmod(0o755)
    try:
        yield LABS[kind](folder)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def processes_with(token: str) -> list[int]:
    """PIDs, on the whole machine, of processes whose command line contains `token`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(token in word for word in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found
