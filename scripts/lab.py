"""The researcher's chair from a shell: a command goes in, the lab's answer comes out, as text or with --json.

python scripts/lab.py start budget=smoke          begin a study (Hydra's words) and run its reference
python scripts/lab.py program|status|history|report
python scripts/lab.py trial 3                     all that is known of a trial
python scripts/lab.py read src/eclip/losses.py    a file of the recipe
python scripts/lab.py check FILE                  would this proposal be accepted? costs nothing; - is stdin
python scripts/lab.py propose FILE                run it
python scripts/lab.py propose --override model.logit_scale.max=100 --hypothesis "the scale cannot be learned"
python scripts/lab.py note "warm-up matters"      add a line to the scratchpad; plan FILE replaces the plan
python scripts/lab.py wait|resume|leave           for the trial under way; after a kill; give the study up
python scripts/lab.py conclude "nothing is left"

FILE holds the input of the researcher's own tool as JSON: hypothesis, expected_effect, category, overrides
({"key": value}, or its list of {"key", "value"}) and edits ([{"path", "old", "new"}]).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from agent.codec import RecordError, loads
from agent.external.chair import Client
from agent.external.room import Room, Said, Waiting
from agent.external.settings import Settings
from agent.researcher.memory import Memory

ROOT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.2
PLAIN = ("program", "status", "history", "report", "resume", "wait", "leave")
TOOLS = {"start": "start_study", "resume": "resume_study", "wait": "status", "trial": "look_up_trial"}
TOOLS |= {"read": "read_file", "check": "check_proposal", "propose": "propose_trial"}
TOOLS |= {"note": "write_scratchpad", "plan": "revise_plan"}


def main(typed: Sequence[str] | None = None) -> int:
    """0 where the lab did what was asked, 1 with the reason where it did not."""
    given = arguments().parse_args(typed)
    try:
        words = (*given.setting, *getattr(given, "words", ()))
        room = Room(Settings(given.checkout.resolve(), words), "shell")
        client = Client(given.name, f"shell {given.name}")
        if given.command != "start":
            room.chosen[client.seat] = given.study or only_study(room.settings)
        if given.command == "leave":
            room.leave(client.seat)
            return shown(Said("left"), given.json)
        answer = room.call(TOOLS.get(given.command, given.command), values(given, room, client), client)
        return shown(followed(answer) if isinstance(answer, Waiting) else answer, given.json)
    except (ValueError, RuntimeError, OSError) as error:
        return shown(Said(str(error), fault=True), given.json)
    except KeyboardInterrupt:
        print("\nit goes on without you: python scripts/lab.py wait", file=sys.stderr)
        return 130


def only_study(settings: Settings) -> str:
    """The external study of the ledger, where there is one. Raises ValueError."""
    known = settings.studies()
    if len(known) != 1:
        raise ValueError(
            f"choose --study NAME; there are: {', '.join(known) or 'none; begin one with start'}"
        )
    return known[0]


def values(given: argparse.Namespace, room: Room, client: Client) -> dict[str, Any]:
    """The input of the command's tool. Raises ValueError for a file that cannot be read."""
    named = {"study": given.study} if given.study else {}
    if given.command in ("check", "propose"):
        return proposal(given)
    if given.command == "note":
        before = Memory(room.visit(client).folder).scratchpad()
        return {"text": f"{before}\n{given.text}".strip()}
    by_command: Mapping[str, dict[str, Any]] = {
        "start": named,
        "resume": named,
        "wait": {"wait_seconds": 600},
        "trial": {"number": getattr(given, "number", 0)},
        "read": {"path": getattr(given, "path", "")},
        "plan": read_json(given.file) if given.command == "plan" else {},
        "conclude": {"reason": getattr(given, "text", "")},
    }
    return by_command.get(given.command, {})


def proposal(given: argparse.Namespace) -> dict[str, Any]:
    """What the file says, and what the command line says over it."""
    found: dict[str, Any] = {"overrides": [], "edits": [], "category": "other", "expected_effect": "not said"}
    found |= read_json(given.file) if given.file else {}
    if isinstance(found["overrides"], dict):
        found["overrides"] = [{"key": key, "value": value} for key, value in found["overrides"].items()]
    for word in given.override:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--override {word}: expected KEY=VALUE")
        found["overrides"] = [*found["overrides"], {"key": key, "value": yaml.safe_load(value)}]
    said = {"hypothesis": given.hypothesis, "expected_effect": given.expect, "category": given.category}
    found |= {name: text for name, text in said.items() if text is not None}
    return found | ({"usage": {"usd": given.usd}} if given.usd is not None else {})


def read_json(path: str) -> dict[str, Any]:
    """An object from a file, or from standard input. Raises ValueError naming the file."""
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    try:
        read = loads(text)
    except RecordError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(read, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(read).__name__}")
    return read


def followed(waiting: Waiting) -> Said:
    """Waits for the answer; says on standard error what is going on, when that changes."""
    told = ""
    while (answer := waiting.peek()) is None:
        if (now := waiting.progress()) != told:
            told = now
            print(told, file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
    return answer


def shown(said: Said, as_json: bool) -> int:
    if as_json:
        data = said.data or {}
        print(json.dumps({"ok": not said.fault, "text": said.text, **data}, indent=1, ensure_ascii=False))
    else:
        print(said.text, file=sys.stderr if said.fault else sys.stdout)
    return int(said.fault)


def arguments() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="for programs")
    common.add_argument("--study", help="without it, the only external study")
    common.add_argument("--as", dest="name", default="person", help="who you are, for the ledger (person)")
    common.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="ledger.url or runs, if not the usual",
    )
    common.add_argument("--checkout", type=Path, default=ROOT, help="the checkout that holds the task")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="lab.py COMMAND …"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in PLAIN:
        commands.add_parser(name, parents=[common])
    commands.add_parser("start", parents=[common]).add_argument("words", nargs="*", metavar="KEY=VALUE")
    commands.add_parser("trial", parents=[common]).add_argument("number", type=int)
    commands.add_parser("read", parents=[common]).add_argument("path")
    commands.add_parser("plan", parents=[common]).add_argument("file")
    for name in ("note", "conclude"):
        commands.add_parser(name, parents=[common]).add_argument("text")
    for name in ("check", "propose"):
        own = commands.add_parser(name, parents=[common])
        own.add_argument("file", nargs="?", help="JSON; - is standard input")
        own.add_argument("--override", action="append", default=[], metavar="KEY=VALUE")
        for option in ("--hypothesis", "--expect", "--category"):
            own.add_argument(option)
        own.add_argument("--usd", type=float, help="what your model has cost since the last trial")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
