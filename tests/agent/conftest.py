"""Databases for the lab's tests: a fresh SQLite file, and a PostgreSQL server where one is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[int]:
    """A server of our own on a free loopback port, its data in a temporary folder; yields the port.

    PostgreSQL refuses to run as root, so as root it is run as the user its Debian package made, or as nobody.
    """
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the driver is not installed (pip install 'kento[postgres]')")
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
            server.terminate()
            server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: int) -> Iterator[str]:
    """A fresh database of the server."""
    import psycopg

    name = f"kento_{uuid.uuid4().hex[:12]}"
    admin = f"postgresql://kento@127.0.0.1:{postgres_server}/postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"postgresql+psycopg://kento@127.0.0.1:{postgres_server}/{name}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Every kind of storage in turn."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


def _postgres_programs() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = installed[-1] if installed else shutil.which("initdb")
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
    pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
