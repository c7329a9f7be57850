"""One request's folder enters as the argument; the process detaches, does what it asks and leaves answer.json."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Forks before anything heavy is imported; the parent ends at once, so that the child has none."""
    if os.fork():
        os._exit(0)
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # of the lab itself; the runs get theirs from executor.threads
    os.environ.setdefault("WANDB_SILENT", "true")
    from agent.external.sitting import sit
    from agent.ledger import Owner

    part = folder / ".worker"
    part.write_text(str(Owner.here()), "utf-8")
    part.replace(folder / "worker")
    sit(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
