"""The commands as people type them wrongly: one line, a status, no stack, and nothing begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def started(script: str, *words: str, **more: str) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": os.environ["PATH"], **more}
    command = [sys.executable, str(ROOT / "scripts" / script), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd="/", env=environment, text=True, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("sweep.py sercher=tpe", 2, "sercher: unknown key; did you mean searcher"),
        ("sweep.py searcher=queue", 2, "searcher.path: has no value yet; give it one, searcher.path=…"),
        ("sweep.py executor.workers=0", 2, "executor.workers=0: expected a whole number of at least 1"),
        ("sweep.py executor.threads=0", 2, "executor.threads=0: expected a whole number of at least 1"),
        ("sweep.py budget.trials=0", 1, "AskedError: budget.trials=0: expected a whole number of at least 1"),
        ("sweep.py searcher=queue searcher.path=none", 1, "ValueError: searcher.path=none: no such file"),
        (
            "sweep.py runs=/proc/none",
            1,
            "FileNotFoundError: [Errno 2] No such file or directory: '/proc/none'",
        ),
        ("compare.py searchers=tpe", 1, "CampaignError: searchers=tpe: expected a list, searchers=[tpe]"),
    ],
)
def test_one_line_and_no_stack(tmp_path: Path, words: str, status: int, said: str) -> None:
    script, *rest = words.split()
    where = [] if "runs=" in words else [f"runs={tmp_path / 'runs'}"]
    run = started(script, f"ledger.url=sqlite:///{tmp_path / 'ledger.db'}", *where, *rest)
    _, errors = run.communicate(timeout=100)
    assert run.returncode == status, errors
    assert errors.startswith(said)
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "ledger.db").exists()


def test_a_stack_for_those_who_ask_for_it(tmp_path: Path) -> None:
    url = f"ledger.url=sqlite:///{tmp_path / 'ledger.db'}"
    run = started("sweep.py", "budget.trials=0", url, f"runs={tmp_path}", HYDRA_FULL_ERROR="1")
    _, errors = run.communicate(timeout=100)
    assert run.returncode == 1
    assert "Traceback" in errors
    assert "AskedError" in errors.splitlines()[-1]


WAITS = """
import time
from agent.command import launch

def main(config):
    print("waits", flush=True)
    time.sleep(100)

launch(main, "report")
"""


def test_control_c_is_one_line(tmp_path: Path) -> None:
    program = tmp_path / "waits.py"
    program.write_text(WAITS, encoding="utf-8")
    run = started(str(program), f"out={tmp_path}")
    assert run.stdout is not None
    assert run.stdout.readline() == "waits\n"
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=100)
    assert run.returncode == 130
    assert errors.strip().startswith("interrupted;")
    assert "Traceback" not in errors
