"""What a sandboxed run must not use up, outlive or take over: each limit attacked, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from agent.sandbox import Bubblewrap
from agent.sandbox.log import Log
from agent.sandbox.processes import Usage
from agent.sandbox.supervise import Supervisor
from agent.sandbox.watch import Watch
from tests.contract.sandbox import (
    LABS,
    LIMITS,
    MIB,
    ROOT,
    SANDBOXED,
    Lab,
    OrdinaryLab,
    job,
    open_lab,
    processes_with,
)


@pytest.fixture(params=SANDBOXED)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(request.param)


@pytest.fixture(params=LABS)
def any_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Also sandbox=none, for the limits that it keeps."""
    yield from open_lab(request.param)


@pytest.fixture
def caller() -> Iterator[Lab]:
    yield from open_lab("caller")


@pytest.fixture
def token() -> str:
    """A word for command lines, by which a test finds its own processes on the whole machine."""
    return "token-" + secrets.token_hex(8)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_wall_clock_kills_what_ignores_every_signal(any_lab: Lab, token: str) -> None:
    ended = any_lab.attack(
        f"""
        for number in range(1, 65):
            attempt(signal.signal, number, signal.SIG_IGN)
        for _ in range(4):
            os.fork()
        if os.fork() == 0:
            os.execl({any_lab.python!r}, "python", "-c", "import time; time.sleep(60)", {token!r})
        print("ready", flush=True)
        while True:
            time.sleep(60)
        """,
        wall_seconds=0.6,
    )
    assert ended.finished.killed_by == "wall"
    assert ended.finished.returncode is None
    assert ended.finished.log_tail.count("ready") == 16
    assert 0.6 <= ended.finished.seconds < 5.0
    assert processes_with(token) == []


def test_fork_bomb_meets_its_limit(lab: Lab) -> None:
    said = lab.attack(
        """
        children, answer = 0, "done"
        while answer == "done" and children < 500:
            answer = attempt(lambda: os.fork() or signal.pause())
            children += answer == "done"
        tell(children=children, answer=answer)
        """,
        processes=24,
    ).said
    assert said["answer"] == "EAGAIN"
    assert 15 <= said["children"] < 24


def test_exponential_fork_bomb_ends_with_the_wall_clock(lab: Lab) -> None:
    ended = lab.attack(
        """
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
        wall_seconds=0.6,
    )
    assert ended.finished.killed_by == "wall"
    assert ended.finished.seconds < 5.0


def test_memory_bomb_is_killed(any_lab: Lab) -> None:
    ended = any_lab.attack(
        """
        tell(begun=True)
        blocks = []
        while True:
            blocks.append(b"x" * (1 << 20))
            time.sleep(0.002)
        """,
        memory_bytes=96 * MIB,
    )
    assert ended.said["begun"]
    assert ended.finished.killed_by == "memory"
    assert 96 * MIB < ended.finished.peak_memory_bytes < 400 * MIB


def test_memory_spread_over_processes_is_killed(lab: Lab) -> None:
    ended = lab.attack(
        """
        for _ in range(8):
            if os.fork() == 0:
                block = bytearray(os.urandom(16 << 20))
                signal.pause()
        signal.pause()
        """,
        memory_bytes=96 * MIB,
    )
    assert ended.finished.killed_by == "memory"


def test_shared_anonymous_memory_is_killed(lab: Lab) -> None:
    ended = lab.attack(
        """
        import mmap
        block = mmap.mmap(-1, 256 << 20)
        for start in range(0, len(block), 1 << 20):
            block[start:start + (1 << 20)] = b"x" * (1 << 20)
            time.sleep(0.001)
        signal.pause()
        """,
        memory_bytes=96 * MIB,
    )
    assert ended.finished.killed_by == "memory"


def test_workers_that_share_memory_are_not_counted_twice(lab: Lab) -> None:
    ended = lab.attack(
        """
        block = bytearray(os.urandom(40 << 20))
        for _ in range(5):
            if os.fork() == 0:
                time.sleep(0.25)
                os._exit(block[0] == -1)
        for _ in range(5):
            assert os.wait()[1] == 0
        tell(done=True)
        """,
        memory_bytes=120 * MIB,
    )
    assert ended.finished.killed_by is None
    assert ended.said["done"]
    assert 40 * MIB < ended.finished.peak_memory_bytes < 120 * MIB


def test_no_memory_in_anonymous_files(lab: Lab) -> None:
    said = lab.attack("""
        tell(memfd=attempt(os.memfd_create, "hidden"))
    """).said
    assert said == {"memfd": "ENOSYS"}


@pytest.mark.parametrize("folder", ["/dev/shm", "/tmp"])
def test_memory_file_systems_are_bounded(lab: Lab, folder: str) -> None:
    said = lab.attack(f"""
        def fill():
            with open({folder!r} + "/big", "wb", buffering=0) as file:
                for _ in range(16):
                    file.write(b"x" * (1 << 20))
        tell(answer=attempt(fill), size=os.path.getsize({folder!r} + "/big"))
    """).said
    assert said["answer"] == "ENOSPC"
    assert said["size"] <= 8 * MIB


def test_disk_fill_is_killed(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        for number in range(40):
            with open(f"part{number}", "wb") as file:
                file.write(b"x" * (1 << 20))
            time.sleep(0.01)
        signal.pause()
    """)
    assert ended.finished.killed_by == "disk"


def test_disk_fill_just_before_the_end_is_seen(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        for number in range(20):
            with open(f"part{number}", "wb") as file:
                file.write(b"x" * (1 << 20))
    """)
    assert ended.finished.killed_by == "disk"


def test_huge_single_file_is_refused(lab: Lab) -> None:
    ended = lab.attack(
        """
        def grow():
            with open("huge", "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * (1 << 20))
        tell(answer=attempt(grow), size=os.path.getsize("huge"), sparse=attempt(os.truncate, "huge", 1 << 40))
        """,
        file_bytes=4 * MIB,
    )
    assert ended.said == {"answer": "EFBIG", "size": 4 * MIB, "sparse": "EFBIG"}


def test_inode_fill_is_killed(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        for number in range(5000):
            open(f"file{number}", "w").close()
        signal.pause()
    """)
    assert ended.finished.killed_by == "disk"


def test_inode_fill_in_memory_is_killed(lab: Lab) -> None:
    ended = lab.attack("""
        for number in range(5000):
            open(f"/tmp/file{number}", "w").close()
        signal.pause()
    """)
    assert ended.finished.killed_by == "disk"


@pytest.mark.parametrize("mapped", [False, True])
def test_unlinked_file_counts(lab: Lab, mapped: bool) -> None:
    ended = lab.attack(f"""
        import mmap
        kept = []
        for number in range(24):
            file = open("gone", "w+b", buffering=0)
            file.write(b"x" * (1 << 20))
            os.unlink("gone")
            kept.append(mmap.mmap(file.fileno(), 1 << 20) if {mapped} else file)
            if {mapped}:
                file.close()
        # a mapping keeps a descriptor of its own: close those too
        if {mapped}:
            os.closerange(3, 200)
        signal.pause()
    """)
    assert ended.finished.killed_by == "disk"
    assert len(list(ended.run_dir.iterdir())) <= 1  # it may be killed before the last one is unlinked


def test_deep_tree_is_killed(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        for _ in range(400):
            os.mkdir("d")
            os.chdir("d")
        signal.pause()
    """)
    assert ended.finished.killed_by == "disk"


def test_folder_closed_to_its_owner_hides_nothing(lab: Lab) -> None:
    ended = lab.attack("""
        os.mkdir("closed")
        for number in range(20):
            with open(f"closed/part{number}", "wb") as file:
                file.write(b"x" * (1 << 20))
        os.chmod("closed", 0)
        signal.pause()
    """)
    assert ended.finished.killed_by == "disk"


def test_links_lead_the_count_nowhere(lab: Lab) -> None:
    ended = lab.attack("""
        for number, target in enumerate(["/usr", "/", "..", ".", "/proc", "/dev"]):
            os.symlink(target, f"link{number}")
        time.sleep(0.4)
        tell(done=True)
    """)
    assert ended.finished.killed_by is None
    assert ended.said["done"]


def test_log_flood_is_killed(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        while True:
            os.write(1, b"flood " * 10000)
    """)
    assert ended.finished.killed_by == "log"
    assert ended.log.stat().st_size < LIMITS.log_bytes + 200
    assert len(ended.finished.log_tail) <= 16_384


def test_long_log_keeps_beginning_and_end(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        print("the beginning")
        for number in range(40000):
            print("line", number)
        print("the end", flush=True)
    """)
    assert ended.finished.returncode == 0
    log = ended.log.read_text()
    assert log.startswith("the beginning\nline 0\n")
    assert log.endswith("line 39999\nthe end\n")
    assert "bytes left out" in log
    assert len(log) < LIMITS.log_bytes + 200
    assert ended.finished.log_tail.endswith("the end\n")


def test_log_carries_no_control_sequence(lab: Lab) -> None:
    ended = lab.attack(r"""
        sys.stdout.buffer.write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07plain\roverwritten ")
        sys.stdout.buffer.write(b"\xe2\x80\xaegnp.exe\n\xff\x00\x9b2J")
    """)
    expected = "red plain\noverwritten gnp.exe\n\ufffd\ufffd2J"
    assert ended.finished.log_tail == expected
    assert ended.log.read_text() == expected


def test_cpu_time_of_all_processes_is_limited(any_lab: Lab) -> None:
    ended = any_lab.attack(
        """
        os.fork()
        while True:
            pass
        """,
        cpu_seconds=0.4,
    )
    assert ended.finished.killed_by == "cpu"


def test_open_files_are_limited(lab: Lab) -> None:
    said = lab.attack("""
        import resource
        kept = []
        answer = "done"
        while answer == "done":
            answer = attempt(lambda: kept.append(os.open("/dev/null", os.O_RDONLY)))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        def raised():
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
            except ValueError as error:
                raise PermissionError(errno.EPERM, "") from error
        core = resource.getrlimit(resource.RLIMIT_CORE)
        tell(answer=answer, count=len(kept), raised=attempt(raised), core=core)
    """).said
    assert said["answer"] == "EMFILE"
    assert 240 <= said["count"] < 256
    assert said["raised"] == "EPERM"
    assert said["core"] == [0, 0]


def test_daemon_does_not_outlive_the_run(any_lab: Lab, token: str) -> None:
    ended = any_lab.attack(f"""
        import subprocess
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execl({any_lab.python!r}, "python", "-c",
                         "import time; open('alive', 'w').close(); time.sleep(60)", {token!r})
            os._exit(0)
        while not os.path.exists("alive"):
            time.sleep(0.005)
        tell(left=True)
    """)
    assert ended.said["left"]
    assert ended.finished.returncode == 0
    assert ended.finished.seconds < 5
    assert processes_with(token) == []


def test_stop_event_ends_a_run(caller: Lab) -> None:
    stop = threading.Event()
    running = caller.run_dir / "running"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(caller.attack, "open('running', 'w').close(); signal.pause()", stop=stop)
        assert until(running.exists)
        stop.set()
        finished = future.result(timeout=5).finished
    assert finished.killed_by == "stop"
    assert finished.started
    assert finished.seconds < 5


def test_sandbox_killed_from_elsewhere_is_noticed(caller: Lab, token: str) -> None:
    alive = caller.run_dir / "alive"
    inner = "import time; open('alive', 'w'); time.sleep(60)"
    code = f"os.execl({caller.python!r}, 'python', '-c', {inner!r}, {token!r})"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(caller.attack, code)
        assert until(alive.exists)
        (outer,) = (child for child in psutil.Process().children() if child.name() == "bwrap")
        outer.kill()
        finished = future.result(timeout=5).finished
    assert (finished.returncode, finished.killed_by, finished.started) == (None, None, True)
    assert processes_with(token) == []


def test_stop_before_the_start_runs_nothing(caller: Lab) -> None:
    stop = threading.Event()
    stop.set()
    ended = caller.attack("open('/run_dir/ran', 'w').close()", stop=stop)
    assert (ended.finished.killed_by, ended.finished.started) == ("stop", False)
    assert list(ended.run_dir.iterdir()) == []


def test_interrupted_supervisor_leaves_nothing(caller: Lab, token: str) -> None:
    class Interrupting(threading.Event):
        def is_set(self) -> bool:
            if processes_with(token):
                raise KeyboardInterrupt
            return False

    code = f"os.execl({caller.python!r}, 'python', '-c', 'import time; time.sleep(60)', {token!r})"
    with pytest.raises(KeyboardInterrupt):
        caller.attack(code, stop=Interrupting())
    assert processes_with(token) == []
    assert caller.run_dir.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", SANDBOXED)
def test_killed_supervisor_leaves_no_orphan(kind: str, token: str) -> None:
    for lab in open_lab(kind):
        inner = f"import time; open('/run_dir/alive', 'w').close(); time.sleep(60) # {token}"
        command = lab.write(
            f"os.setsid() if os.fork() == 0 else None; os.execl({lab.python!r}, 'python', '-c', {inner!r})"
        )
        if isinstance(lab, OrdinaryLab):
            process = lab.supervisor(lab.request(command))
        else:
            process = caller_supervisor(lab, command)
        try:
            assert until((lab.run_dir / "alive").exists), process.poll()
            assert until(lambda: len(processes_with(token)) >= 2)
            # bubblewrap, and the fork server with the guardian of its fork
            others = psutil.Process(process.pid).children(recursive=True)
            assert ("/dev/fd/" in str([child.cmdline() for child in others])) == (lab.preload is not None)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert until(lambda: not processes_with(token)), "the sandbox outlived its supervisor"
        assert psutil.wait_procs(others, timeout=5)[1] == []


def caller_supervisor(lab: Lab, command: list[str]) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, that a test can kill."""
    code = (
        "import sys; from pathlib import Path; from agent.sandbox import *;"
        "folder = Path(sys.argv[1]);"
        f"Bubblewrap(warm={lab.preload is not None}).run(Job(command=sys.argv[2:], run_dir=folder / 'run',"
        f"mounts=[Mount(folder / 'code', '/code')], environment={{}}, preload={lab.preload},"
        f"limits=Limits(**{dataclasses.asdict(LIMITS)}), log_path=folder / 'log'))"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)])}
    arguments = [sys.executable, "-c", code, str(lab.folder), *command]
    return subprocess.Popen(
        arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_threads_run_sandboxes_side_by_side(caller: Lab) -> None:
    command = caller.write(
        "time.sleep(0.1); tell(number=int(sys.argv[1]), pids=len(os.listdir('/proc')) > 0)"
    )

    def run(number: int) -> int:
        run_dir = caller.folder / f"run{number}"
        run_dir.mkdir()
        log = caller.folder / f"log{number}"
        finished = Bubblewrap().run(job(caller, [*command, str(number)], run_dir=run_dir, log_path=log))
        number_inside: int = json.loads(finished.log_tail)["number"]
        return number_inside

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(8))) == list(range(8))


def test_taking_over_process_1_gains_nothing(lab: Lab, token: str) -> None:
    """Root's process 1 is another user's. An ordinary user's can be overwritten, and the limits hold."""
    ended = lab.attack(
        f"""
        def overwrite():
            lines = [line.split() for line in open("/proc/1/maps")]
            with open("/proc/1/mem", "r+b", buffering=0) as memory:
                for line in lines:
                    if line[1].startswith("r-x") and "[" not in line[-1]:
                        start, end = (int(address, 16) for address in line[0].split("-"))
                        memory.seek(start)
                        memory.write(b"\\xeb\\xfe" * ((end - start) // 2))  # jump to itself
        answer = attempt(overwrite)
        tell(answer=answer)
        os.execl({lab.python!r}, "python", "-c", "import time; time.sleep(60)", {token!r})
        """,
        wall_seconds=0.8,
    )
    root = os.geteuid() == 0 and lab.kind in ("caller", "warm")
    # with Yama's ptrace_scope, an ordinary user is refused like root's payload
    assert ended.said["answer"] in (("EACCES",) if root else ("done", "EACCES"))
    assert ended.finished.killed_by == "wall"
    assert ended.finished.seconds < 5
    assert processes_with(token) == []


def test_process_1_is_under_the_filter_too(lab: Lab) -> None:
    said = lab.attack("""
        status = status_of(1)
        tell(filtered=status["Seccomp"], owner=int(status["Uid"].split()[0]), own=os.getuid(),
             signalled=attempt(os.kill, 1, signal.SIGSTOP))
    """).said
    assert said["filtered"] == "2"
    if said["owner"] != said["own"]:
        assert said["signalled"] == "EPERM"


class MadeUp:
    """The processes of a run that uses nothing and has ended."""

    def usage(self) -> Usage:
        return Usage(0, 0.0)

    def shared_memory_bytes(self) -> int:
        return 0

    def unlinked_bytes(self, device: int) -> int:
        return 0

    def tmpfs_inodes(self) -> int:
        return 0

    def kill(self) -> None: ...

    def gone(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_machine_short_of_memory_kills_the_run(folder: int) -> None:
    """The reserve guards against what no process's account shows; here the machine is made up."""
    machine = [100 * MIB, 50 * MIB]
    watch = Watch(MadeUp(), LIMITS, folder, host_memory=lambda: (machine[0], machine[1]))
    assert watch.broken(0.0) is None
    machine[1] = 3 * MIB
    assert watch.broken(1.0) == "memory"


def test_last_words_are_read_after_the_end(folder: int, tmp_path: Path) -> None:
    """Output that is still in the pipe when the last process is gone."""
    output, inside = os.pipe()
    os.write(inside, b"last words")
    os.close(inside)
    with closing(Log(tmp_path / "log", 1000)) as log:
        watch = Watch(MadeUp(), LIMITS, folder)
        assert Supervisor(MadeUp(), watch, output, log, LIMITS).supervise(None) is None
    os.close(output)
    assert (tmp_path / "log").read_text() == "last words"
