"""Prints what the sandbox costs a trial: a Python that does nothing, run bare, watched (none) and sandboxed.

python scripts/bench_sandbox.py --repeats 30
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent.sandbox import Bubblewrap, Job, Limits, Sandbox, Unsandboxed

ALLOWED_MS = 150.0
GIB = 2**30
LIMITS = Limits(
    wall_seconds=60,
    memory_bytes=4 * GIB,
    file_bytes=GIB,
    disk_bytes=GIB,
    inodes=10_000,
    log_bytes=2**21,
    log_kill_bytes=2**28,
    shm_bytes=GIB,
    tmp_bytes=GIB,
)
COMMAND = [sys.executable, "-I", "-c", "pass"]


def measure(run: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each of `repeats` calls, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - began))
    return times


def in_sandbox(sandbox: Sandbox, folder: Path) -> Callable[[], object]:
    """One run of COMMAND in `sandbox`, everything that a trial pays included."""
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    job = Job(command=COMMAND, run_dir=run_dir, limits=LIMITS, log_path=folder / "log")
    return lambda: sandbox.run(job)


def bench(repeats: int) -> dict[str, list[float]]:
    """Name -> milliseconds of each run. Raises SandboxUnavailable where there is no bubblewrap."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "bare": measure(lambda: subprocess.run(COMMAND, check=True), repeats),
            "none": measure(in_sandbox(Unsandboxed(), folder), repeats),
            "bubblewrap": measure(in_sandbox(Bubblewrap(gpus="none"), folder), repeats),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    times = bench(parser.parse_args().repeats)
    bare = statistics.median(times["bare"])
    print(f"{'':12}{'median':>9}{'worst':>9}{'over bare':>11}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:12}{median:6.1f} ms{max(values):6.1f} ms{median - bare:8.1f} ms")
    overhead = statistics.median(times["bubblewrap"]) - bare
    print(f"the sandbox costs {overhead:.1f} ms a trial; allowed are {ALLOWED_MS:.0f} ms")
    if overhead > ALLOWED_MS:
        sys.exit(1)


if __name__ == "__main__":
    main()
