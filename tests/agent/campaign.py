"""A campaign of the toy task, as tests and the kill test's subprocess start it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from agent.campaign import Campaign, Entry
from agent.campaign_view import CampaignView
from agent.ledger import Ledger, StudyLedger
from agent.retraining import Retraining
from agent.sandbox import Limits, Unsandboxed
from tests.agent.study import LIMITS, toy, toy_loop

NAMES = ("a", "b", "c")


def ledger_of(folder: Path, name: str) -> StudyLedger:
    return Ledger.open(f"sqlite:///{folder}/ledger.db").study(name)


def toy_campaign(
    folder: Path,
    trials: int = 2,
    names: Sequence[str] = NAMES,
    console: Console | None = None,
    **options: Any,
) -> Campaign:
    """Random searchers, which differ in name only, each in a study of its own."""
    entries = [Entry(name, "random", seed) for seed, name in enumerate(names)]
    loop_options = options.pop("loop", {})

    def opened(entry: Entry, stack: ExitStack, observer: Any) -> Any:
        more = loop_options.get(entry.name, {})
        return stack.enter_context(
            toy_loop(folder, name=entry.name, **{"trials": trials, "observers": [observer], **more})
        )

    view = CampaignView(console or Console(quiet=True), entries)
    return Campaign(entries, opened, view, **options)


def toy_room(folder: Path) -> Retraining:
    """Where the toy's recipes are trained again."""
    return Retraining(
        task=toy(folder / "repository"),
        sandbox=Unsandboxed(),
        limits=lambda wall: Limits(wall_seconds=wall, **LIMITS),
        environment={"OMP_NUM_THREADS": "1"},
        runs=folder / "runs",
        vault=folder / "vault",
    )


if __name__ == "__main__":
    one_fold = {name: {"folds": (0,)} for name in NAMES}
    print(toy_campaign(Path(sys.argv[1]), trials=int(sys.argv[2]), loop=one_fold).run())
