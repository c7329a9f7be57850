"""The ledger goes in; Optuna's dashboard of every searcher's studies comes out, on this machine's loopback only.

    python scripts/dashboard.py [port=8080] [ledger=postgresql+psycopg://…]

The dashboard can rename and delete studies: it is for the ledger's owner, so it listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEDGER = f"sqlite:///{ROOT / 'runs' / 'ledger.db'}"
HOST, PORT = "127.0.0.1", 8080


def main(words: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C; 1 with a reason where it cannot."""
    parser = argparse.ArgumentParser(
        usage="dashboard.py [port=8080] [ledger=URL]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="port=8080")
    asked = [word.replace("ledger.url=", "ledger=", 1) for word in parser.parse_args(words).words]
    given = dict(word.partition("=")[::2] for word in asked)
    if given.keys() - {"port", "ledger"} or not given.get("port", "0").isdigit():
        parser.error("known are port=8080 and ledger=URL")
    ledger = given.get("ledger", LEDGER)
    path = ledger.removeprefix("sqlite:///")
    if path != ledger and not Path(path).is_file():
        return refused(f"there is no ledger at {path} yet; a study makes it: make optuna-sweep budget=smoke")
    try:
        from optuna_dashboard import run_server
    except ImportError:
        return refused("optuna-dashboard is not installed: pip install 'kento[dashboard]'")
    port = int(given["port"]) if given.get("port") else free_port(PORT)
    print(f"http://{HOST}:{port}/  (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        run_server(ledger, host=HOST, port=port)
    return 0


def free_port(wanted: int) -> int:
    """`wanted`, or the next one that nobody listens on."""
    for port in range(wanted, wanted + 20):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    return wanted


def refused(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    # a shell's background job is started with SIGINT ignored, and would never end by it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
