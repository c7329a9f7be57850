"""What a run imports, seen from a fresh interpreter: Lightning without the packages that only its metrics would use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from eclip.lean_lightning import HIDDEN

SOURCE = Path(__file__).resolve().parents[2] / "src"
LOOK = """
import gc, sys
import eclip.run
from lightning_utilities.core.imports import package_available
print(sorted({"matplotlib", "scipy", "torchvision", "transformers"} & set(sys.modules)))
print(gc.isenabled(), package_available("matplotlib"))
import torchmetrics
print(torchmetrics.MeanMetric()(2.0).item())
from eclip import torchvision_fix  # a model with published weights mends it first
from transformers import DistilBertConfig
import timm, matplotlib.pyplot
"""


def test_a_run_imports_no_optional_package_and_may_do_so_later():
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=False
    )
    assert done.stdout.splitlines() == ["[]", "True True", "2.0"], done.stderr


def test_a_run_whose_libraries_were_imported_for_it_is_as_lean_and_as_free():
    """The lab's preload names the same packages as this project hides, and leaves the same way out."""
    preload = yaml.safe_load((SOURCE.parent / "configs" / "task" / "eclip.yaml").read_text())["preload"]
    assert set(preload["hidden"]) == HIDDEN
    program = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r})\nfrom agent.sandbox.preloaded import preload\n"
    command = [sys.executable, "-c", f"{program}preload({preload['modules']}, {preload['hidden']})\n{LOOK}"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=False
    )
    assert done.stdout.splitlines() == ["[]", "True True", "2.0"], done.stderr
