"""The researcher in the real loop, on the toy task: ledger, workspace, runs and judge are the lab's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.git import Git, common_dir
from agent.records import Trial
from agent.searchers.claude import claude
from agent.workdesk import WorkDesk
from tests.agent.researcher.messages_server import KEY, MessagesServer, Play, call, fails, says
from tests.agent.researcher.study import Clock, llm, plans, proposes
from tests.agent.study import accounts, toy_loop

PROGRAM = """```yaml
conclude_after: 0.5
plateau: 9
most_in_a_row: 3
categories: [optimisation, code]
phases:
  - {name: settings, share: 0.5, overrides: true, edits: false, max_changes: 2, web_search: false}
  - {name: code, share: 0.5, overrides: false, edits: true, max_changes: 2, web_search: false}
```
"""
BETTER = {"optimizer.lr": 0.3, "optimizer.steps": 150}
# the inputs themselves as further features; at first the model forgets that the weights must grow with them
FEATURES = {
    "path": "src/toy/model.py",
    "old": "return self.activation(image @ self.projection)",
    "new": "return np.concatenate([self.activation(image @ self.projection), image], axis=1)",
}
WEIGHTS = {
    "path": "src/toy/model.py",
    "old": "size=(width, outputs)",
    "new": "size=(width + inputs, outputs)",
}


class Model:
    """A scripted model: better settings, a crash, a duplicate that is refused in time, an edit mended, the end."""

    def __init__(self) -> None:
        self.down = 1

    def __call__(self, request: dict[str, Any]) -> Play:
        now, talk = request["messages"][0]["content"][-1]["text"], len(request["messages"])
        number = int(now.partition("Trial ")[2].split()[0])
        if "planning call" in now:
            return says(call("revise_plan", plans(f"plan of trial {number}")))
        if number == 2 and self.down:
            self.down -= 1
            return fails(529, "overloaded_error")
        if number == 2:
            crash = proposes(overrides={"fault.kind": "crash"} if talk > 1 else {"optimizer.lr": 0.3})
            return says(call("propose_trial", crash))
        if number == 3:
            edits = [FEATURES, WEIGHTS] if talk > 1 else [FEATURES]
            return says(call("propose_trial", proposes(overrides={}, edits=edits, category="code")))
        if number == 4:
            return says(call("conclude", {"reason": "the toy is solved"}))
        return says(call("propose_trial", proposes(overrides=BETTER)))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("researcher")
    (folder / "program.md").write_text(PROGRAM)
    clock = Clock()
    with toy_loop(folder, [], trials=4, seconds=6.0) as loop, MessagesServer(Model()) as server:
        desk = WorkDesk(loop.ledger, loop.workspace, loop.space, loop.experiment.runner, loop.folder)
        loop.desk = desk
        loop.searcher = claude(
            space=loop.space,
            seed=0,
            desk=desk,
            arm="claude",
            program=str(folder / "program.md"),
            llm=llm(server, backoff={"attempts": 2}),
            environment={"ANTHROPIC_API_KEY": KEY},
            clock=clock,
            sleep=clock.sleep,
        )
        reason = loop.run()
        accounts(loop.ledger)
        log = Git(common_dir(folder / "repository"))("log", "--format=%s", f"lab/{loop.ledger.name}")
        yield loop, server, reason, loop.ledger.trials(), log


def outcomes(trials: list[Trial]) -> list[tuple[str, str]]:
    return [(t.outcome.status, t.verdict.decision) for t in trials if t.outcome and t.verdict]


def test_the_study_keeps_crashes_mends_and_concludes(study: Any) -> None:
    loop, server, reason, trials, log = study
    assert server.problems == []
    ends = [("completed", "reference"), ("completed", "kept"), ("crashed", "reverted"), ("completed", "kept")]
    assert outcomes(trials) == ends
    assert [trial.proposal.phase for trial in trials[1:]] == ["settings", "settings", "code"]
    # one commit for each keep, on the study's branch: settings, then code
    assert [line.partition(":")[0] for line in log.splitlines()[:2]] == ["trial 3", "trial 1"]
    assert reason == "claude has nothing more to propose"
    concluded = [event for event in loop.ledger.events() if event["event"] == "concluded"]
    assert [event["reason"] for event in concluded] == ["the toy is solved"]


def test_the_duplicate_and_the_broken_code_came_back_before_any_run(study: Any) -> None:
    _, server, _, trials, _ = study
    answers = [json.dumps(r["messages"][-1]) for r in server.requests if len(r["messages"]) > 1]
    assert any("the same configuration and code as trial 1" in answer for answer in answers)
    assert any("ValueError" in answer and "<data" in answer for answer in answers)
    assert all(trial.charges.runs <= 3 for trial in trials[1:])


def test_the_crash_is_shown_in_the_next_round_with_its_traceback(study: Any) -> None:
    _, server, _, _, _ = study
    rounds = [r["messages"][0]["content"][-1]["text"] for r in server.requests]
    next_one = next(text for text in rounds if "Trial 3 is next" in text)
    assert "The last trial (2) failed: crashed" in next_one
    assert "the toy was told to crash" in next_one


def test_dollars_prompts_and_plans_are_on_record(study: Any) -> None:
    loop, _, _, trials, _ = study
    calls = [event for event in loop.ledger.events() if event["event"] == "llm call"]
    assert sum(call["usd"] for call in calls) == pytest.approx(loop.ledger.spent().usd)
    assert all(trial.charges.usd > 0 for trial in trials[1:])
    for number in (1, 2, 3):
        assert (loop.folder / f"{number:04d}" / "round.jsonl").exists()
    assert Path(loop.folder / "plan.md").read_text().startswith("---\ntrial: 3\nphase: code\n")
