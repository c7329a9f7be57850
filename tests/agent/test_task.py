"""The task file: every mistake is named; locks and globs hold; the toy obeys the run contract."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from agent.composition import composed
from agent.task import Task, TaskError
from tests.fake_task.fixture import HERE, toy_task

ROOT = Path(__file__).resolve().parents[2]
VALUES = yaml.safe_load((HERE / "task.yaml").read_text())


def changed(path, value):
    values = copy.deepcopy(VALUES)
    *sections, name = path.split(".")
    node = values
    for section in sections:
        node = node[section]
    if value is ...:
        del node[name]
    else:
        node[name] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("metric", ..., "metric is missing; expected text"),
        ("metrik", "x", "unknown key 'metrik'"),
        ("direction", "up", "direction='up'; expected one of minimize, maximize"),
        ("scale", "sqrt", "scale='sqrt'; expected one of log, linear"),
        ("folds", [], "folds=.*distinct whole numbers"),
        ("folds", [0, 0], "distinct whole numbers"),
        ("folds", [True], "distinct whole numbers"),
        ("early_folds", 4, "there are 3 folds"),
        ("command", [], "command=.*at least 1"),
        ("base", ["experiment=baseline"], "base=.*a mapping of config keys"),
        ("base", {"experiment": ["a"]}, "base=.*a mapping of config keys"),
        ("arguments", ["seed={sede}"], "can be filled in: 'sede'"),
        ("judge", "tests.fake_task.host.judge", "judge=.*text like"),
        ("masked", ["../secret"], "masked=.*inside the workspace"),
        ("masked", ["/etc"], "masked=.*inside the workspace"),
        ("editable.files", ["/src/*.py"], "files=.*inside the workspace"),
        ("editable.most_edits", 0, "most_edits=0; expected a whole number of at least 1"),
        ("editable", [], "editable=.*a section"),
        ("recipe.file", "src/toy/model.py", "must not be editable"),
        ("recipe.select", "recipe", "select='recipe'; expected text like"),
        ("groups", {"model": []}, "groups: model="),
        ("compiled.when", "compile", "compiled: when='compile'; expected text like"),
        ("compiled.variable", "X", "compiled: unknown key 'variable'"),
        ("package.path", "..", "path='..'; expected a path inside the workspace"),
    ],
)
def test_a_mistake_in_the_task_file_is_named(path, value, message):
    with pytest.raises(TaskError, match=message):
        Task.from_mapping(changed(path, value), HERE)


def test_unreadable_files_are_task_errors(tmp_path):
    with pytest.raises(TaskError, match="cannot be read as YAML"):
        Task.load(tmp_path / "absent.yaml", tmp_path)
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(TaskError, match="cannot be read as YAML"):
        Task.load(tmp_path / "broken.yaml", tmp_path)


@pytest.mark.parametrize(
    ("key", "locked"),
    [
        ("data.pairs", True),
        ("seed", True),  # by the runner's own arguments
        ("budget.seconds", True),
        ("run.dir", True),
        ("model._target_", True),
        ("hydra.run.dir", True),
        ("optimizer.lr", False),
        ("seeds", False),
        ("database", False),
    ],
)
def test_locks(key, locked):
    assert bool(toy_task().lock_on(key)) is locked


@pytest.mark.parametrize(
    ("path", "editable"),
    [
        ("src/toy/model.py", True),
        ("src/toy/data.py", False),
        ("src/toy/deeper/model.py", False),
        ("src/toy/model.pyc", False),
        ("xsrc/toy/model.py", False),
        ("train.py", False),
    ],
)
def test_editable_globs(path, editable):
    assert toy_task().editable.holds(path) is editable


def test_double_star_crosses_folders():
    task = Task.from_mapping(changed("editable.files", ["src/**/*.py"]), HERE)
    assert task.editable.holds("src/a.py")
    assert task.editable.holds("src/a/b/c.py")
    assert not task.editable.holds("srcs/a.py")


def test_a_missing_host_function_is_named():
    task = Task.from_mapping(changed("judge", "tests.fake_task.host:jury"), HERE)
    with pytest.raises(TaskError, match=r"judge=tests.fake_task.host:jury.*no attribute 'jury'"):
        task.function("judge")


def run_toy(folder, *overrides):
    command = [sys.executable, "train.py", "experiment=baseline", f"run.dir={folder}", *overrides]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)


def test_sealed_run_and_judge(tmp_path):
    """A run on sealed folds is judged on the host; what a run could do instead of learning gains nothing."""
    task = toy_task()
    config = composed(task)
    scores = []
    for fold, folder, key in task.function("seal")(config, task.folds[:2], tmp_path / "sealed"):
        out = tmp_path / f"run{fold}"
        arguments = task.run_arguments(run_dir=out, seed=1, fold=fold, seconds=5.0, sealed=folder)
        done = run_toy(out, *arguments)
        assert done.returncode == 0, done.stderr
        result = json.loads((out / "result.json").read_text())
        assert result["status"] == "completed"
        assert Path(result["package"]) == HERE / "src" / "toy"
        embeddings = load_file(out / "embeddings.safetensors")
        judge = task.function("judge")
        scores.append(judge(embeddings, key)["mean_rank"])
        assert judge({name: np.ones_like(a) for name, a in embeddings.items()}, key)["mean_rank"] == 199
        with pytest.raises(ValueError, match="not finite"):
            judge({name: a * np.nan for name, a in embeddings.items()}, key)
        with pytest.raises(ValueError, match="shape"):
            judge({name: a[1:] for name, a in embeddings.items()}, key)
        shuffled = {name: np.random.default_rng(0).permutation(a) for name, a in embeddings.items()}
        assert judge(shuffled, key)["mean_rank"] > 80
    assert all(score < 50 for score in scores)


@pytest.mark.parametrize(
    ("override", "status"),
    [
        ("fault.kind=crash", "crashed"),
        ("optimizer.lr=1000", "diverged"),
        ("fault.kind=out_of_memory", "out_of_memory"),
    ],
)
def test_the_toy_fails_on_demand(tmp_path, override, status):
    done = run_toy(tmp_path, "data.folds=[0]", override)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["status"] == status


def test_eclip_task_file():
    task = Task.load(ROOT / "configs" / "task" / "eclip.yaml", ROOT)
    config = composed(task)
    task.function("check")(config)
    assert config.model.logit_scale.max == 2
    assert task.lock_on("model.image._target_")
    assert task.lock_on("data.folds")
    assert not task.lock_on("model.logit_scale.max")
    for path in ("src/eclip/models/eclip.py", "src/eclip/losses.py", "src/eclip/lightning_module.py"):
        assert task.editable.holds(path)
    for path in ("src/eclip/metrics.py", "src/eclip/judge.py", "src/eclip/config.py", "train.py"):
        assert not task.editable.holds(path)
    assert not task.editable.holds("src/eclip/data/sealed.py")
    assert [path.name for glob in task.masked for path in ROOT.glob(glob)] == ["synthetic"]
    assert all(callable(task.function(role)) for role in ("check", "seal", "judge"))
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")]
    for pattern in task.editable.files:
        single = replace(task.editable, files=(pattern,))
        assert any(single.holds(path) for path in files), pattern
