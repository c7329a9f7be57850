"""Who may import whom, and what every module owes its reader; the rules that keep the two halves apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = {"agent": ROOT / "agent", "eclip": ROOT / "src" / "eclip", "scripts": ROOT / "scripts"}
HEAVY = ("torch", "eclip", "lightning", "torchvision", "torchmetrics", "timm", "transformers")


def modules(*trees: str) -> list[Path]:
    return sorted(path for tree in trees for path in TREES[tree].rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, or names in a call of import_module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def called(node: ast.Call) -> str:
    """The last name of what is called: `import_module` and `importlib.import_module` alike."""
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def offenders(trees: tuple[str, ...], forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(*trees)
        for name in imported(path)
        if name.split(".")[0] in forbidden
    ]


@pytest.mark.parametrize("tree", TREES)
def test_there_is_something_to_look_at(tree):
    assert len(modules(tree)) > 3


def test_the_lab_knows_neither_torch_nor_eclip():
    assert offenders(("agent",), HEAVY) == []


def test_the_task_does_not_know_the_lab():
    assert offenders(("eclip",), ("agent", "optuna", "anthropic")) == []


def test_nothing_imports_scripts_train_or_tests():
    assert offenders(("agent", "eclip", "scripts"), ("scripts", "train")) == []
    # it times the lab on the tests' toy
    found = offenders(("agent", "eclip", "scripts"), ("tests",))
    assert {line.split()[0] for line in found} == {"scripts/bench_scale.py"}
    assert not {"scripts", "agent", "tests"} & {name.split(".")[0] for name in imported(ROOT / "train.py")}


def test_importing_all_of_the_lab_loads_neither_torch_nor_eclip():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("agent")]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    program = "import importlib, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in names)
    program += f"print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_nothing_is_called_utils():
    names = {
        part.lower() for path in modules(*TREES) for part in path.relative_to(ROOT).with_suffix("").parts
    }
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


@pytest.mark.parametrize(
    "path", [*modules(*TREES), ROOT / "train.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_module_says_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        assert path.name == "__init__.py"
        return
    first = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].strip()
    assert first.endswith((".", ":")), f"the first sentence: {first!r}"
    assert len(first.split()) >= 5


def test_train_fits_on_a_screen():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 40
