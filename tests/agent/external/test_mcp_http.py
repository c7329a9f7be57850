"""The official client over streamable HTTP: two clients on one study, a cut-off call, tokens, hosts and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.streamable_http import streamable_http_client

from agent.external.http import port_of
from tests.agent.external.place import Caller, Place, caller, proposes, toy_place

SLOW = {"fault.kind": "gate", "fault.seconds": 60}
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
TOKEN = "a long enough secret"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return toy_place(tmp_path_factory.mktemp("http"), "budget.trials=4")


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with place.http(TOKEN) as url:
        yield url


def server(url: str) -> Any:
    return streamable_http_client(
        url, http_client=httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=120)
    )


def test_two_clients_on_one_study(place: Place, url: str) -> None:
    anyio.run(_two_clients, place, url)
    statuses = [trial.outcome.status for trial in place.ledger("blue").trials() if trial.outcome]
    assert statuses == ["completed", "completed"]
    # the newest protocol knows no sessions: a client is its name, and leaves by silence
    assert place.ledger("blue").study.user_attrs["chair"]["client"]["by"] == "third 1.2"


async def _two_clients(place: Place, url: str) -> None:
    async with caller(server(url), "first", mode="legacy") as first:
        await first.text("start_study", study="blue")
        async with caller(server(url), "second", mode="legacy") as second:
            assert "held by first 1.2, since" in await second.refused("resume_study", study="blue")
            # a name is no proof: the very same one is another session, and is told how to go on
        async with caller(server(url), "first", mode="legacy") as again:
            assert "resume_study with take_over=true" in await again.refused("resume_study", study="blue")
            await again.text("resume_study", study="blue", take_over=True)
            assert "held by first 1.2" in await first.refused("write_scratchpad", text="mine")
            async with anyio.create_task_group() as group:
                group.start_soon(_cut_off, again)
                await place.under_way("blue", 1)
                group.cancel_scope.cancel()
            assert "Under way: trial 1" in await again.text("status")
            place.open_gate("blue")
            assert "Under way" not in await again.text("status", wait_seconds=60)
    # both sessions are ended by their clients, so the study is free at once
    async with caller(server(url), "third", mode="auto") as third:
        assert third.client.protocol_version >= "2026"
        assert "3 of 4 trials are left" in await third.text("resume_study", study="blue")
        await third.text("write_scratchpad", text="ours")


async def _cut_off(call: Caller) -> None:
    await call("propose_trial", **proposes(SLOW))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"authorization": "Bearer a wrong secret"}, 401),
        ({"authorization": ""}, 401),
        ({"host": "evil.example.com"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"origin": "https://evil.example.com"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_who_may_come_in(url: str, headers: dict[str, str], status: int) -> None:
    given = {"authorization": f"Bearer {TOKEN}", **ACCEPT, **headers}
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "raw", "version": "0"},
        },
    }
    assert httpx2.post(url, json=initialize, headers=given, timeout=30).status_code == status


def test_a_body_that_is_too_large_is_not_read(url: str) -> None:
    given = {"authorization": f"Bearer {TOKEN}", **ACCEPT}
    body = HELLO | {"params": {"x": "y" * 5_000_000}}
    assert httpx2.post(url, json=body, headers=given, timeout=30).status_code == 413


@pytest.mark.parametrize("address", ["8765", "127.0.0.1:8765", "localhost:8765"])
def test_loopback_is_served(address: str) -> None:
    assert port_of(address) == 8765


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8765", "192.168.1.2:80", "[::]:80", "example.com:80", ":80x", "0", "x"]
)
def test_no_other_address_is(address: str) -> None:
    with pytest.raises(ValueError, match=r"only 127.0.0.1 is served|expected a port"):
        port_of(address)


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the server ended"), toy_place(tmp_path).http("short"):
        pass
