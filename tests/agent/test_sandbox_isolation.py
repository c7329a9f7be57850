"""What a sandboxed run must not reach: the network, files, secrets and processes of the host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.sandbox import disk
from tests.contract.sandbox import ORDINARY_UID, SANDBOXED, Lab, OrdinaryLab, open_lab


@pytest.fixture(params=SANDBOXED)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(request.param)


@pytest.mark.parametrize(
    ("family", "here", "outside"),
    [(socket.AF_INET, "127.0.0.1", "1.1.1.1"), (socket.AF_INET6, "::1", "2606:4700:4700::1111")],
)
def test_no_connection_over_ip(lab: Lab, family: int, here: str, outside: str) -> None:
    with socket.create_server((here, 0), family=family) as server:
        port = server.getsockname()[1]
        # the attack works from outside
        socket.create_connection((here, port)).close()
        server.accept()[0].close()
        server.setblocking(False)
        said = lab.attack(f"""
            def connect(address):
                with socket.socket({int(family)}) as s:
                    s.settimeout(2)
                    s.connect((address, {port}))
            tell(host=attempt(connect, {here!r}), outside=attempt(connect, {outside!r}))
        """).said
        with pytest.raises(BlockingIOError):
            server.accept()
    assert said == {"host": "ECONNREFUSED", "outside": "ENETUNREACH"}


def test_no_datagram_leaves(lab: Lab) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        said = lab.attack(f"""
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            inside = attempt(s.sendto, b"x", ("127.0.0.1", {server.getsockname()[1]}))
            tell(inside=inside, outside=attempt(s.sendto, b"x", ("8.8.8.8", 53)))
        """).said
        with pytest.raises(BlockingIOError):
            server.recv(1)
    assert said == {"inside": "done", "outside": "ENETUNREACH"}


def test_loopback_works_inside(lab: Lab) -> None:
    said = lab.attack("""
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        tell(interfaces=[name for _, name in socket.if_nameindex()], connected=client.getpeername()[0])
    """).said
    assert said == {"interfaces": ["lo"], "connected": "127.0.0.1"}


def test_no_host_unix_socket(lab: Lab) -> None:
    path = lab.folder / "socket"
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(str(path))
        abstract.bind(f"\0{path}")
        for server in (named, abstract):
            server.listen()
        socket.socket(socket.AF_UNIX).connect(f"\0{path}")
        said = lab.attack(f"""
            def connect(name):
                socket.socket(socket.AF_UNIX).connect(name)
            tell(named=attempt(connect, {str(path)!r}), abstract=attempt(connect, "\\0" + {str(path)!r}))
        """).said
    assert said == {"named": "ENOENT", "abstract": "ECONNREFUSED"}


def test_no_other_socket_family(lab: Lab) -> None:
    said = lab.attack("""
        AF_PACKET, AF_ALG, AF_VSOCK, AF_NETLINK, AF_BLUETOOTH = 17, 38, 40, 16, 31
        tell(**{str(f): attempt(socket.socket, f, 1, 0) for f in (AF_PACKET, AF_ALG, AF_VSOCK, AF_BLUETOOTH)},
             audit=attempt(socket.socket, AF_NETLINK, 3, 9),
             netfilter=attempt(socket.socket, AF_NETLINK, 3, 12),
             raw=attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1))
    """).said
    assert [said[family] for family in ("17", "38", "40", "31")] == ["EAFNOSUPPORT"] * 4
    assert (said["audit"], said["netfilter"], said["raw"]) == ("EPROTONOSUPPORT", "EPROTONOSUPPORT", "EPERM")


def test_no_name_lookup(lab: Lab) -> None:
    said = lab.attack("""
        began = time.monotonic()
        try:
            answer = str(socket.getaddrinfo("example.com", 443))
        except socket.gaierror as error:
            answer = "gaierror"
        tell(answer=answer, quick=time.monotonic() - began < 10, local=socket.gethostbyname("localhost"))
    """).said
    assert said == {"answer": "gaierror", "quick": True, "local": "127.0.0.1"}


def test_no_home_and_no_host_file(lab: Lab) -> None:
    secret = lab.folder / "secret"
    assert secret.read_text() == "hunter2\n"
    interpreter = str(Path(os.path.realpath(lab.python)).parents[1])
    said = lab.attack(f"""
        seen = []
        for folder, inner, files in os.walk("/root"):
            seen += [os.path.join(folder, file) for file in files]
            inner[:] = [name for name in inner if os.path.join(folder, name) != {interpreter!r}]
        names = sorted(set(os.listdir("/")))
        tell(secret=attempt(open, {str(secret)!r}), home=attempt(os.listdir, "/home"), seen=seen, names=names,
             own=os.environ["HOME"], empty=os.listdir(os.environ["HOME"]),
             up=attempt(open, "/code/../../.." + {str(secret)!r}),
             magic=attempt(open, "/proc/1/root" + {str(secret)!r}))
    """).said
    assert (said["secret"], said["home"], said["up"]) == ("ENOENT", "ENOENT", "ENOENT")
    assert said["magic"] in ("ENOENT", "EACCES")
    assert (said["own"], said["empty"]) == ("/tmp/home", [])
    assert {"var", "home", "opt", "mnt", "boot", "srv", "run", "media"}.isdisjoint(said["names"])
    assert said["seen"] == []


def test_no_system_secret(lab: Lab) -> None:
    said = lab.attack("""
        paths = ["/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/machine-id", "/var/run/docker.sock",
                 "/sys/kernel", "/etc/hostname", "/run/secrets"]
        tell(answers={path: attempt(os.stat, path) for path in paths}, etc=sorted(os.listdir("/etc")),
             users=open("/etc/passwd").read().count("\\n"), name=socket.gethostname())
    """).said
    assert set(said["answers"].values()) == {"ENOENT"}
    allowed = {"alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"}
    assert set(said["etc"]) - allowed == {"group", "hosts", "nsswitch.conf", "passwd", "resolv.conf"}
    assert (said["users"], said["name"]) == (2, "sandbox")


def test_no_host_environment_or_path(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    attack = """
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            for name in ("environ", "cmdline"):
                try:
                    found[f"{pid}/{name}"] = open(f"/proc/{pid}/{name}").read()
                except PermissionError:
                    found[f"{pid}/{name}"] = ""
        tell(found=found, own=dict(os.environ), mounted=open("/proc/self/mountinfo").read())
    """
    said = lab.attack(attack, environment={"OMP_NUM_THREADS": "2"}).said
    assert "1/environ" in said["found"]
    for name, content in said["found"].items():
        assert "hunter2" not in content, name
        assert str(lab.run_dir) not in content, name
    assert "hunter2" not in said["mounted"]
    # the waiting of OpenMP's threads is settled with the libraries, where they are loaded ahead
    assert set(said["own"]) - {"OMP_WAIT_POLICY"} == {
        "PATH", "HOME", "TMPDIR", "LANG", "USER", "LOGNAME", "PWD", "PYTHONDONTWRITEBYTECODE",
        "PYTHONNOUSERSITE", "CUDA_CACHE_PATH", "OMP_NUM_THREADS",
    }  # fmt: skip


def test_no_inherited_descriptor(lab: Lab) -> None:
    said = lab.attack(
        """
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                pass  # the listing itself, closed again
        tell(found=found, leaked=attempt(os.read, 77, 10))
        """,
        leak=lab.folder / "secret",
    ).said
    assert set(said["found"]) == {"0", "1", "2"}
    assert said["found"]["0"] == "/dev/null"
    assert said["leaked"] == "EBADF"


def test_no_host_process(lab: Lab) -> None:
    said = lab.attack(f"""
        pids = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
        tell(count=len(pids), killed=attempt(os.kill, {os.getpid()}, 0), everyone=attempt(os.kill, -1, 0))
    """).said
    assert said["count"] <= 4
    assert said["killed"] == ("ESRCH" if os.getpid() > 20 else "EPERM")


def test_code_data_and_system_are_read_only(lab: Lab) -> None:
    said = lab.attack("""
        def write(path):
            with open(path, "a") as file:
                file.write("tampered")
        places = ["/code/model.py", "/code/new", "/data/pack", "/data/new", "/usr/new", "/usr/bin/env",
                  "/new", "/etc/passwd", "/etc/new", "/dev/new", "/root/new", "/sys/new", "/proc/new",
                  sys.prefix + "/new", os.__file__]
        answers = {place: attempt(write, place) for place in places}
        answers["unlink"] = attempt(os.unlink, "/code/model.py")
        answers["rename"] = attempt(os.rename, "/code", "/gone")
        answers["chmod"] = attempt(os.chmod, "/code/model.py", 0o777)
        answers["utime"] = attempt(os.utime, "/code/model.py", (0, 0))
        answers["link"] = attempt(os.link, "/code/model.py", "/run_dir/model.py")
        tell(answers=answers, own=attempt(write, "/run_dir/own"))
    """).said
    assert said["own"] == "done"
    refused = {"EROFS", "EACCES", "EPERM", "ENOENT", "EXDEV", "EBUSY"}
    assert set(said["answers"].values()) <= refused, said["answers"]
    for place in ("/code/new", "/data/new", "/usr/new", "/new", "/dev/new", "/etc/new"):
        assert said["answers"][place] in ("EROFS", "EACCES"), place
    assert (lab.code / "model.py").read_text() == "original\n"
    assert not (lab.code / "new").exists()


def test_kernel_settings_are_read_only(lab: Lab) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    said = lab.attack("""
        def write(path, text):
            with open(path, "w") as file:
                file.write(text)
        names = ["kernel/core_pattern", "kernel/hostname", "vm/drop_caches", "fs/file-max",
                 "user/max_user_namespaces"]
        tell(settings={name: attempt(write, "/proc/sys/" + name, "1") for name in names},
             sysrq=attempt(write, "/proc/sysrq-trigger", "h"),
             spared=attempt(write, "/proc/self/oom_score_adj", "-1000"))
    """).said
    assert set(said["settings"].values()) == {"EROFS"}
    assert said["sysrq"] in ("EROFS", "EACCES", "ENOENT")  # not every kernel has it
    assert said["spared"] == "EACCES"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_masked_paths_show_nothing(lab: Lab) -> None:
    (lab.code / ".git").mkdir()
    (lab.code / ".git" / "config").write_text("token")
    (lab.code / "judge.py").write_text("answers")
    said = lab.attack(
        """
        def write(path):
            with open(path, "w") as file:
                file.write("x")
        uncovered = libc.umount2(b"/code/.git", 2)
        tell(file=open("/code/judge.py").read(), folder=os.listdir("/code/.git"),
             unmounted=errno.errorcode[ctypes.get_errno()] if uncovered else "done",
             config=attempt(open, "/code/.git/config"),
             written=attempt(write, "/code/judge.py"), opened=attempt(os.chmod, "/code/.git", 0o777),
             planted=attempt(write, "/code/.git/config"),
             renamed=attempt(os.rename, "/code/.git", "/code/git"))
        """,
        masked=["/code/.git", "/code/judge.py"],
    ).said
    assert (said["file"], said["folder"], said["config"]) == ("", [], "ENOENT")
    assert said["written"] in ("EROFS", "EACCES")
    assert said["planted"] in ("EROFS", "EACCES")
    assert said["unmounted"] == "EPERM"
    assert said["renamed"] in ("EBUSY", "EROFS")
    assert (lab.code / ".git" / "config").read_text() == "token"


def test_no_device_but_the_harmless(lab: Lab) -> None:
    said = lab.attack("""
        S_IFBLK, S_IFCHR = 0o060000, 0o020000
        tell(names=sorted(os.listdir("/dev")),
             disk=attempt(os.mknod, "/run_dir/disk", S_IFBLK | 0o666, os.makedev(8, 0)),
             memory=attempt(os.mknod, "/run_dir/mem", S_IFCHR | 0o666, os.makedev(1, 1)),
             fuse=attempt(open, "/dev/fuse"), kernel=attempt(open, "/dev/kmsg"),
             kvm=attempt(open, "/dev/kvm"))
    """).said
    harmless = {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "console",
        "ptmx",
        "pts",
        "shm",
        "fd",
        "core",
    }
    names = {name for name in said["names"] if not name.startswith(("std", "nvidia"))}
    assert names <= harmless
    assert (said["disk"], said["memory"]) == ("EPERM", "EPERM")
    assert (said["fuse"], said["kernel"], said["kvm"]) == ("ENOENT", "ENOENT", "ENOENT")


def test_no_privilege_and_no_way_back(lab: Lab) -> None:
    said = lab.attack("""
        status = status_of("self")
        sets = {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
        tell(uid=os.getuid(), capabilities=sets == {"0" * 16},
             sealed=status["NoNewPrivs"], filtered=status["Seccomp"],
             user=attempt(os.setuid, 0), both=attempt(os.setresuid, 0, 0, 0), group=attempt(os.setgid, 0),
             groups=attempt(os.setgroups, [0]))
    """).said
    assert said["uid"] != 0
    assert said["capabilities"] is True
    assert (said["sealed"], said["filtered"]) == ("1", "2")
    # user 0 is unknown to an ordinary user's namespace (EINVAL)
    assert {said["user"], said["both"], said["group"], said["groups"]} <= {"EPERM", "EINVAL"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a set-user-id file of root's")
def test_set_user_id_programs_give_nothing(lab: Lab) -> None:
    program = lab.code / "id"
    shutil.copy("/usr/bin/id", program)
    os.chown(program, 0, 0)
    program.chmod(0o6755)
    said = lab.attack("""
        import subprocess
        effective = subprocess.run(["/code/id", "-u"], capture_output=True, text=True).stdout.strip()
        group = subprocess.run(["/code/id", "-g"], capture_output=True, text=True).stdout.strip()
        tell(set=oct(os.stat("/code/id").st_mode & 0o7000), effective=effective, own=str(os.getuid()),
             group=group)
    """).said
    assert said["set"] == "0o6000"
    assert said["effective"] == said["own"] != "0"
    assert said["group"] != "0"


def test_no_set_user_id_file_is_left_behind(lab: Lab) -> None:
    ended = lab.attack("""
        open("/run_dir/shell", "w").close()
        O_TMPFILE = 0o20200000
        tell(chmod=attempt(os.chmod, "/run_dir/shell", 0o4755),
             group=attempt(os.chmod, "/run_dir/shell", 0o2755),
             created=attempt(os.open, "/run_dir/other", os.O_CREAT | os.O_WRONLY, 0o4755),
             hidden=attempt(os.open, "/run_dir", O_TMPFILE | os.O_WRONLY, 0o4755),
             descriptor=attempt(os.fchmod, os.open("/run_dir/shell", os.O_RDONLY), 0o4755),
             plain=attempt(os.chmod, "/run_dir/shell", 0o755))
    """)
    said = ended.said
    assert said.pop("plain") == "done"
    assert set(said.values()) == {"EPERM"}
    assert ended.run_dir.joinpath("shell").stat().st_mode & 0o7777 == 0o755


def test_run_directory_is_open_to_the_host_again(lab: Lab) -> None:
    """An ordinary user's payload is the folder's owner, and what it closes is closed to the lab."""
    before = lab.run_dir.stat().st_mode
    assert lab.attack("tell(closed=attempt(os.chmod, '.', 0))").said == {"closed": "done"}
    assert lab.run_dir.stat().st_mode == before


def test_any_tree_can_be_removed() -> None:
    """By an ordinary user, to whom a closed folder is closed."""
    folder = Path(tempfile.mkdtemp())
    shutil.copy(disk.__file__, folder / "disk.py")
    tree = folder / "tree"
    (tree / "closed" / "deeper").mkdir(parents=True)
    ordinary: dict[str, Any] = (
        {"user": ORDINARY_UID, "group": ORDINARY_UID, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    if ordinary:
        subprocess.run(["chown", "-R", str(ORDINARY_UID), str(folder)], check=True)
    (tree / "closed").chmod(0)
    program = "import disk, pathlib; disk.remove(pathlib.Path('tree')); disk.remove(pathlib.Path('no'))"
    subprocess.run([OrdinaryLab.python, "-B", "-c", program], cwd=folder, check=True, **ordinary)
    assert not tree.exists()
    shutil.rmtree(folder)


def test_run_directory_is_the_hosts_again(lab: Lab) -> None:
    before = lab.run_dir.stat()
    ended = lab.attack("""
        os.makedirs("a/b")
        open("a/b/file", "w").write("x")
        os.symlink("/etc/passwd", "link")
        tell(done=True)
    """)
    assert ended.said["done"]
    passwd = Path("/etc/passwd").stat()
    for path in (ended.run_dir, *ended.run_dir.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (before.st_uid, before.st_gid), path
    assert Path("/etc/passwd").stat() == passwd
