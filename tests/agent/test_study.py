"""configs/sweep.yaml composed as a person would, opened up to the point before running: what is refused, and when."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from agent.acceptance import from_config
from agent.asked import AskedError
from agent.checkout import CheckoutChanged, version
from agent.git import Git
from agent.ledger import Ledger, LedgerError
from agent.loop import Loop
from agent.records import Budget
from agent.sandbox import Bubblewrap, SandboxUnavailable
from agent.space import Space, SpaceError
from agent.study import open_study, require_hidden, require_one_copy, run_environment
from agent.task import Task, TaskError
from agent.workspace import WorkspaceError
from tests.fake_task import host
from tests.fake_task.fixture import HERE, toy_repository

ROOT = Path(__file__).resolve().parents[2]
# Hydra's own program knows the choices; here they are said
PLAIN = "searcher_name=random budget_name=smoke study=blue vault=vault tracker.name=none"


def sweep(*overrides: str, groups: Path | None = None) -> Any:
    """The sweep's config; `groups` is a folder with further choices."""
    GlobalHydra.instance().clear()
    more = [f"hydra.searchpath=[file://{groups}]"] if groups else []
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("sweep", overrides=[*PLAIN.split(), *more, *overrides])


class Checkout:
    """A repository of the toy task; studies of it are opened with the real sweep config."""

    def __init__(self, folder: Path) -> None:
        self.root, self.groups = toy_repository(folder / "repository"), folder / "groups"
        for group, file in (("task", "task.yaml"), ("space", "space.yaml")):
            (self.groups / group).mkdir(parents=True)
            shutil.copy(HERE / file, self.groups / group / "toy.yaml")
        # keys with dots cannot be overridden on a command line
        (self.groups / "space" / "unknown.yaml").write_text(
            "optimizer.colour: {type: float, low: 0, high: 1}"
        )
        (self.groups / "space" / "inverted.yaml").write_text("optimizer.lr: {type: float, low: 2, high: 1}")

    def open(self, *overrides: str) -> Loop:
        """Opened, and given up again so that the next one can be opened."""
        own = "task=toy space=toy searcher=random sandbox=none budget=smoke budget.trials=2".split()
        with ExitStack() as stack:
            return open_study(sweep(*own, *overrides, groups=self.groups), self.root, stack)

    def studies(self) -> list[str]:
        return Ledger.open(f"sqlite:///{self.root}/runs/ledger.db").studies()

    def git(self, *arguments: str) -> str:
        return Git(self.root / ".git", self.root, self.root / ".git")(*arguments)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one opened study, `blue`."""
    folder = tmp_path_factory.mktemp("template")
    Checkout(folder).open()
    return folder


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def opened(template: Path) -> Checkout:
    checkout = object.__new__(Checkout)
    checkout.root, checkout.groups = template / "repository", template / "groups"
    return checkout


def test_a_study_is_ready_to_run(opened):
    loop = opened.open()
    assert loop.ledger.name == "blue"
    assert loop.workspace.branch == "lab/blue"
    assert loop.folder == opened.root / "runs" / "blue"
    assert set(loop.experiment.runner.sealed) == {0, 1, 2}
    assert loop.ledger.trials() == []
    assert opened.studies() == ["blue"]
    assert opened.git("status", "--short") == "?? vault/"


def test_its_spec_says_what_makes_it_comparable(opened):
    spec = opened.open().ledger.spec
    assert (spec.searcher, spec.searcher_seed, spec.task, spec.acceptance) == ("random", 0, "toy", "paired")
    assert spec.budget == Budget(2, 20, wall_factor=2.0, setup_seconds=60)
    assert spec.training_seeds == (0, 1, 2, 3, 4)
    assert "optuna" in spec.versions
    assert spec.versions["checkout"] == version(opened.root) == opened.git("rev-parse", "HEAD")
    assert spec.versions["workers"] == "1"
    assert spec.details["base"] == ["experiment=baseline"]


def test_a_study_without_a_sandbox_is_marked(opened):
    assert opened.open().ledger.spec.sandbox == "none"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("budget.trials=3", "budget"),
        ("budget=cpu", "budget"),
        ("seed=1", "searcher_seed"),
        ("searcher_name=tpe", "searcher"),
        ("training_seeds=[4,3,2,1,0]", "training_seeds"),
        ("acceptance=greedy", "acceptance"),
        ("sandbox=bubblewrap", "sandbox"),
        ("task.base.experiment=none", "details"),
    ],
)
def test_resuming_under_other_terms_is_refused(opened, override, field):
    with pytest.raises(LedgerError, match=rf"blue.*{field}"):
        opened.open(override)
    opened.open()  # the study is as it was, and nobody holds it


@pytest.mark.parametrize("folder", ["/usr/src/app", sys.prefix], ids=["system", "interpreter"])
def test_what_no_run_may_see_must_not_lie_where_every_run_looks(tmp_path, folder):
    """/usr/src is where images of containers put a program: the sandbox shows it, and with it the answers."""
    sandbox, secret = Bubblewrap(gpus="none"), Path(folder, "secret")
    for vault, runs in ((secret, tmp_path), (tmp_path, secret)):
        with pytest.raises(SandboxUnavailable, match=f"every run would see {secret}"):
            require_hidden(sandbox, vault, runs)
    require_hidden(sandbox, tmp_path, tmp_path)


def test_a_study_whose_answers_runs_could_see_is_not_begun(fresh, tmp_path):
    shown = ("sandbox=bubblewrap", "sandbox.backend.gpus=none", f"sandbox.backend.libraries=[{tmp_path}]")
    with pytest.raises(SandboxUnavailable, match=f"see {fresh.root}/vault"):
        fresh.open(*shown)
    assert not (fresh.root / "vault").exists()


def test_seeds_that_a_rule_would_run_out_of_are_refused(fresh):
    """With two seeds no candidate that needs a third could ever be kept, whatever it scored."""
    with pytest.raises(AskedError, match=r"training_seeds=\[0, 1\]: expected at least 3"):
        fresh.open("training_seeds=[0,1]")
    assert not (fresh.root / "runs").exists()


def test_a_study_in_use_is_not_opened_twice(opened, monkeypatch):
    monkeypatch.setattr("agent.workspace.LOCK_SECONDS", 0.05)
    own = "task=toy space=toy searcher=random sandbox=none budget=smoke budget.trials=2".split()
    with ExitStack() as stack:
        open_study(sweep(*own, groups=opened.groups), opened.root, stack)
        with pytest.raises(WorkspaceError, match="study blue is in use"):
            opened.open()
    opened.open()


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("task.direction=down", TaskError, "task: direction='down'; expected one of minimize, maximize"),
        ("+task.colour=blue", TaskError, "task: unknown key 'colour'"),
        ("task.folds=[]", TaskError, "folds"),
        ("task.judge=tests.fake_task.host:nobody", TaskError, "judge=tests.fake_task.host:nobody"),
        ("task.seal=nowhere:seal", TaskError, "seal=nowhere:seal"),
        ("space=unknown", SpaceError, "optimizer.colour"),
        ("space=inverted", SpaceError, "optimizer.lr"),
        ("acceptance.keep_above=2", ValueError, "keep_above"),
        ("study=../green", WorkspaceError, "study '../green': expected a short name"),
        ("study='green light'", WorkspaceError, "expected a short name"),
        ("study=green.lock", WorkspaceError, "expected a short name"),
        ("ledger.url=nothing", LedgerError, "'nothing' is no URL"),
    ],
)
def test_what_is_wrong_is_said_before_a_study_exists(fresh, override, error, message):
    before = fresh.git("for-each-ref")
    with pytest.raises(error, match=message.replace("(", r"\(").replace("..", r"\.\.")):
        fresh.open(override)
    assert fresh.studies() == []
    assert fresh.git("for-each-ref") == before
    assert not (fresh.root / "vault").exists()


def test_resuming_with_a_checkout_that_refuses_the_study_says_what_to_do(fresh, monkeypatch):
    own = "task=toy space=toy searcher=random sandbox=none budget=smoke acceptance=greedy task.folds=[0]".split()
    with ExitStack() as stack:
        loop = open_study(sweep(*own, groups=fresh.groups), fresh.root, stack)
        steps = loop.steps()
        next(steps)
        steps.close()
    began = fresh.git("rev-parse", "HEAD")
    fresh.git("commit", "--quiet", "--allow-empty", "-m", "Upgrade")
    fresh.open(*own, "budget.trials=6")  # an upgrade that changes nothing that matters

    def newer(config):
        raise ValueError("trainer.num_nodes is missing; give it a value")

    monkeypatch.setattr(host, "check", newer)
    said = f"begun at commit {began}, and the checkout, now at {fresh.git('rev-parse', 'HEAD')}, refuses"
    with pytest.raises(CheckoutChanged, match=f"{said}(.|\n)*num_nodes is missing(.|\n)*--detach {began}\\)"):
        fresh.open(*own, "budget.trials=6")
    ledger = Ledger.open(f"sqlite:///{fresh.root}/runs/ledger.db").study("blue")
    assert len(ledger.trials()) == 1
    changed = [event for event in ledger.events() if event["event"] == "versions changed"]
    assert changed[0]["before"]["checkout"] == began


def test_a_missing_sandbox_is_said_before_anything_is_written(fresh, monkeypatch):
    monkeypatch.setenv("PATH", os.fspath(fresh.groups))
    with pytest.raises(SandboxUnavailable) as refusal:
        fresh.open("sandbox=bubblewrap")
    assert refusal.value.cause
    assert refusal.value.fix
    assert not (fresh.root / "runs").exists()


def test_somebody_elses_branch_is_never_taken(fresh):
    fresh.git("branch", "lab/blue")
    for _ in range(2):  # a refusal must not make the next attempt succeed
        with pytest.raises(WorkspaceError, match=r"branch lab/blue exists, but the ledger .* no such study"):
            fresh.open()
    assert fresh.studies() == []


def test_a_study_killed_before_it_had_a_branch_is_opened_again(fresh):
    fresh.open()
    fresh.git("branch", "-D", "lab/blue")
    assert fresh.open().workspace.head()


@pytest.mark.parametrize("acceptance", ["greedy", "paired"])
@pytest.mark.parametrize("budget", ["smoke", "cpu", "five_minutes"])
def test_the_real_task_space_budgets_and_rules_fit_each_other(budget, acceptance):
    plain: Any = OmegaConf.to_container(sweep(f"budget={budget}", f"acceptance={acceptance}"), resolve=True)
    task = Task.from_mapping(plain["task"], ROOT)
    space = Space.from_mapping(plain["space"], task)
    assert not [key for key in space.distributions if task.lock_on(key)]
    assert task.metric == "mean_rank"
    assert from_config(plain["acceptance"], task.direction, task.scale).floor_seeds >= 1
    assert Budget(**plain["budget"]).trials >= 6


def test_a_run_sees_threads_and_no_network(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    seen = run_environment(3)
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
    assert seen["WANDB_MODE"] == "disabled"
    assert "secret" not in seen.values()
    assert int(run_environment(None)["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))


def test_an_installed_copy_of_the_package_is_refused(tmp_path: Path) -> None:
    """It would show a run what the task masks: here, with the data set's generator, every pair."""
    task = Task.load(HERE / "task.yaml", HERE)
    require_one_copy(task, [str(tmp_path)])
    (tmp_path / task.package.name).mkdir()
    with pytest.raises(TaskError, match="second copy of the task's package"):
        require_one_copy(task, [str(tmp_path)])
    (tmp_path / task.package.name).rmdir()
    (tmp_path / task.package.name).symlink_to(HERE / task.package.path / task.package.name)
    require_one_copy(task, [str(tmp_path)])


def test_a_study_that_compiles_shows_every_run_what_the_reference_compiled(fresh):
    """Set up once for all studies on a machine: told to the ledger, charged to no trial."""
    asked = ("+task.base={compile: true}", "sandbox=bubblewrap", "executor.workers=2", "executor.threads=1")
    for name in ("compiles", "compiles-too"):
        loop = fresh.open(f"study={name}", *asked)
        told = [event for event in loop.ledger.events() if event["event"] == "compiled"]
        assert len(told) == 1
        assert told[0]["seconds"] > 0
        folder = loop.experiment.runner.compiled
        assert [runner.compiled for runner in loop.runners] == [folder, folder]
        assert folder.is_relative_to(fresh.root / "vault")
        assert [path.name for path in folder.rglob("kernel")] == ["kernel"]
    assert len(list((fresh.root / "vault" / "compiled").glob("*/record.json"))) == 1
    assert loop.ledger.trials() == []
