"""Runs forked from a process with libraries in it: what they share (nothing), when it is replaced, how it fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from agent.sandbox import Bubblewrap, Finished, Limits, Preload
from agent.sandbox.forkserver import ForkServer, ForkServerFailed
from agent.sandbox.warm import Warmth
from tests.contract.sandbox import LIMITS, SANDBOXED, Lab, WarmLab, job, open_lab

WARM = [kind for kind in SANDBOXED if kind.startswith("warm")]
LIBRARY = Preload(("decimal",))


class Bench:
    """One warm sandbox that runs program after program, as a study does."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.sandbox = lab, Bubblewrap(warm=True)

    def run(self, code: str, *arguments: str, preload: Preload = LIBRARY, **environment: str) -> Finished:
        command = [*self.lab.write(code), *arguments]
        shutil.rmtree(self.lab.run_dir)
        self.lab.run_dir.mkdir()
        return self.sandbox.run(job(self.lab, command, environment=environment, preload=preload))

    def says(self, code: str, **options: str) -> str:
        finished = self.run(code, **options)
        assert (finished.returncode, finished.cold) == (0, ""), finished
        return finished.log_tail.strip()

    @property
    def server(self) -> int:
        """The PID of the process that is forked."""
        (found,) = (child.pid for child in psutil.Process().children() if "/dev/fd/" in str(child.cmdline()))
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    for lab in open_lab("warm"):
        found = Bench(lab)
        with closing(found.sandbox):
            yield found


def test_libraries_are_there_and_the_code_is_as_of_now(bench: Bench) -> None:
    assert bench.says("print('decimal' in sys.modules, __name__, sys.argv, 'model' in sys.modules)") == (
        "True __main__ ['/code/attack.py'] False"
    )
    (bench.lab.code / "part.py").write_text("WORD = 'first'")
    read = "import part; print(part.WORD, part.__file__, part.__cached__ and os.path.exists(part.__cached__))"
    assert bench.says(read) == "first /code/part.py False"
    # same size, same second: what a stale cache would overlook
    (bench.lab.code / "part.py").write_text("WORD = 'later'")
    assert bench.says(read) == "later /code/part.py False"
    (bench.lab.code / "part.py").unlink()
    assert "No module named 'part'" in bench.run(read).log_tail


def test_what_stands_inside_only_can_be_imported(bench: Bench) -> None:
    """When the server looked, there was no such folder, and Python remembers that."""
    (bench.lab.code / "more").mkdir()
    (bench.lab.code / "more" / "extra.py").write_text("WORD = 'found'")
    assert bench.says("import extra; print(extra.WORD)", PYTHONPATH="/code/more") == "found"


def test_a_fork_looks_like_a_fresh_interpreter(bench: Bench) -> None:
    look = """
        import gc, random, threading
        state = [random.random() for _ in range(3)]
        tell(folder=os.getcwd(), path=[p for p in sys.path if p != "/code"], main=sys.modules["__main__"].__file__,
             first=sys.path[0], threads=threading.active_count(), names=sorted(set(globals())), gc=gc.isenabled(),
             stdin=sys.stdin.read(), signals=str([signal.getsignal(n) for n in (2, 15, 17)]), umask=os.umask(0),
             flags=str(sys.flags), leader=os.getsid(0) == os.getpid(), environment=dict(os.environ), random=state)
    """
    warm = self_told(bench.run(look))
    assert warm.pop("random") != self_told(bench.run(look)).pop("random")
    command = bench.lab.write(look)
    cold = self_told(Bubblewrap().run(job(bench.lab, command)))
    del cold["random"]
    # the cold one's session is the shell's that started it; a zip that is not there is no loss
    assert (warm.pop("leader"), cold.pop("leader")) == (True, False)
    cold["path"] = [path for path in cold["path"] if not path.endswith(".zip")]
    for told in (warm, cold):
        told["environment"].pop("OMP_WAIT_POLICY", None)
        told["environment"].pop("OLDPWD", None)
    assert warm == cold


def self_told(finished: Finished) -> dict[str, object]:
    import json

    found: dict[str, object] = json.loads(finished.log_tail.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('no use')", 1, "no use"),
        ("1 / 0", 1, 'File "/code/attack.py"'),
        ("os._exit(9)", 9, ""),
        ("os.kill(os.getpid(), 9)", 137, ""),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("import atexit; atexit.register(print, 'at the end')", 0, "at the end"),
        ("import threading; threading.Timer(0.1, print, ['thread']).start()", 0, "thread"),
        ("sys.stdout.write('no newline')", 0, "no newline"),
        ("os.close(1); print('lost')", 120, ""),
        ("def", 1, "SyntaxError"),
    ],
)
def test_ends(bench: Bench, end: str, code: int, said: str) -> None:
    finished = bench.run(end)
    assert (finished.returncode, finished.killed_by, finished.cold) == (code, None, "")
    assert said in finished.log_tail
    assert "/dev/fd/" not in finished.log_tail, "frames of the server are nobody's business"


def test_nothing_that_a_run_does_reaches_the_next_one(bench: Bench) -> None:
    poison = """
        import builtins, decimal, gc, json, random, tempfile
        json.dumps = builtins.print = decimal.Decimal = lambda *a, **k: "poisoned"
        decimal.getcontext().prec = 3
        sys.modules["math"] = None
        sys.path.insert(0, "/tmp")
        os.environ["POISON"] = "1"
        random.seed(0); gc.disable(); sys.setrecursionlimit(77); os.umask(0o777); os.nice(5)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for place in ("/tmp", "/dev/shm", "/run_dir", "/code", "/data", "/", "/tmp/home"):
            attempt(lambda: open(place + "/note", "w").close())
        for pid in range(-1, 70_000):
            if pid not in (0, -1, os.getpid()):
                attempt(os.kill, pid, signal.SIGKILL)
        # every page of memory that can be written
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "r+b", buffering=0) as memory:
            for line in [line.split() for line in maps]:
                if line[1].startswith("rw") and len(line) == 5:
                    start, end = (int(address, 16) for address in line[0].split("-"))
                    if memory.seek(start) is not None and end - start < 2**20:
                        attempt(memory.write, bytes(64))
        os.write(1, b"done")
    """
    look = """
        import decimal, gc, math
        tell(dumps=json.dumps(1), d=str(decimal.Decimal(1) / 3), path="/tmp" in sys.path, e="POISON" in os.environ,
             gc=gc.isenabled(), limit=sys.getrecursionlimit(), nice=os.nice(0), child=str(signal.getsignal(17)),
             notes=[p for p in ("/tmp", "/dev/shm", "/run_dir", "/code", "/data", "/") if "note" in os.listdir(p)])
    """
    before, server = self_told(bench.run(look)), bench.server
    bench.run(poison)
    assert self_told(bench.run(look)) == before
    assert (before["notes"], bench.server) == ([], server)


@pytest.fixture
def groups() -> Iterator[None]:
    """Root in a further group, whose files a run must not reach."""
    before = os.getgroups()
    if os.geteuid() == 0:
        os.setgroups([*before, 54_321])
    yield
    if os.geteuid() == 0:
        os.setgroups(before)


@pytest.mark.parametrize("kind", WARM)
def test_a_fork_holds_no_way_back(kind: str, groups: None) -> None:
    """Descriptors, shared memory, the server's own files: what would lead out of the sandbox or to other runs."""
    for lab in open_lab(kind):
        said = lab.attack("""
            import fcntl
            descriptors = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                           if os.path.exists(f"/proc/self/fd/{name}")}
            flags = [line.split()[1:] for line in open("/proc/self/smaps") if line.startswith("VmFlags")]
            program = os.open("/proc/self/exe", os.O_RDONLY)
            path = f"/proc/self/fd/{os.open('/proc/self/exe', os.O_PATH)}"
            status = status_of("self")
            tell(descriptors=list(descriptors.values()), shared=sum("sh" in f and "mw" in f for f in flags),
                 seals=fcntl.fcntl(program, fcntl.F_GET_SEALS), write=attempt(os.open, path, os.O_WRONLY),
                 pids=[pid for pid in os.listdir("/proc") if pid.isdigit()], me=os.getpid(), parent=os.getppid(),
                 namespaces={name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
                 first={name: os.readlink(f"/proc/{os.getpid()}/ns/{name}") for name in ("user", "mnt", "pid")},
                 caps=[status[f"Cap{s}"] for s in ("Inh", "Prm", "Eff", "Bnd", "Amb")], groups=status["Groups"],
                 privileges=status["NoNewPrivs"], filter=status["Seccomp"], uid=os.getresuid(), gid=os.getresgid())
        """).said
        assert [link.partition(":")[0] for link in said["descriptors"]] == ["/dev/null", "pipe", "pipe"]
        assert (said["shared"], said["parent"], said["seals"]) == (0, 0, 0b1111)
        assert said["write"] in ("ETXTBSY", "EACCES", "EPERM")
        assert sorted(map(int, said["pids"])) == [1, 2, said["me"]]
        ours = {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in said["namespaces"]}
        same = {name for name, link in said["namespaces"].items() if link == ours[name]}
        root = kind == "warm" and os.geteuid() == 0
        assert same == {"time", "time_for_children", *(["user"] if root else [])}
        assert said["caps"] == ["0" * 16] * 5
        assert (said["privileges"], said["filter"]) == ("1", "2")
        # an ordinary user cannot give groups up, nor gains by them what it had not
        assert said["groups"].strip() == "" or os.geteuid() != 0
        assert len({*said["uid"], *said["gid"]}) == 1
        assert said["uid"][0] != 0


def test_a_server_serves_as_long_as_it_fits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    look = "print(os.environ.get('COLOUR'), 'fractions' in sys.modules)"
    assert bench.says(look) == "None False"
    first = bench.server
    assert bench.says(look) == "None False"
    assert bench.server == first
    assert bench.says(look, COLOUR="indigo") == "indigo False"
    second = bench.server
    assert second != first
    finished = bench.run(look, preload=Preload(("fractions",)))
    assert (finished.log_tail.strip(), finished.cold) == ("None True", "")
    third = bench.server
    # a package is installed meanwhile
    monkeypatch.setattr("agent.sandbox.forkserver.installed_packages", lambda: (("/site-packages", 1),))
    bench.run(look, preload=Preload(("fractions",)))
    fourth = bench.server
    assert len({first, second, third, fourth}) == 4
    # and the server is killed
    os.kill(fourth, signal.SIGKILL)
    psutil.Process(fourth).wait()
    assert bench.run(look, preload=Preload(("fractions",))).cold == ""


BAD_LIBRARIES = {
    "missing": ("", "ModuleNotFoundError: No module named 'bad_library"),
    "broken": ("1 / 0", "ZeroDivisionError"),
    "threads": ("import threading, time; threading.Timer(60, print).start()", "threads"),
    "shared memory": ("import mmap; memory = mmap.mmap(-1, 4096)", "writable shared memory"),
    "a descriptor": ("file = open('/dev/null')", "holds descriptors [4]"),
    "the end": ("import os; os._exit(0)", "did not start"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_LIBRARIES)
def test_what_cannot_be_forked_starts_cold_and_says_why(bench: Bench, tmp_path: Path, fault: str) -> None:
    body, reason = BAD_LIBRARIES[fault]
    if body:
        (tmp_path / "bad_library.py").write_text(body)
    finished = bench.run("print('ran')", preload=Preload(("bad_library",)), PYTHONPATH=str(tmp_path))
    assert (finished.returncode, finished.log_tail.strip()) == (0, "ran")
    assert reason in finished.cold


def test_what_could_not_be_imported_is_not_waited_for_again(bench: Bench) -> None:
    """Each run would wait for two minutes, and be charged for them."""
    for _ in range(2):
        finished = bench.run("print('ran')", preload=Preload(("bad_library",)))
        assert "No module named 'bad_library'" in finished.cold


def test_a_server_that_ends_before_it_has_forked_leads_to_a_cold_start(bench: Bench) -> None:
    """Nothing ran, so nothing may be said of the run."""
    bench.says("print()")
    os.kill(bench.server, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (bench.server, signal.SIGKILL))
    killer.start()
    finished = bench.run("print('ran')")
    killer.join()
    assert (finished.returncode, finished.log_tail) == (0, "ran\n")
    assert "its server ended" in finished.cold


def test_who_waits_for_a_server_hears_that_another_thread_has_replaced_it(tmp_path: Path) -> None:
    (tmp_path / "slow_library.py").write_text("import time; time.sleep(60)")
    server = ForkServer(Preload(("slow_library",)), {"PYTHONPATH": str(tmp_path)})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.wait)
        while not server._lock.locked():
            pass
        server.close()
        with pytest.raises(ForkServerFailed, match="did not start"):
            waiting.result(10)


def test_a_command_that_is_no_script_starts_cold(bench: Bench) -> None:
    command = [sys.executable, "-c", "print('ran')"]
    finished = bench.sandbox.run(job(bench.lab, command, preload=LIBRARY))
    assert finished.log_tail == "ran\n"
    assert "is not this Python with a script" in finished.cold


def test_a_fork_that_cannot_enter_starts_cold(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.says("print()")
    monkeypatch.setattr("agent.sandbox.launch.namespaces_of", lambda first, stack: [os.open("/dev/null", 0)])
    finished = bench.run("print(os.getppid(), len(os.listdir('/proc')) < 90)")
    assert "did not get into the sandbox: OSError: [Errno 22] setns" in finished.cold
    assert finished.log_tail.strip() == "2 True"


def test_hidden_packages_are_not_found_while_libraries_are_imported(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(
        "from importlib.util import find_spec\nfrom importlib.metadata import version\n"
        "def probe(name):\n    try:\n        return bool(version(name) and find_spec(name))\n"
        "    except ImportError:\n        return False\n"
        "found = probe('psutil'), probe('pytest')\n"
    )
    finished = bench.run(
        "import library; print(library.found, library.probe('psutil'), find_spec is library.find_spec)"
        "if (find_spec := __import__('importlib.util').util.find_spec) else 0",
        preload=Preload(("library",), hidden=("psutil",)), PYTHONPATH=f"{tmp_path}",
    )  # fmt: skip
    # the folder is not mounted, the module is there all the same; afterwards its probe finds what there is
    assert (finished.cold, finished.log_tail.strip()) == ("", "(False, True) True False")


def test_waiting_of_openmp_threads_follows_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    policies = []
    with closing(Warmth()) as warmth:
        for load in (0.5, 1.2, 1.3, 1.2, 1.0):
            monkeypatch.setattr(os, "getloadavg", lambda load=load: (load * cores, 0, 0))
            policies.append(warmth.prepare(LIBRARY, {}).environment.get("OMP_WAIT_POLICY"))
        assert policies == [None, None, "PASSIVE", "PASSIVE", None]
        monkeypatch.setattr(os, "getloadavg", lambda: (9.0 * cores, 0, 0))
        assert warmth.prepare(LIBRARY, {"OMP_WAIT_POLICY": "ACTIVE"}).environment == {
            "OMP_WAIT_POLICY": "ACTIVE"
        }


def test_a_server_ends_with_its_owner(tmp_path: Path) -> None:
    """Closed, or killed without a word: no process stays."""
    code = (
        "import sys; from agent.sandbox import *; b = Bubblewrap(warm=True); b.prepare(Preload(('decimal',)), {});"
        "b._warmth._server.wait(); print(b._warmth._server._process.pid, flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        assert server.ppid() == owner.pid
        owner.kill()
    psutil.wait_procs([server], timeout=5)
    assert not server.is_running()


def test_the_seconds_of_a_run_begin_with_its_fork(bench: Bench, tmp_path: Path) -> None:
    """What the imports took, waiting included, is not the run's: neither its wall limit nor its seconds."""
    (tmp_path / "slow_library.py").write_text("import time; time.sleep(1.0)")
    limits = Limits(**{**vars(LIMITS), "wall_seconds": 0.8})
    finished = bench.sandbox.run(
        job(
            bench.lab,
            bench.lab.write("time.sleep(0.2)"),
            environment={"PYTHONPATH": str(tmp_path)},
            limits=limits,
            preload=Preload(("slow_library",)),
        )
    )
    assert (finished.returncode, finished.killed_by, finished.cold) == (0, None, "")
    assert 0.2 <= finished.seconds < 0.8


def test_prepared_is_what_a_run_finds(bench: Bench) -> None:
    bench.sandbox.prepare(LIBRARY, {})
    server = bench.server
    assert bench.says("print('ran')") == "ran"
    assert bench.server == server
    assert WarmLab.preload is not None
