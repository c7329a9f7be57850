"""One round against the loopback server: from the prompt to a proposal, or to the reason why there is
none.
"""

from pathlib import Path

import pytest

from tests.agent.researcher.messages_server import MessagesServer, call, says, text
from tests.agent.researcher.study import ToyDesk, plans, proposes, researcher


def plan_first(*plays):
    return [says(call("revise_plan", plans())), *plays]


@pytest.mark.parametrize("stream", [True, False])
def test_a_round_ends_in_the_proposal_that_the_model_made(tmp_path: Path, stream: bool) -> None:
    desk = ToyDesk(tmp_path)
    with MessagesServer(
        plan_first(says(text("Let me see."), call("propose_trial", proposes(2e-4))))
    ) as server:
        proposal = researcher(desk, server, stream=stream).ask(desk.history())
    assert server.problems == []
    assert proposal.overrides == {"optimizer.lr": 2e-4}
    assert (proposal.searcher, proposal.route, proposal.phase) == ("claude", "llm", "tuning")
    assert proposal.hypothesis == "The rate is far from its best."
    assert not proposal.invalid
