"""The tools' definitions: the built-in researcher's own, sound JSON Schema, and what the protocol's types accept."""

from __future__ import annotations

from typing import Any

import jsonschema
import mcp.types as types
import pytest

from agent.external import tools
from agent.external.server import RESOURCES, described
from agent.researcher import tools as built_in
from agent.researcher.tools import BadCall
from tests.agent.external.place import proposes

CATEGORIES = ("optimisation", "other")
DEFINED = {tool["name"]: tool for tool in tools.definitions(CATEGORIES)}
SHARED = {
    tool["name"]: tool
    for tool in built_in.definitions(CATEGORIES, edits=True, files=True, strict=False, web_searches=0)
}


def test_what_both_researchers_have_is_defined_once() -> None:
    assert set(SHARED) < set(DEFINED)
    for name in set(SHARED) - {"propose_trial"}:
        assert DEFINED[name] == SHARED[name]
    own, shared = (found["propose_trial"]["input_schema"] for found in (DEFINED, SHARED))
    assert own["required"] == shared["required"]
    assert own["properties"] == shared["properties"] | {"usage": tools.USAGE}


def test_the_issue_s_tools_are_there() -> None:
    wanted = (
        "start_study resume_study program status history look_up_trial read_file check_proposal propose_trial"
    )
    assert {*wanted.split(), "write_scratchpad", "revise_plan", "report", "conclude"} == set(DEFINED)
    assert tools.names() == list(DEFINED)


@pytest.mark.parametrize("name", DEFINED)
def test_a_definition_can_be_understood(name: str) -> None:
    schema = DEFINED[name]["input_schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert len(DEFINED[name]["description"]) > 25
    for part, where in walked(schema, name):
        if part.get("type") == "object":
            assert part["additionalProperties"] is False, where
            for inner, said in part["properties"].items():
                assert said.get("description") or "anyOf" in said, f"{where}.{inner}"
    as_sent = described(DEFINED[name]).model_dump(by_alias=True, mode="json", exclude_none=True)
    assert types.Tool.model_validate(as_sent, by_name=False).name == name
    assert as_sent["annotations"]["readOnlyHint"] == (name in tools.READING)


def test_the_schema_and_the_lab_agree_on_a_proposal() -> None:
    given = proposes({"optimizer.lr": 0.1}, usage={"usd": 1.5, "input_tokens": 10})
    jsonschema.validate(given, DEFINED["propose_trial"]["input_schema"])
    proposal, usage = tools.split_usage(given)
    built_in.require(SHARED["propose_trial"]["input_schema"], proposal, "propose_trial")
    assert usage == {"usd": 1.5, "input_tokens": 10}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given | {"shell": "ls"}, DEFINED["propose_trial"]["input_schema"])


@pytest.mark.parametrize(
    "usage", [{"usd": float("nan")}, {"usd": float("inf")}, {"usd": True}, {"input_tokens": 0.5}, []]
)
def test_a_claim_must_be_a_number(usage: Any) -> None:
    with pytest.raises(BadCall, match="usage"):
        tools.split_usage(proposes(usage=usage))


def test_resources_are_named_as_the_protocol_wants() -> None:
    for uri, (name, what, kind) in RESOURCES.items():
        assert types.Resource(uri=uri, name=name, description=what, mime_type=kind).uri == uri


def walked(schema: Any, where: str) -> list[tuple[dict[str, Any], str]]:
    """Every schema inside, itself included."""
    found = [(schema, where)]
    for name, part in schema.get("properties", {}).items():
        found += walked(part, f"{where}.{name}")
    if "items" in schema:
        found += walked(schema["items"], f"{where}[]")
    return found
