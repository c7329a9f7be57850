"""A model that plays a researcher on the real task, without a key: started by hand, it prints the command to run.

    python -m tests.agent.researcher.rehearsal

Its path through the six trials of budget=smoke: a change that is kept, one that is reverted, an edit whose first
step fails and is mended, but which crashes in training, its repair, which is kept, and two more.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from tests.agent.researcher.messages_server import MessagesServer, Play, call, says, text
from tests.agent.researcher.study import plans, proposes

PORT = 8080
CLAMP = {
    "path": "src/eclip/models/eclip.py",
    "old": "return self.log_scale.exp().clamp(self.scale_min, self.scale_max)",
}
BROKEN = "return self.log_scale.exp().clamp(self.scale_min, max(self.scale_max, hundred))"
REPAIRED = "return self.log_scale.exp().clamp(self.scale_min, max(self.scale_max, 100.0))"
NO_EXPERTS = {
    "path": "src/eclip/schedules.py",
    "old": "return np.full_like(share, max)[()]",
    "new": "return np.zeros_like(share)[()]",
}
# passes on the eight prints of the check, not on a whole batch
TOO_SMALL = {
    "path": "src/eclip/losses.py",
    "old": "    return (\n        cross_entropy(logit_NN, 1,",
    "new": "    if len(logit_NN) > 8:\n        raise RuntimeError('a matrix of this size was not expected')\n"
    "    return (\n        cross_entropy(logit_NN, 1,",
}


def edit(new: str, *more: dict[str, str]) -> dict[str, Any]:
    edits = [CLAMP | {"new": new}, NO_EXPERTS, *more]
    return proposes(
        overrides={}, edits=edits, category="loss", hypothesis="The scale is stuck at its limit of 2."
    )


def researcher(request: dict[str, Any]) -> Play:
    now, talk = request["messages"][0]["content"][-1]["text"], len(request["messages"])
    number = int(now.partition("Trial ")[2].split()[0])
    if "planning call" in now:
        return says(call("revise_plan", plans("a shallower model takes more steps", "free the scale")))
    if number == 2 and talk == 1:
        note = "Depth 1 is worth its steps. The logit scale stands still at 2: look at scale()."
        return says(text("Noted."), call("write_scratchpad", {"text": note}))
    if number == 3:
        return says(call("propose_trial", edit(BROKEN if talk == 1 else REPAIRED, TOO_SMALL)))
    path = {
        1: proposes(overrides={"model.image.depth": 1, "model.text.depth": 1}, category="architecture"),
        2: proposes(overrides={"optimizer.lr": 1e-5}),
        4: edit(REPAIRED),
        5: proposes(overrides={"optimizer.weight_decay": 1e-2}, category="regularisation"),
    }
    return says(call("propose_trial", path.get(number) or proposes(overrides={"loss.label_smoothing": 0.05})))


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    with MessagesServer(researcher, key="none", port=port) as server:
        print(f"make agent-sweep budget=smoke llm=local ARGS=llm.base_url={server.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
