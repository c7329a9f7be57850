"""A checkout of the toy task, and ways into its lab: the official MCP client over stdio and HTTP, and the shell."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import mcp.types as types
import psutil
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from agent.external.settings import Settings
from agent.ledger import Owner, StudyLedger
from tests.fake_task.fixture import HERE, toy_repository

LAB = Path(__file__).resolve().parents[3]
ENVIRONMENT = {"PYTHONPATH": f"{LAB / 'src'}:{LAB}", "OMP_NUM_THREADS": "1"}
PROGRAM = """# The program

```yaml
conclude_after: 0.5
plateau: 6
most_in_a_row: 9
categories: [optimisation, other]
phases:
  - {name: all, share: 1.0, overrides: true, edits: true, max_changes: 3, web_search: false}
```
"""
# one fold, so that a trial is one run
WORDS = (
    "task=toy space=toy sandbox=none acceptance=greedy vault=vault tracker.name=none "
    "budget=smoke budget.seconds=5"
)


@dataclass(frozen=True)
class Place:
    """root: the checkout that holds the task. words: the settings of its studies."""

    root: Path
    words: tuple[str, ...]

    @property
    def settings(self) -> Settings:
        return Settings(self.root, self.words)

    def ledger(self, study: str) -> StudyLedger:
        return self.settings.ledgers.study(study)

    def stdio(self) -> StdioServerParameters:
        return StdioServerParameters(
            command=sys.executable,
            args=["-m", "agent.mcp_server", *self._arguments()],
            env=ENVIRONMENT,
            cwd=LAB,
        )

    def shell(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/lab.py", *words, "--checkout", str(self.root)]
        return subprocess.run(
            command,
            cwd=LAB,
            env=os.environ | ENVIRONMENT,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def http(self, token: str = "") -> Iterator[str]:
        """A server of its own; yields its URL."""
        port = free_port()
        environment = os.environ | ENVIRONMENT | ({"KENTO_MCP_TOKEN": token} if token else {})
        command = [sys.executable, "-m", "agent.mcp_server", "--http", str(port), *self._arguments()]
        server = subprocess.Popen(command, cwd=LAB, env=environment, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, "the server ended"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=20)

    def workers(self, study: str) -> list[int]:
        """The processes that are at work on the study."""
        files = (self.root / "runs" / study / "requests").glob("*/worker")
        owners = [
            Owner.parse(file.read_text()) for file in files if not (file.parent / "answer.json").exists()
        ]
        return [owner.pid for owner in owners if owner.alive()]

    def servers(self) -> list[int]:
        """The MCP servers of this place."""
        found = psutil.process_iter(["cmdline"])
        mine = (p for p in found if str(self.root) in (p.info["cmdline"] or []))
        return [p.pid for p in mine if "agent.mcp_server" in p.info["cmdline"]]

    def kill_servers(self) -> None:
        """As harsh as any client: all children first, then the whole process group."""
        for pid in self.servers():
            group = os.getpgid(pid)
            assert group != os.getpgid(0)
            for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
                process.kill()
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    async def under_way(self, study: str, number: int) -> None:
        """Returns once the trial's run has begun."""
        with anyio.fail_after(60):
            while not list((self.root / "runs" / study / f"{number:04d}").glob("*/log.txt")):
                await anyio.sleep(0.05)

    def open_gate(self, study: str) -> None:
        """Lets a run with fault.kind=gate go on."""
        (self.root / "runs" / study / "workspace" / "gate").touch()

    def _arguments(self) -> list[str]:
        return ["--checkout", str(self.root), *self.words]


def toy_place(folder: Path, *more: str) -> Place:
    """A fresh one. `more`: further words."""
    root, groups = toy_repository(folder / "repository"), folder / "groups"
    for group, file in (("task", "task.yaml"), ("space", "space.yaml")):
        (groups / group).mkdir(parents=True)
        shutil.copy(HERE / file, groups / group / "toy.yaml")
    (folder / "program.md").write_text(PROGRAM)
    own = [
        f"hydra.searchpath=[file://{groups}]",
        f"searcher.program={folder / 'program.md'}",
        "task.folds=[0]",
    ]
    return Place(root, (*own, *WORDS.split(), *more))


@dataclass
class Caller:
    """A connected client. `heard`: the progress messages of its calls."""

    client: Client
    heard: list[str]

    async def __call__(self, tool: str, **given: Any) -> types.CallToolResult:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            self.heard.append(message or "")

        return await self.client.call_tool(tool, given, progress_callback=progress)

    async def text(self, tool: str, **given: Any) -> str:
        result = await self(tool, **given)
        assert not result.is_error, text_of(result)
        return text_of(result)

    async def refused(self, tool: str, **given: Any) -> str:
        result = await self(tool, **given)
        assert result.is_error, text_of(result)
        return text_of(result)


@asynccontextmanager
async def caller(server: Any, name: str = "tester", **options: Any) -> AsyncIterator[Caller]:
    info = types.Implementation(name=name, version="1.2")
    async with Client(server, client_info=info, **options) as client:
        yield Caller(client, [])


def text_of(result: types.CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, types.TextContent))


def proposes(overrides: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The input of propose_trial."""
    entries = [{"key": key, "value": value} for key, value in (overrides or {}).items()]
    said = {"hypothesis": "The rate is too low.", "expected_effect": "It learns.", "category": "optimisation"}
    return said | {"overrides": entries, "edits": []} | fields


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
