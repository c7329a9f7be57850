"""Databases for the lab's tests: a fresh SQLite file, and a PostgreSQL server where one is installed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent import postgres


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[int]:
    programs = postgres.installed()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the driver is not installed (pip install 'kento[postgres]')")
    with postgres.server(programs) as port:
        yield port


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
