"""What a client may call: the built-in researcher's tools, and those that stand for what the lab tells it unasked.

The definitions that both share are the same objects; only what differs in use (a proposal runs at once, and has an
answer) is said here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.researcher import tools as shared
from agent.researcher.tools import Schema

RUNS = (
    "The lab runs it at once and answers with outcome and verdict; until then it reports progress. If the call ends "
    "before the trial does, the trial goes on: wait for it with status. A refusal runs nothing, but the third in a "
    "row is a trial, rejected and charged."
)
STUDY = {
    "type": "string",
    "description": "A short name: letters, digits, - and _. Leave it out for the server's own choice.",
}
USAGE = {
    "type": "object",
    "description": "What your own model has used since the last trial, if you know it. The lab cannot see it: it is "
    "kept as you say it. Leave it out rather than guess.",
    "properties": {
        "model": {"type": "string", "description": "The model's name."},
        "input_tokens": {"type": "integer", "description": "Tokens read, cached ones included."},
        "output_tokens": {"type": "integer", "description": "Tokens written, thinking included."},
        "usd": {
            "type": "number",
            "description": "What they cost in dollars; counts against a budget of dollars.",
        },
    },
    "required": [],
    "additionalProperties": False,
}


def _tool(name: str, description: str, **properties: Schema) -> Schema:
    """All properties are optional."""
    schema = {"type": "object", "properties": properties, "required": [], "additionalProperties": False}
    return {"name": name, "description": description, "input_schema": schema}


START = _tool(
    "start_study",
    "Begin a new study and take its chair. Runs the reference first, on several training seeds: that takes as long "
    "as several trials. Call this or resume_study before anything else.",
    study=STUDY,
)
RESUME = _tool(
    "resume_study",
    "Take the chair of a study that was begun, after a disconnect, say. Answers with its status.",
    study=STUDY,
    take_over={
        "type": "boolean",
        "description": "Only if the study is held by yourself, from before a disconnect.",
    },
)
PROGRAM = _tool(
    "program",
    "What is wanted: how the study works, the program with its phases, the task, the parameters with their ranges "
    "and the code of the current recipe. Read it first.",
)
STATUS = _tool(
    "status",
    "Where the study stands: recipe, learning curves, plan, scratchpad, notes, what is left of the budget, the "
    "phase and what it allows, and the trial under way, if one is.",
    wait_seconds={
        "type": "number",
        "description": "Wait so long at most for the end of the trial under way; 0 to 600, without it 0.",
    },
)
HISTORY = _tool("history", "All trials, one row each: what was tried and what came of it.")
REPORT = _tool("report", "The study's report so far: what was found, and how sure that is.")
OWN = (START, RESUME, PROGRAM, STATUS, HISTORY, REPORT)
# those that only read; the others change the study
READING = frozenset(
    {"program", "status", "history", "look_up_trial", "read_file", "check_proposal", "report"}
)


def definitions(categories: Sequence[str]) -> list[Schema]:
    """Every tool: name, description, input_schema."""
    built_in = shared.definitions(categories, edits=True, files=True, strict=False, web_searches=0)
    found = [START, RESUME, PROGRAM, STATUS, HISTORY]
    for tool in built_in:
        if tool["name"] == "propose_trial":
            found += [_checking(tool), _running(tool)]
        else:
            found.append(tool)
    return [*found, REPORT]


def names() -> list[str]:
    """The tools' names, which no program changes."""
    return [tool["name"] for tool in definitions(["any"])]


def _checking(propose: Schema) -> Schema:
    return {
        **propose,
        "name": "check_proposal",
        "description": "Whether propose_trial would accept this, and if not, why. Free: nothing is run, charged or "
        "counted. It does not try the code out; propose_trial does, before the trial.",
    }


def _running(propose: Schema) -> Schema:
    schema = propose["input_schema"]
    return {
        **propose,
        "description": f"Propose the next trial. {RUNS}",
        "input_schema": {**schema, "properties": {**schema["properties"], "usage": USAGE}},
    }


def split_usage(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the proposal as the built-in researcher would give it, the usage if it is said). Raises BadCall."""
    proposal = {name: value for name, value in given.items() if name != "usage"}
    usage = given.get("usage", {})
    optional(USAGE, usage, "usage")
    for name in ("input_tokens", "output_tokens", "usd"):
        if not 0 <= usage.get(name, 0) < 1e12:
            raise shared.BadCall(f"usage.{name}: expected a number from 0")
    if len(usage.get("model", "")) > 100:
        raise shared.BadCall("usage.model: at most 100 characters")
    return proposal, usage


def optional(schema: Schema, given: Any, where: str) -> None:
    """`shared.require` for an object whose properties may be left out. Raises BadCall."""
    present = given if isinstance(given, Mapping) else {}
    known = {name: part for name, part in schema["properties"].items() if name in present}
    if unknown := [name for name in present if name not in schema["properties"]]:
        takes = ", ".join(schema["properties"]) or "nothing"
        raise shared.BadCall(f"{where}: unknown field {str(unknown[0])[:60]!r}; it takes {takes}")
    shared.require({**schema, "properties": known}, given, where)
