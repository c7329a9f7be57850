"""How a sandbox starts, or says why it cannot; what it shows when it does; the parts that need no sandbox."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sandbox import Bubblewrap, Limits, Mount, SandboxUnavailable, Unsandboxed, clean_text, gpu_devices
from agent.sandbox.arguments import masked_sources
from agent.sandbox.disk import Unmeasurable, measure
from agent.sandbox.interpreter import interpreter_folders, require_readable
from agent.sandbox.none import on_host
from agent.sandbox.strays import supervisor_mark, sweep_strays
from tests.contract.sandbox import LABS, LIMITS, ORDINARY_UID, ROOT, SANDBOXED, Lab, job, open_lab


@pytest.fixture(params=LABS)
def any_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(request.param)


@pytest.fixture
def caller() -> Iterator[Lab]:
    yield from open_lab("caller")


@pytest.fixture
def fake_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first `bwrap` on PATH: an empty program, for a test to write."""
    path = tmp_path / "bwrap"
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


def test_probe_passes_here() -> None:
    Bubblewrap().check()
    Unsandboxed().check()
    assert (Bubblewrap.name, Unsandboxed.name) == ("bubblewrap", "none")


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        Bubblewrap().check()
    assert "not installed" in caught.value.cause
    assert "apt-get install bubblewrap" in caught.value.fix


@pytest.mark.parametrize(
    ("said", "cause", "fix"),
    [
        ("No permissions to create new namespace, likely because the kernel does not allow non-privileged "
         "user namespaces.", "user namespaces are forbidden", "kernel.unprivileged_userns_clone"),
        ("Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
         "limit on namespaces", "user.max_user_namespaces"),
        ("Creating new namespace failed: Operation not permitted", "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN"),
        ("Failed to make / slave: Permission denied", "CAP_SYS_ADMIN", "--cap-add SYS_ADMIN"),
        ("Can't mount proc on /newroot/proc: Operation not permitted", "/proc is partly covered",
         "systempaths=unconfined"),
        ("setting up uid map: Permission denied", "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
        ("loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor", "kernel.apparmor_restrict"),
        ("Unknown option --disable-userns", "older than 0.8", "0.8 or newer"),
        ("Can't find source path /code: Permission denied", "or this user cannot read it", "permissions"),
        ("something new", "bubblewrap did not start: bwrap: something new", "sandbox=none"),
    ],
)  # fmt: skip
def test_known_refusals_are_explained(caller: Lab, fake_bwrap: Path, said: str, cause: str, fix: str) -> None:
    fake_bwrap.write_text(f'#!/bin/sh\necho "bwrap: {said}" >&2\nexit 1\n')
    with pytest.raises(SandboxUnavailable) as caught:
        caller.attack("open('/run_dir/ran', 'w').close()")
    assert cause in caught.value.cause
    assert fix in caught.value.fix
    assert "fix: " in str(caught.value)
    assert list(caller.run_dir.iterdir()) == []
    assert caller.run_dir.stat().st_uid == os.geteuid()


def test_bwrap_that_only_pretends_runs_nothing(caller: Lab, fake_bwrap: Path) -> None:
    """A wrapper that says it is ready but gives no sandboxed process: nothing counts as having run."""
    fake_bwrap.write_text("#!/bin/sh\necho ready\n")
    with pytest.raises(SandboxUnavailable, match="reported no process"):
        caller.attack("open('/run_dir/ran', 'w').close()")


def test_one_that_is_killed_as_it_starts_is_a_run_that_did_not_begin(caller: Lab, fake_bwrap: Path) -> None:
    """By the machine's OOM killer or a person; what it would have run is not to blame the sandbox for."""
    fake_bwrap.write_text("#!/bin/sh\nkill -9 $$\n")
    finished = caller.attack("tell(ran=True)").finished
    assert (finished.returncode, finished.killed_by, finished.started) == (None, None, False)


def test_interrupt_during_a_start_that_hangs(caller: Lab, fake_bwrap: Path) -> None:
    def interrupt(*_: object) -> None:
        raise TimeoutError

    fake_bwrap.write_text("#!/bin/sh\nexec sleep 60\n")
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            caller.attack("")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10
    assert caller.run_dir.stat().st_uid == os.geteuid()


def test_strays_of_dead_supervisors_are_swept(tmp_path: Path) -> None:
    """What is left when supervisor and outer process die while the inner one waits: idle, named bwrap."""
    program = tmp_path / "bwrap"
    shutil.copy("/usr/bin/sleep", program)
    alive = supervisor_mark()
    dead, reused = f"{alive.rsplit('-', 2)[0]}-{2**22 + 1}-1", f"{alive}1"
    elsewhere = "-".join(["sandbox", "1", *alive.split("-")[2:]]) + "1"
    processes = {}
    for mark in (alive, dead, reused, elsewhere, "something"):
        descriptor = os.memfd_create(mark)
        processes[mark] = subprocess.Popen([program, "60"], pass_fds=[descriptor])
        os.close(descriptor)
    try:
        assert {processes[dead].pid, processes[reused].pid} <= set(sweep_strays())
        assert processes[dead].wait(5) == processes[reused].wait(5) == -signal.SIGKILL
        assert [processes[mark].poll() for mark in (alive, elsewhere, "something")] == [None] * 3
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def test_check_fails_when_the_interpreter_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/no-such-python")
    with pytest.raises(SandboxUnavailable, match="/usr/bin/no-such-python did not run inside"):
        Bubblewrap().check()


@pytest.mark.skipif("ordinary" not in LABS, reason="needs root, to become an ordinary user")
def test_ordinary_user_who_cannot_reach_the_interpreter_is_told() -> None:
    """The well-known trap: Python under a home that is closed to others."""
    for lab in open_lab("ordinary"):
        home = lab.folder / "home"
        (home / "python" / "bin").mkdir(parents=True)
        home.chmod(0o700)
        code = (
            "import sys; from pathlib import Path; sys.prefix = sys.base_prefix = sys.argv[1]\n"
            "from agent.sandbox import Bubblewrap\nBubblewrap().check()"
        )
        told = subprocess.run(
            [lab.python, "-c", code, str(home / "python")], capture_output=True, text=True,
            user=ORDINARY_UID, group=ORDINARY_UID, extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(lab.folder / "library")},
        )  # fmt: skip
    last = told.stderr.splitlines()[-2:]
    assert told.returncode == 1
    assert f"lies below {home}, which user {ORDINARY_UID} cannot enter" in last[0]
    assert "fix: install Python" in last[1]


def test_readable_folders_pass(tmp_path: Path) -> None:
    require_readable((tmp_path, Path("/usr")))


def test_interpreter_folders_hold_this_interpreter() -> None:
    folders = (*interpreter_folders(), Path("/usr"))
    for path in (Path(sys.executable), Path(os.path.realpath(sys.executable)), Path(os.__file__)):
        assert any(path.is_relative_to(folder) for folder in folders), path


@pytest.mark.parametrize("prefix", ["/", "/home"])
def test_a_prefix_that_shows_everything_is_refused(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    with pytest.raises(SandboxUnavailable, match="everything in it"):
        interpreter_folders()


def test_missing_mount_source(caller: Lab) -> None:
    caller.mounts.append(Mount(caller.folder / "gone", "/gone"))
    with pytest.raises(ValueError, match=r"mount source .*/gone \(for /gone\) does not exist"):
        caller.attack("")


@pytest.mark.skipif(os.geteuid() != 0, reason="root's payload is another user than root")
def test_mount_that_the_payload_could_not_read(caller: Lab) -> None:
    os.chown(caller.data, 0, 0)
    caller.data.chmod(0o700)
    with pytest.raises(ValueError, match=r"closed to others \(mode 700\).*chmod -R o\+rX"):
        caller.attack("")


@pytest.mark.parametrize("target", ["code", "/", "/code/../etc", "/./code"])
def test_mount_targets_are_absolute_and_plain(target: str) -> None:
    with pytest.raises(ValueError, match="mount target"):
        Mount(Path("/usr"), target)


@pytest.mark.parametrize("path", ["/code/gone", "/elsewhere", "/code/link", "/code/../code/model.py"])
def test_mask_that_would_hide_nothing_is_refused(caller: Lab, path: str) -> None:
    (caller.code / "link").symlink_to(caller.folder / "secret")
    with pytest.raises(ValueError, match="nothing would be hidden"):
        masked_sources([path], caller.mounts)


def test_missing_or_linked_run_directory(caller: Lab) -> None:
    caller.run_dir.rmdir()
    with pytest.raises(ValueError, match="is not a folder"):
        caller.attack("")
    caller.run_dir.symlink_to(caller.code)
    with pytest.raises(ValueError, match="is not a folder"):
        caller.attack("")


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(value: float) -> None:
    with pytest.raises(ValueError, match="sandbox limit wall_seconds must be positive"):
        dataclasses.replace(LIMITS, wall_seconds=value)
    assert dataclasses.replace(LIMITS, cpu_seconds=None).cpu_seconds is None
    assert isinstance(LIMITS, Limits)


@pytest.mark.parametrize(
    ("code", "expected"), [("pass", 0), ("sys.exit(3)", 3), ("1/0", 1), ("os.abort()", 134)]
)
def test_exit_code(any_lab: Lab, code: str, expected: int) -> None:
    finished = any_lab.attack(code).finished
    assert (finished.returncode, finished.killed_by, finished.started) == (expected, None, True)
    if code == "1/0":
        assert "ZeroDivisionError" in finished.log_tail


def test_standard_output_can_be_opened_anew(any_lab: Lab) -> None:
    ended = any_lab.attack("""
        with open("/dev/stdout", "a") as output:
            output.write("written anew")
    """)
    assert ended.finished.log_tail == "written anew"


def test_command_that_does_not_exist(caller: Lab) -> None:
    finished = Bubblewrap().run(job(caller, ["/code/nothing"]))
    assert finished.returncode == 127


def test_run_sees_what_it_was_given(any_lab: Lab) -> None:
    ended = any_lab.attack(
        """
        code = os.environ["CODE"]
        open("/run_dir/result.json" if code == "/code" else "result.json", "w").write("{}")
        tell(data=open(os.environ["DATA"]).read(), threads=os.environ["OMP_NUM_THREADS"], cwd=os.getcwd(),
             beside=open(os.path.join(code, "model.py")).read(), stdin=sys.stdin.read())
        """,
        environment={"CODE": "/code", "DATA": "/data/pack", "OMP_NUM_THREADS": "3"},
    )
    said = ended.said
    expected = str(any_lab.run_dir) if any_lab.kind == "none" else "/run_dir"
    assert said == {"data": "pixels\n", "threads": "3", "cwd": expected, "beside": "original\n", "stdin": ""}
    assert (ended.run_dir / "result.json").read_text() == "{}"


def test_relative_mount_sources_mean_the_callers_folder(caller: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(caller.folder)
    caller.mounts[:] = [Mount(Path("code"), "/code"), Mount(Path("data/pack"), "/pack")]
    caller.run_dir = Path("run")
    assert caller.attack("tell(pack=open('/pack').read())").said == {"pack": "pixels\n"}


def test_none_gives_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    for lab in open_lab("none"):
        assert "SECRET_KEY" not in lab.attack("tell(**os.environ)").said


def test_none_puts_host_paths_for_inside_ones() -> None:
    paths = {"/code": "/host/tree", "/run_dir": "/host/run", "/code/data": "/host/data"}
    assert on_host("run.dir=/run_dir", paths) == "run.dir=/host/run"
    assert on_host("/code/train.py", paths) == "/host/tree/train.py"
    assert on_host("/code:/code/data/x:/codex:/my/code", paths) == "/host/tree:/host/data/x:/codex:/my/code"


def test_log_in_the_run_directory_cannot_be_redirected(caller: Lab) -> None:
    victim = caller.folder / "victim"
    victim.write_text("precious")
    (caller.folder / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        caller.attack("")
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_devices_are_passed() -> None:
    """No GPU is needed: nodes of the null device under NVIDIA's names."""
    for lab in open_lab("caller"):
        dev = make_nodes(lab.folder / "dev")
        sandbox = Bubblewrap(gpus="none")
        sandbox._devices = gpu_devices([1], dev)
        command = lab.write("""
            names = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
            tell(names=names, caps=os.listdir("/dev/nvidia-caps"), opened=attempt(open, "/dev/nvidia1", "wb"))
        """)
        finished = sandbox.run(job(lab, command))
    assert finished.log_tail == (
        '{"names": ["nvidia-caps", "nvidia-uvm", "nvidia-uvm-tools", "nvidia1", "nvidiactl"], '
        '"caps": ["nvidia-cap1"], "opened": "done"}\n'
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_device_list(tmp_path: Path) -> None:
    dev = make_nodes(tmp_path / "dev")
    shared = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-caps/nvidia-cap1"]
    assert list(gpu_devices("all", dev)) == [*shared, "/dev/nvidia0", "/dev/nvidia1"]
    assert list(gpu_devices([1], dev)) == [*shared, "/dev/nvidia1"]
    assert gpu_devices("none", dev) == {}
    with pytest.raises(ValueError, match=r"no device for \[7\], present are \[0, 1\]"):
        gpu_devices([7], dev)


def test_no_devices_on_a_machine_without(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").write_text("a file, not a device")
    assert gpu_devices("all", tmp_path) == {}


def make_nodes(dev: Path) -> Path:
    (dev / "nvidia-caps").mkdir(parents=True)
    for name in (
        "nvidia0",
        "nvidia1",
        "nvidiactl",
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia-caps/nvidia-cap1",
    ):
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (dev / name).chmod(0o666)
    (dev / "nvidia-modeset").touch()
    return dev


def test_measure_counts_and_refuses(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 8192)
    (tmp_path / "link").symlink_to("/usr")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        total, count = measure(folder, 100)
        assert count == 4
        assert 8192 <= total < 8192 + 5 * 4096
        assert measure(folder, 4) == (total, count)
        with pytest.raises(Unmeasurable, match="too many entries"):
            measure(folder, 3)
        deep = tmp_path.joinpath(*["d"] * 66)
        deep.mkdir(parents=True)
        with pytest.raises(Unmeasurable, match="more than 64 folders deep"):
            measure(folder, 1000)
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;own the title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1bPdevice control\x1b\\x", "x"),
        ("\x1b]never closed", "never closed"),
        ("10%\r20%\r\n30%", "10%\n20%\n30%"),
        ("abc\b\b\bxyz", "abcxyz"),
        ("a\u202egnp.exe\u2066b\u2069", "agnp.exeb"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("tag\U000e0041\U000e0042", "tag"),
        ("\ud800half", "half"),
        ("浮世絵 ü é 🎴", "浮世絵 ü é 🎴"),
        (b"bytes \xff\x00", "bytes \ufffd"),
    ],
)
def test_clean_text(dirty: str | bytes, clean: str) -> None:
    assert clean_text(dirty) == clean


def test_clean_text_keeps_the_end() -> None:
    assert clean_text("x" * 50 + "end", limit=10) == "…" + "x" * 6 + "end"
    assert clean_text("x" * 10, limit=10) == "x" * 10


@pytest.mark.parametrize("name", ["bubblewrap", "none"])
def test_configs_make_what_they_name(name: str) -> None:
    hydra = pytest.importorskip("hydra")
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = hydra.compose(config_name=f"sandbox/{name}").sandbox
    sandbox = hydra.utils.instantiate(config.backend)
    limits = Limits(wall_seconds=300.0, **config.limits)
    assert sandbox.name == name
    # each limit is decided in the file, none by the class
    assert set(config.limits) | {"wall_seconds"} == {field.name for field in dataclasses.fields(Limits)}
    assert limits.memory_bytes == 16 * 2**30


def test_every_lab_that_should_run_runs() -> None:
    assert "caller" in SANDBOXED
    assert os.geteuid() != 0 or "ordinary" in SANDBOXED, "root tests both ways; needs a Python under /usr"
