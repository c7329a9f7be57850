"""A PostgreSQL server of our own, where one is installed: for tests, and for scripts/bench_scale.py."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(programs: Path) -> Iterator[int]:
    """On a free loopback port, its data in a temporary folder; yields the port. `programs`: see `installed`.

    PostgreSQL refuses to run as root, so as root it is run as the user its Debian package made, or as nobody.
    """
    # not under pytest's folder, which another user may not enter
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = _unprivileged(folder)
    data, port = folder / "data", _free_port()
    server: subprocess.Popen[bytes] | None = None
    try:
        initdb = [programs / "initdb", "-D", data, "-U", "kento", "-A", "trust", "--no-sync", "-E", "UTF8"]
        _run([*initdb, "--locale=C"], user, folder)
        with (folder / "log").open("wb") as log:
            # no fsync: a crash of the machine is not what is tested
            settings = [
                "-p",
                str(port),
                "-k",
                str(folder),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
            ]
            command = [str(programs / "postgres"), "-D", str(data), *settings]
            server = subprocess.Popen(command, user=user, stdout=log, stderr=log, cwd=folder)
        _wait_until_ready(programs, port, server, folder)
        yield port
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # a fast end; SIGTERM's would wait for clients to go
            server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def installed() -> Path | None:
    """The folder of its programs."""
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = known[-1] if known else shutil.which("initdb")
    return Path(found).parent if found else None


def _unprivileged(folder: Path) -> str | None:
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    return user


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(command: list[object], user: str | None, folder: Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], user=user, cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def _wait_until_ready(programs: Path, port: int, server: subprocess.Popen[bytes], folder: Path) -> None:
    """pg_isready waits by itself only within one try, so it is asked until it agrees."""
    for _ in range(100):
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "3"]
        if subprocess.run(ready, check=False).returncode == 0:
            return
        try:
            server.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
