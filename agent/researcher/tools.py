"""What the model may call: definitions leave; a call's input comes in, and is checked before it is used.

Strict mode makes the API check the schema. Other servers may not, so every input is checked here again.
Strict schemas know no free-form maps and no lengths: overrides are a list of {key, value}, lengths are
checked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.records import Edit, Proposal, Value
from agent.researcher.memory import Idea
from agent.researcher.names import Names

Schema = dict[str, Any]
LONGEST_TEXT = 4000
MOST_EDIT_CHARS = 65_536
MOST_OVERRIDES, MOST_EDITS, MOST_IDEAS = 100, 20, 20


class BadCall(ValueError):
    """The input is not what the tool takes; the message says where, for the model."""


def definitions(
    categories: Sequence[str], *, edits: bool, files: bool, strict: bool, web_searches: int
) -> list[Schema]:
    """The tools of an arm, in an order that never changes: they are the beginning of the cached prefix."""
    tools = [
        propose_trial(categories, edits),
        LOOK_UP_TRIAL,
        WRITE_SCRATCHPAD,
        revise_plan(categories),
        CONCLUDE,
    ]
    if files:
        tools.insert(1, READ_FILE)
    tools = [{**tool, "strict": True} if strict else tool for tool in tools]
    if web_searches:
        search = {"type": "web_search_20260318", "name": "web_search", "max_uses": web_searches}
        tools.append(search)
    return tools


def _object(**properties: Schema) -> Schema:
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _list(item: Schema, description: str) -> Schema:
    return {"type": "array", "items": item, "description": description}


def _tool(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "description": description, "input_schema": schema}


def _category(categories: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(categories), "description": "What kind of change it is."}


def propose_trial(categories: Sequence[str], edits: bool) -> Schema:
    value = {"anyOf": [{"type": kind} for kind in ("number", "boolean", "string", "null")]}
    override = _object(key=_text("The full key."), value=value)
    properties = {
        "hypothesis": _text("Why this should improve the metric, in two or three sentences."),
        "expected_effect": _text("What will happen to the metric and the curves if the hypothesis is right."),
        "category": _category(categories),
        "overrides": _list(override, "Settings to change on top of the current recipe; may be empty."),
    }
    if edits:
        edit = _object(
            path=_text("An editable file."),
            old=_text("Text that occurs exactly once in the file, with enough context to be unique."),
            new=_text("What replaces it."),
        )
        properties["edits"] = _list(
            edit, "Search-and-replace edits of the current recipe's code; may be empty."
        )
    return _tool(
        "propose_trial",
        "Propose a trial. Ends the round, unless the round is for several trials: then call it once for each.",
        _object(**properties),
    )


READ_FILE = _tool(
    "read_file", "Show a file of the current recipe.", _object(path=_text("Path relative to the workspace."))
)
LOOK_UP_TRIAL = _tool(
    "look_up_trial",
    "Show all that is known of one trial: hypothesis, change, measurements, curves, end of the log.",
    _object(number={"type": "integer", "description": "The trial's number in the history table."}),
)
WRITE_SCRATCHPAD = _tool(
    "write_scratchpad",
    "Replace the scratchpad: your only memory besides the history. Keep what you learned and mean to do.",
    _object(text=_text("The whole new scratchpad.")),
)
CONCLUDE = _tool(
    "conclude",
    "End the study before its budget is used. Allowed late, and only if nothing left is worth a trial.",
    _object(reason=_text("Why nothing is left to try.")),
)


def revise_plan(categories: Sequence[str]) -> Schema:
    idea = _object(
        hypothesis=_text("What to try, and why."),
        category=_category(categories),
        expected_gain=_text("How much better the metric could get."),
        cost=_text("Trials and risk."),
    )
    return _tool(
        "revise_plan",
        "Replace the plan: hypotheses in the order in which they are to be tried, best value first.",
        _object(ideas=_list(idea, "The ranked list.")),
    )


def require(schema: Schema, value: Any, where: str) -> None:
    """Checks a value against the few words of JSON Schema that are used above. Raises BadCall."""
    if "anyOf" in schema:
        if not any(_is(part["type"], value) for part in schema["anyOf"]):
            raise BadCall(f"{where}: expected a number, text, true, false or null")
        return
    if not _is(schema["type"], value):
        raise BadCall(f"{where}: expected {schema['type']}, got {type(value).__name__}")
    if isinstance(value, str):
        _text_is_sound(value, where)
    if "enum" in schema and value not in schema["enum"]:
        raise BadCall(f"{where}: expected one of {', '.join(schema['enum'])}")
    if schema["type"] == "array":
        for index, item in enumerate(value):
            require(schema["items"], item, f"{where}[{index}]")
    if schema["type"] == "object":
        if unknown := [name for name in value if name not in schema["properties"]]:
            raise BadCall(f"{where}: unknown field {str(unknown[0])[:60]!r}")
        for name, part in schema["properties"].items():
            if name not in value:
                raise BadCall(f"{where}: {name} is missing")
            require(part, value[name], f"{where}.{name}")


def read_proposal(given: Mapping[str, Any], names: Names) -> Proposal:
    """A checked input as a Proposal, under the lab's own names. Raises BadCall."""
    edits = given.get("edits", [])
    _at_most(MOST_OVERRIDES, given["overrides"], "overrides")
    _at_most(MOST_EDITS, edits, "edits")
    if (size := sum(len(edit["old"]) + len(edit["new"]) for edit in edits)) > MOST_EDIT_CHARS:
        raise BadCall(f"edits: {size} characters in all; at most {MOST_EDIT_CHARS}")
    for name in ("hypothesis", "expected_effect"):
        if not given[name].strip() or len(given[name]) > LONGEST_TEXT:
            raise BadCall(f"{name}: expected 1 to {LONGEST_TEXT} characters")
    overrides: dict[str, Value] = {}
    for entry in given["overrides"]:
        key, value = _override(entry, names)
        if key in overrides:
            raise BadCall(f"overrides: {entry['key']} is given twice")
        overrides[key] = value
    return Proposal(
        overrides=overrides,
        edits=tuple(Edit(edit["path"], edit["old"], edit["new"]) for edit in edits),
        hypothesis=given["hypothesis"].strip(),
        expected_effect=given["expected_effect"].strip(),
        category=given["category"],
    )


def read_ideas(given: Mapping[str, Any]) -> list[Idea]:
    """A checked input of revise_plan. Raises BadCall."""
    _at_most(MOST_IDEAS, given["ideas"], "ideas")
    if not given["ideas"]:
        raise BadCall("ideas: the list is empty")
    return [Idea(**{name: " ".join(text.split()) for name, text in idea.items()}) for idea in given["ideas"]]


def _override(entry: Mapping[str, Any], names: Names) -> tuple[str, Value]:
    key, value = entry["key"], entry["value"]
    if len(key) > 120 or (isinstance(value, str) and len(value) > 200):
        raise BadCall("overrides: a key has at most 120 characters, a text value 200")
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) < 1e300:
        raise BadCall(f"overrides: {key[:60]}: the value is not a finite number")
    if isinstance(value, str):
        _text_is_sound(value, f"overrides: {key[:60]}")
    try:
        return names.real(key, value)
    except ValueError as error:
        raise BadCall(f"overrides: {error}") from None


def _is(kind: str, value: Any) -> bool:
    if kind in ("number", "integer"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        fits = whole if kind == "integer" else isinstance(value, int | float)
        return fits and not isinstance(value, bool)
    kinds = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
    return isinstance(value, kinds[kind])


def _text_is_sound(text: str, where: str) -> None:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadCall(f"{where}: the text holds characters that no file can hold")


def _at_most(most: int, items: Sequence[Any], where: str) -> None:
    if len(items) > most:
        raise BadCall(f"{where}: {len(items)} entries; at most {most}")
