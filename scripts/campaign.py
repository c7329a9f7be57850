"""A campaign from its first trial to its report: `python scripts/campaign.py demo`, or `compare` with overrides.

The same command resumes it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from omegaconf import DictConfig

from agent.campaign import entries_of
from agent.composition import composed_file

ROOT = Path(__file__).resolve().parent.parent
# the budget of each config where no override names one
BUDGETS = {"compare": "cpu", "demo": "demo"}


def main() -> None:
    """Runs the steps one after the other; the first word names the config, the others are Hydra overrides."""
    began = time.monotonic()
    name, *overrides = sys.argv[1:] or ["compare"]
    if name not in BUDGETS:
        sys.exit(f"{name}: expected one of {', '.join(BUDGETS)}, then Hydra overrides")
    chosen = [word.partition("=")[2] for word in overrides if word.startswith("budget=")]
    config = composed_file(
        ROOT / "configs", name, [*overrides, f"budget_name={[BUDGETS[name], *chosen][-1]}"]
    )
    out = f"{config.runs}/{config.campaign}"
    words = [f"--config-name={name}", *overrides]
    step("Searchers look for better recipes, one trial of each study in turn.", "compare", words)
    step("What they found is trained again on fresh seeds, then reads the test set once.", "confirm", words)
    step("What may be said about it.", "report", told(config, out))
    print(f"\n{(ROOT / out / 'summary.md').read_text(encoding='utf-8')}")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; open {out}/report.html")


def told(config: DictConfig, out: str) -> list[str]:
    """What the report must know of the campaign: above all that it is not to be uploaded, where that was said."""
    studies = ",".join(entry.name for entry in entries_of(config))
    tracker = [f"tracker.{key}={config.tracker[key]}" for key in ("name", "project")]
    return [f"studies=[{studies}]", f"out={out}", f"ledger.url={config.ledger.url}", *tracker]


def step(says: str, script: str, arguments: list[str]) -> None:
    """Runs one of the scripts beside this one; its failure is ours."""
    print(f"\n{says}", file=sys.stderr, flush=True)
    # Ctrl-C reaches the script, too, which notes and charges what was under way; we would kill it meanwhile
    signal.signal(signal.SIGINT, lambda *_: None)
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main()
