"""A service goes in; it is served over streamable HTTP, on this machine's loopback alone.

Browsers are kept out by Host and Origin (a page of another site may reach loopback, by DNS rebinding too). Other
programs and users of this machine are not: KENTO_MCP_TOKEN=… asks every request for `Authorization: Bearer …`.
"""

from __future__ import annotations

import hmac
import sys
from dataclasses import dataclass

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.external.server import Service

LOOPBACK = ("127.0.0.1", "localhost")
SHORTEST_TOKEN = 16


def serve(service: Service, address: str, token: str) -> None:
    """Until Ctrl-C. `address`: a port, or 127.0.0.1:PORT. Raises ValueError for any other address."""
    port = port_of(address)
    if token and len(token) < SHORTEST_TOKEN:
        raise ValueError(f"the token has {len(token)} characters; expected at least {SHORTEST_TOKEN}")
    shown = "with the token" if token else "without a token: every program of this machine may connect"
    print(f"http://127.0.0.1:{port}/mcp, {shown}", file=sys.stderr)
    uvicorn.run(app(service, port, token), host="127.0.0.1", port=port, log_level="warning")


def port_of(address: str) -> int:
    """Raises ValueError for what is no port of loopback."""
    host, _, port = address.rpartition(":")
    if host not in ("", *LOOPBACK):
        raise ValueError(
            f"--http {address}: only 127.0.0.1 is served; for another machine forward the port by ssh -L"
        )
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--http {address}: expected a port from 1 to 65535")
    return int(port)


def app(service: Service, port: int, token: str = "") -> ASGIApp:
    """The ASGI application."""
    names = [f"{host}:{port}" for host in LOOPBACK]
    security = TransportSecuritySettings(
        allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names]
    )
    inner = service.server().streamable_http_app(transport_security=security)
    return Door(inner, service, token)


@dataclass
class Door:
    """Asks for the token, and hears of sessions that their clients end."""

    inner: ASGIApp
    service: Service
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.inner(scope, receive, send)
        headers = Headers(scope=scope)
        if self.token and not hmac.compare_digest(
            headers.get("authorization", "").encode(), f"Bearer {self.token}".encode()
        ):
            return await PlainTextResponse("a token is asked for: Authorization: Bearer …", 401)(
                scope, receive, send
            )

        async def heard(message: Message) -> None:
            ended = scope["method"] == "DELETE" and message.get("status") == 200
            if message["type"] == "http.response.start" and ended:
                self.service.room.leave(f"{self.service.owner} {headers.get('mcp-session-id', '')}".strip())
            await send(message)

        return await self.inner(scope, receive, heard)
