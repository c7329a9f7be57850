"""Tools and resources as MCP has them: a request of the official SDK enters, its typed result leaves."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import mcp.types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from agent.external import texts, tools
from agent.external.chair import Client
from agent.external.room import Room, Said, Waiting
from agent.external.settings import Settings
from agent.ledger import Owner
from agent.researcher.hygiene import one_line
from agent.researcher.memory import Memory
from agent.researcher.program import Program, program_path, read_program

INSTRUCTIONS = (
    "kento: you are the researcher of a study. Call start_study or resume_study, then program and status; propose "
    "trials with propose_trial until the budget is used. The tools are all you need: there is no shell."
)
POLL_SECONDS, PROGRESS_SECONDS = 0.25, 5.0
RESOURCES = {
    "kento://program": (
        "program.md",
        "What the study is to find, and what each phase allows.",
        "text/markdown",
    ),
    "kento://scratchpad": (
        "scratchpad.md",
        "What you noted; it outlives your conversation.",
        "text/markdown",
    ),
    "kento://report": ("report.md", "The report so far, in short.", "text/markdown"),
    "kento://report.html": ("report.html", "The report as a page of its own, with figures.", "text/html"),
}
Context = ServerRequestContext[Any, Any]


@dataclass
class Service:
    """One server. http: clients are sessions of this process; over stdio the process is the client's."""

    settings: Settings
    version: str
    http: bool
    room: Room = field(init=False)
    owner: str = field(default_factory=lambda: str(Owner.here()))
    _lock: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self.room = Room(self.settings, "mcp")
        self.program()  # words and a program that cannot be used are better known now

    def program(self) -> Program:
        """program.md as it is now. Raises ProgramError."""
        return read_program(program_path(str(self.settings.new.searcher.program)))

    def server(self) -> Server[Any]:
        """The protocol's side."""
        return Server(
            "kento",
            version=self.version,
            title="kento: an experiment lab",
            instructions=INSTRUCTIONS,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_read_resource=self.read_resource,
        )

    async def serve_stdio(self) -> None:
        """Until the client closes its end."""
        server = self.server()
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
        self.room.leave(self.owner)

    async def list_tools(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        found = tools.definitions(self.program().categories)
        return types.ListToolsResult(tools=[described(tool) for tool in found])

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        given, client = dict(params.arguments or {}), self._client(context)
        # one at a time: each is short, but for the trials, which run in processes of their own
        async with self._lock:
            answer = await anyio.to_thread.run_sync(partial(self.room.call, params.name, given, client))
        return _result(await self._waited(answer, context) if isinstance(answer, Waiting) else answer)

    async def list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        listed = [
            types.Resource(uri=uri, name=name, description=what, mime_type=kind)
            for uri, (name, what, kind) in RESOURCES.items()
        ]
        return types.ListResourcesResult(resources=listed)

    async def read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        if uri not in RESOURCES:
            raise MCPError(types.INVALID_PARAMS, f"no resource {uri[:200]}; there are {', '.join(RESOURCES)}")
        try:
            text = await anyio.to_thread.run_sync(self._resource, uri, self._client(context))
        except (ValueError, RuntimeError) as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        contents = types.TextResourceContents(uri=uri, mime_type=RESOURCES[uri][2], text=text)
        return types.ReadResourceResult(contents=[contents])

    def _resource(self, uri: str, client: Client) -> str:
        if uri == "kento://program":
            return self.program().text
        visit = self.room.visit(client)
        if uri == "kento://scratchpad":
            return Memory(visit.folder).scratchpad()
        return texts.report(visit)[0] if uri == "kento://report" else texts.report_page(visit)

    async def _waited(self, waiting: Waiting, context: Context) -> Said:
        """Follows until the answer is there. Being cancelled, or cut off, ends the following alone."""
        began, told, last = time.monotonic(), -PROGRESS_SECONDS, ""
        while (answer := await anyio.to_thread.run_sync(waiting.peek)) is None:
            where = await anyio.to_thread.run_sync(waiting.progress)
            # the same again from time to time: clients end a call that they hear nothing of
            if where != last or time.monotonic() - told >= PROGRESS_SECONDS:
                told, last = time.monotonic(), where
                await context.session.report_progress(round(told - began, 2), message=where)
            await anyio.sleep(POLL_SECONDS)
        return answer

    def _client(self, context: Context) -> Client:
        """Who asks: a session of ours over HTTP, or, where the protocol knows no sessions, a name."""
        said = context.session.client_params
        name, version = (said.client_info.name, said.client_info.version) if said else ("unknown client", "")
        by = one_line(f"{name} {version}".strip(), 100) or "unknown client"
        headers = getattr(context.request, "headers", {})
        session = headers.get("mcp-session-id", by) if self.http else ""
        return Client(by, f"{self.owner} {session}".strip(), self.owner)


def described(tool: dict[str, Any]) -> types.Tool:
    hints = types.ToolAnnotations(
        read_only_hint=tool["name"] in tools.READING, destructive_hint=False, open_world_hint=False
    )
    return types.Tool(
        name=tool["name"],
        description=tool["description"],
        input_schema=tool["input_schema"],
        annotations=hints,
    )


def _result(said: Said) -> types.CallToolResult:
    data = None if said.data is None else json.loads(json.dumps(said.data, allow_nan=False))
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=said.text or "-")],
        structured_content=data,
        is_error=said.fault,
    )
