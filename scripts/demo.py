"""A small campaign from its first trial to its report: python scripts/demo.py. The same command resumes it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS = {
    "compare": "Three searchers look for a better recipe, two studies each, one trial in turn.",
    "confirm": "What they found is trained again on fresh seeds, and reads the test set once.",
    "report": "What may be said about it.",
}


def main() -> None:
    """Runs the steps one after the other; further arguments are Hydra overrides for all of them."""
    began = time.monotonic()
    for number, (script, says) in enumerate(STEPS.items(), start=1):
        print(f"\n{number} of {len(STEPS)}  {says}", flush=True)
        command = [sys.executable, str(HERE / f"{script}.py"), "--config-name=demo", *sys.argv[1:]]
        if status := subprocess.run(command, cwd=HERE.parent, check=False).returncode:
            sys.exit(status)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
