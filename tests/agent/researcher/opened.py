"""A study of the toy task under an LLM searcher, opened from configs/sweep.yaml as scripts/sweep.py opens it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from agent.ledger import Ledger, StudyLedger
from agent.loop import Loop
from agent.study import open_study
from tests.fake_task.fixture import HERE, toy_repository

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """```yaml
conclude_after: 0.5
plateau: 9
most_in_a_row: 3
categories: [optimisation, loss, data, other]
phases:
  - {name: all, share: 1.0, overrides: true, edits: true, max_changes: 3, web_search: false}
```
"""
TERMS = """searcher=claude searcher_name=claude budget_name=test study=toy task=toy space=toy sandbox=none
acceptance=greedy task.folds=[0] training_seeds=[0] vault=vault tracker.name=none executor.threads=1
budget.seconds=6 budget.usd=100 llm=opus llm.backoff.first_seconds=0 llm.backoff.longest_seconds=0.01""".split()


class Checkout:
    """A repository with the toy task alone, and a program of one phase."""

    def __init__(self, folder: Path) -> None:
        self.root, self.groups = folder / "repository", folder / "groups"
        self.program = folder / "program.md"

    def make(self) -> Checkout:
        toy_repository(self.root)
        for group, file in (("task", "task.yaml"), ("space", "space.yaml")):
            (self.groups / group).mkdir(parents=True)
            shutil.copy(HERE / file, self.groups / group / "toy.yaml")
        self.program.write_text(PROGRAM)
        return self

    @contextmanager
    def open(self, url: str, *overrides: str) -> Iterator[Loop]:
        GlobalHydra.instance().clear()
        said = [*TERMS, f"llm.base_url={url}", f"searcher.program={self.program}", *overrides]
        said.append(f"hydra.searchpath=[file://{self.groups}]")
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            config = compose("sweep", overrides=said)
        with ExitStack() as stack:
            loop = open_study(config, self.root, stack)
            loop.pause_seconds = 0.0
            yield loop

    @property
    def ledger(self) -> StudyLedger:
        """Read back from its file, as another process would."""
        return Ledger.open(f"sqlite:///{self.root}/runs/ledger.db").study("toy")

    def traces(self) -> list[str]:
        """What a refused study must not leave: studies in the ledger, branches, files."""
        refs = self.root / ".git" / "refs" / "heads" / "lab"
        found = [str(path) for path in (self.root / "runs", self.root / "vault", refs) if path.exists()]
        return found


if __name__ == "__main__":
    with Checkout(Path(sys.argv[1])).open(*sys.argv[2:]) as opened:
        print(opened.run())
