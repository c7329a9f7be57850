"""A small campaign from its first trial to its report: python scripts/demo.py. The same command resumes it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from agent.campaign import entries_of
from agent.composition import composed_file

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Runs the steps one after the other; further arguments are Hydra overrides of configs/demo.yaml."""
    began, overrides = time.monotonic(), sys.argv[1:]
    config = composed_file(ROOT / "configs", "demo", [*overrides, "budget_name=demo"])
    studies = [entry.name for entry in entries_of(config)]
    out = f"{config.runs}/{config.campaign}"
    demo = ["--config-name=demo", *overrides]
    step("Searchers look for better recipes, one trial of each study in turn.", "compare", demo)
    step("What they found is trained again on fresh seeds, then reads the test set once.", "confirm", demo)
    told = [f"studies=[{','.join(studies)}]", f"out={out}", f"ledger.url={config.ledger.url}"]
    step("What may be said about it.", "report", told)
    print(f"\n{(ROOT / out / 'summary.md').read_text(encoding='utf-8')}")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; open {out}/report.html")


def step(says: str, script: str, arguments: list[str]) -> None:
    """Runs one of the scripts beside this one; its failure is ours."""
    print(f"\n{says}", file=sys.stderr, flush=True)
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main()
