"""The arms of the comparison: what each may propose, and what the blind one must not learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from agent.records import Outcome, Proposal, Trial, Verdict
from agent.researcher.failures import LLMRefused
from agent.researcher.names import NeutralNames, outside, space_table
from agent.searchers.claude import claude
from tests.agent.researcher.messages_server import KEY, MessagesServer, call, says
from tests.agent.researcher.study import ROOT, SPACE, ToyDesk, llm, plans, proposes, researcher

NAMES = NeutralNames(SPACE)
# what would tell the blind arm what it works on
TELLTALE = [
    "lr",
    "optimizer",
    "batch",
    "logit",
    "loss",
    "siglip",
    "clip",
    "smoothing",
    "compile",
    "trainer",
    "eclip",
]
TELLTALE += [
    "mean_rank",
    "heatmap",
    "expert",
    "model.",
    "toy",
    "train",
    "seed",
    "fold",
    "accuracy",
    "epoch",
]


def blind(overrides: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A proposal as the blind model writes it: neutral names, no edits."""
    shown = {NAMES.key(key): NAMES.value(key, value) for key, value in overrides.items()}
    given = proposes(overrides=shown, category="explore", **fields)
    return {key: value for key, value in given.items() if key != "edits"}


def config(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in proposes(overrides=overrides).items() if key != "edits"}


def ask(desk: ToyDesk, arm: str, *inputs: dict[str, Any]) -> tuple[Proposal, MessagesServer]:
    (desk.folder / "plan.md").write_text("---\ntrial: 0\nphase: tuning\nreason: start\n---\n1. try\n")
    with MessagesServer([says(call("propose_trial", given)) for given in inputs]) as server:
        proposal = researcher(desk, server, arm).ask(desk.history())
    assert server.problems == []
    return proposal, server


def test_the_whole_config_is_open_to_claude_and_the_space_alone_to_claude_config(tmp_path: Path) -> None:
    beyond = {"optimizer.beta1": 0.8}
    proposal, _ = ask(ToyDesk(tmp_path), "claude", proposes(overrides=beyond))
    assert proposal.overrides == beyond
    outside_range = {"trainer.batch_size": 10_000}
    inside = {"loss.name": "siglip", "trainer.batch_size": 64, "optimizer.lr": 1e-2}
    proposal, server = ask(
        ToyDesk(tmp_path), "claude_config", config(beyond), config(outside_range), config(inside)
    )
    assert proposal.overrides == inside  # three at once, though the program's first phase allows two
    assert proposal.phase == ""
    assert "only the parameters of the space" in str(server.requests[1]["messages"][-1])
    assert "not in whole number in [8, 256]" in str(server.requests[2]["messages"][-1])


def test_the_space_is_checked_type_by_type() -> None:
    good = {"optimizer.lr": 0.1, "trainer.batch_size": 64.0, "loss.name": "clip", "trainer.compile": True}
    assert outside(SPACE, good) is None
    for bad in (
        {"optimizer.lr": "0.1"},
        {"optimizer.lr": True},
        {"trainer.batch_size": 64.5},
        {"trainer.compile": 1},
        {"loss.name": None},
        {"optimizer.lr": 0.2},
        {"p01": 1},
    ):
        assert outside(SPACE, bad) is not None


def test_config_arms_offer_no_edits_and_the_blind_one_no_files(tmp_path: Path) -> None:
    _, config_server = ask(ToyDesk(tmp_path), "claude_config", config({"optimizer.lr": 1e-2}))
    _, blind_server = ask(ToyDesk(tmp_path), "claude_blind", blind({"optimizer.lr": 1e-2}))
    for server, files in ((config_server, True), (blind_server, False)):
        tools = {tool["name"]: tool for tool in server.requests[0]["tools"]}
        assert "edits" not in tools["propose_trial"]["input_schema"]["properties"]
        assert ("read_file" in tools) is files


def test_neutral_names_are_the_same_every_time_and_can_be_turned_back() -> None:
    again = NeutralNames(SPACE)
    shown = [NAMES.key(key) for key in sorted(SPACE.distributions)]
    assert shown == [again.key(key) for key in sorted(SPACE.distributions)]
    assert sorted(shown) == [f"p{n:02d}" for n in range(1, len(SPACE.distributions) + 1)]
    assert shown != sorted(shown)  # the alphabet tells nothing
    for key, value in (("loss.name", "siglip"), ("trainer.compile", True), ("optimizer.lr", 0.01)):
        back = NAMES.real(NAMES.key(key), NAMES.value(key, value))
        assert back == (key, value)
        assert type(back[1]) is type(value)
    for key in ("p99", "optimizer.lr"):
        with pytest.raises(ValueError, match="no parameter; there are p01 to p06"):
            NAMES.real(key, 1)
    with pytest.raises(ValueError, match=r"p\d\d: the choices are c1, c2"):
        NAMES.real(NAMES.key("loss.name"), "clip")
    assert "clip" not in space_table(SPACE, NAMES)


def leaky_study(folder: Path) -> ToyDesk:
    """A study in which everything that could leak does occur: failures, edits, foreign keys, logs, categories."""
    desk = ToyDesk(folder)
    outcome = Outcome("crashed", reason="optimizer.lr=9 diverged", log_tail="File train.py, siglip loss")
    proposal = Proposal(
        {"loss.name": "siglip", "optimizer.beta1": 0.5}, hypothesis="p01 up", category="explore"
    )
    verdict = Verdict("reverted", reason="expert loss")
    desk.trials.append(Trial(1, proposal, dict(proposal.overrides), outcome, verdict))
    kept = Proposal({"model.logit_scale.max": 50.0}, hypothesis="p02 up", category="refine")
    desk.run(kept)
    (folder / "inbox.md").write_text("try a larger batch")
    return desk


def test_nothing_that_the_blind_arm_is_sent_leaks_a_name(tmp_path: Path) -> None:
    desk = leaky_study(tmp_path)
    (tmp_path / "plan.md").unlink(missing_ok=True)
    refused = blind({"optimizer.lr": 1e-2}) | {"overrides": [{"key": "optimizer.lr", "value": 1}]}
    again = blind({"model.logit_scale.max": 50.0})  # a duplicate: the desk's reason would name it
    plays = [
        says(call("revise_plan", plans("p01 higher", category="explore"))),
        says(call("look_up_trial", {"number": 1})),
        says(call("propose_trial", refused)),
        says(call("propose_trial", again)),
        says(call("propose_trial", blind({"optimizer.lr": 1e-2, "loss.name": "siglip"}))),
    ]
    with MessagesServer(plays) as server:
        proposal = researcher(desk, server, "claude_blind").ask(desk.history())
    assert proposal.overrides == {"optimizer.lr": 1e-2, "loss.name": "siglip"}
    assert server.problems == []
    for request in server.requests:
        sent = [request["tools"], request["system"]]
        sent += [message["content"] for message in request["messages"] if message["role"] == "user"]
        words = json.dumps(sent).lower()
        # what the model itself wrote comes back to it
        words = words.replace("'optimizer.lr' is no parameter", "")
        # words of the interface, the same for any black box
        for harmless in ("curves", "measurements", "end of the log", "explore", "explored"):
            words = words.replace(harmless, "")
        found = [word for word in TELLTALE if word in words]
        assert found == [], words[words.index(found[0]) - 200 :][:400]
    assert "this point cannot be run" in str(server.requests)


def test_the_blind_arm_is_told_of_failures_by_their_kind(tmp_path: Path) -> None:
    desk = leaky_study(tmp_path)
    _, server = ask(desk, "claude_blind", blind({"optimizer.lr": 1e-2}))
    table = server.requests[0]["messages"][0]["content"][2]["text"]
    line = next(row for row in table.splitlines() if row.startswith("1 |"))
    assert line.endswith("| reverted | crashed")
    assert 'p00="hidden"' in line
    assert f"{NAMES.key('loss.name')}=" in line


@pytest.mark.parametrize("name", ["claude", "claude_config", "claude_blind", "centaur"])
def test_every_searcher_config_makes_its_searcher(tmp_path: Path, name: str) -> None:
    desk = ToyDesk(tmp_path)
    with initialize_config_dir(str(ROOT / "configs/searcher"), version_base="1.3"):
        make = instantiate(compose(name), _convert_="all")
    with MessagesServer([]) as server:
        made = make(
            space=SPACE,
            seed=1,
            direction="minimize",
            desk=desk,
            llm=llm(server),
            environment={"ANTHROPIC_API_KEY": KEY},
        )
    assert made.name == name
    assert ("program", {"what": made.program.current().digest}) in desk.events


def test_no_key_ends_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    with pytest.raises(LLMRefused, match="searcher=playbook"):
        claude(
            space=SPACE,
            seed=0,
            desk=ToyDesk(tmp_path),
            arm="claude",
            program="agent/program.md",
            llm=llm(None),
        )
