"""MCP requests of any client enter over stdio or loopback HTTP; the lab's tools answer, and nothing else does.

python -m agent.mcp_server budget=cpu                        over stdio, for clients that start their servers
python -m agent.mcp_server --http 8765 budget=cpu            streamable HTTP at http://127.0.0.1:8765/mcp
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from agent.external.server import Service
from agent.external.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "KENTO_MCP_TOKEN"


def main(words: Sequence[str] | None = None) -> int:
    """Serves until the client, or Ctrl-C, ends it; 1 with a reason where that cannot begin."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given = _arguments(words)
    try:
        settings = Settings(given.checkout.resolve(), tuple(given.words))
        service = Service(settings, importlib.metadata.version("kento"), http=given.http is not None)
        if given.http is None:
            anyio.run(service.serve_stdio)
        else:
            from agent.external.http import serve

            serve(service, given.http, os.environ.get(TOKEN, ""))
    except KeyboardInterrupt:
        return 0
    except (ValueError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m agent.mcp_server",
        description="The lab's tools over MCP. Words like budget=cpu are Hydra's, for studies that are begun here.",
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument(
        "--http",
        metavar="[127.0.0.1:]PORT",
        help=f"streamable HTTP on loopback; {TOKEN}=… asks clients for a token",
    )
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, help="the checkout that holds the task (this one)"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
