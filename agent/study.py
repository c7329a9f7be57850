"""The settings of a sweep go in, a study ready to run comes out: sealed folds, workspace, ledger, searcher, loop."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import site
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from agent.acceptance import Acceptance, from_config
from agent.asked import AskedError, budget_of, seeds_of
from agent.checkout import require_accepted, version
from agent.compiled import compiled_for
from agent.composition import composed
from agent.executors.base import Executor
from agent.executors.local import thread_environment
from agent.experiment import Experiment
from agent.ledger import Ledger, Owner, StudyLedger, StudySpec
from agent.ledger.spec import CHECKOUT
from agent.loop import Loop
from agent.observers import Observer, Observers
from agent.records import Budget
from agent.researcher.settings import TRANSPORT
from agent.runner import Runner, Sealed
from agent.sandbox import Limits, Sandbox, SandboxUnavailable
from agent.searchers.base import Searcher
from agent.space import Space
from agent.task import Task, TaskError
from agent.workdesk import WorkDesk
from agent.workspace import Workspace, WorkspaceError

PACKAGES = ("torch", "lightning", "optuna", "cmaes", "anthropic", "hydra-core")


def open_study(config: DictConfig, root: Path, stack: ExitStack, observers: Sequence[Observer] = ()) -> Loop:
    """A new study, or the one of that name as it was left. `root`: the checkout that holds the task.

    What must be given up at the end is put on `stack`. Raises SandboxUnavailable before anything is written,
    and errors that say what to change: AskedError, TaskError, SpaceError, LedgerError, WorkspaceError,
    ConfigError, CompiledError; of the LLM searchers also SettingsError, ProgramError, LLMRefused.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    budget, (seed, seeds) = budget_of(plain["budget"]), seeds_of(plain["seed"], plain["training_seeds"])
    task = Task.from_mapping(plain["task"], root, where="task")
    for role in ("check", "seal", "judge"):
        task.function(role)  # not there: better known now than after the first training
    require_one_copy(task, site.getsitepackages())
    space = Space.from_mapping(plain["space"], task)
    sandbox: Sandbox = instantiate(config.sandbox.backend)
    sandbox.check()
    stack.callback(sandbox.close)
    runs, vault = root / plain["runs"], root / plain["vault"]
    require_hidden(sandbox, vault, runs)
    executor: Executor = instantiate(config.executor)
    acceptance = from_config(plain["acceptance"], task.direction, task.scale)
    require_seeds(seeds, acceptance)
    make = instantiate(config.searcher, _partial_=True, _convert_="all")
    wanted = inspect.signature(make).parameters
    llm = plain["llm"] if "llm" in wanted else {}
    if llm:
        # imports the SDK, which nobody else needs; a study that cannot ask anybody is not begun
        from agent.researcher.readiness import require_ready

        require_ready(llm, plain["searcher"]["program"])
    offered: dict[str, Any] = {"space": space, "seed": seed, "direction": task.direction, "llm": plain["llm"]}
    made: Searcher | None = None
    if "desk" not in wanted:
        # before the ledger knows the study, which keeps its settings: a wrong one would keep its name, too
        made = make(**{name: value for name, value in offered.items() if name in wanted})
    studies = open_ledger(config, root)
    known, has_branch = plain["study"] in studies.studies(), Workspace.exists(task, plain["study"])
    if has_branch and not known:
        # before the ledger knows the study, or the next attempt would take the branch for its own
        raise WorkspaceError(
            f"branch lab/{plain['study']} exists, but the ledger {config.ledger.url} knows no such study: "
            "take another name (study=…), give that study's ledger.url, or delete the branch"
        )
    alone = Runner(
        task=task,
        sandbox=sandbox,
        limits=lambda wall_seconds: Limits(wall_seconds=wall_seconds, **plain["sandbox"]["limits"]),
        budget=budget,
        sealed=seal(task, vault),
        environment=run_environment(None),
        notice=lambda text: ledger.log("notice", text=text),
    )
    runners = executor.runners(alone, stack)
    if task.preload:
        runners[0].sandbox.prepare(task.preload, runners[0].environment)
    spec = spec_of(plain, task, space, budget, sandbox, llm, runners)
    ledger = studies.study(plain["study"], create=spec)
    if not has_branch and ledger.trials():
        raise WorkspaceError(
            f"the ledger knows {plain['study']}, but there is no branch lab/{plain['study']} here, which holds its "
            f"recipe: fetch it from where it ran (git fetch MACHINE:REPOSITORY lab/{plain['study']}:"
            f"lab/{plain['study']}), or take another name (study=…)"
        )
    enter = Workspace.open if has_branch else Workspace.create
    workspace = stack.enter_context(enter(task, plain["study"], runs))
    first = partial(_first_commit, ledger, workspace)
    if compiled := compiled_for(runners[0], first, root / plain["vault"]):
        ledger.log("compiled", **compiled.facts)
        runners = [replace(runner, compiled=compiled.folder) for runner in runners]
    if (best := ledger.best()) is not None:
        require_accepted(ledger, workspace.task, root, [{}, best.overrides])
    stop = threading.Event()
    desk = WorkDesk(
        ledger,
        workspace,
        space,
        runners[0],
        runs / plain["study"],
        plain["task_description"],
        seeds[0],
        stop=stop,
    )
    if made is None:
        offered["desk"] = desk
        made = make(**{name: value for name, value in offered.items() if name in wanted})
    return Loop(
        ledger=ledger,
        searcher=made,
        space=space,
        experiment=Experiment(runners[0], acceptance, seeds, stop),
        workspace=workspace,
        folder=runs / plain["study"],
        owner=str(Owner.here()),
        observers=Observers(observers),
        stop=stop,
        runners=runners,
        desk=desk if "desk" in wanted else None,
    )


def require_seeds(seeds: Sequence[int], acceptance: Acceptance) -> None:
    """Raises AskedError where the rule may ask for more training seeds than there are."""
    if len(seeds) < acceptance.most_seeds:
        raise AskedError(
            f"training_seeds={list(seeds)}: expected at least {acceptance.most_seeds}, as many as the rule runs the "
            "reference on (acceptance.floor_seeds) or a trial with its re-runs (max_reruns + 1)"
        )


def _first_commit(ledger: StudyLedger, workspace: Workspace) -> str:
    """The code that the branch began with, before anything was kept."""
    reference = ledger.reference()
    return reference.commit if reference else workspace.head()


def require_one_copy(task: Task, folders: Sequence[str]) -> None:
    """Raises TaskError if the task's package is also installed: runs could read there what the task masks."""
    for folder in folders:
        copy = Path(folder) / task.package.name
        if copy.exists() and not copy.resolve().is_relative_to(task.root):
            raise TaskError(
                f"{copy} is a second copy of the task's package, visible to every run: "
                f"pip uninstall the package, or install it with --editable"
            )


def require_hidden(sandbox: Sandbox, vault: Path, runs: Path) -> None:
    """Raises SandboxUnavailable if every run could read there what it must not see: keys, other trials' logs."""
    for folder in sandbox.shown():
        for secret in (vault, runs):
            if secret.resolve().is_relative_to(folder.resolve()):
                raise SandboxUnavailable(
                    f"every run would see {secret}, which lies below {folder}, a folder that the sandbox shows whole",
                    "move the checkout (or set vault=… and runs=…) outside /usr, and keep the virtual environment "
                    "in a folder of its own (python -m venv .venv)",
                )


def open_ledger(config: DictConfig, root: Path) -> Ledger:
    """The ledger of all studies; a relative SQLite path is relative to the checkout."""
    url = str(config.ledger.url)
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        url = f"sqlite:///{root / url.removeprefix('sqlite:///')}"
    return Ledger.open(url)


def spec_of(
    plain: Mapping[str, Any],
    task: Task,
    space: Space,
    budget: Budget,
    sandbox: Sandbox,
    llm: Mapping[str, Any],
    runners: Sequence[Runner],
) -> StudySpec:
    """What makes this study comparable with another one. `llm` is empty for searchers that call no model."""
    return StudySpec(
        searcher=plain["searcher_name"],
        searcher_seed=plain["seed"],
        budget=budget,
        task=task.name,
        direction=task.direction,
        training_seeds=tuple(plain["training_seeds"]),
        acceptance=plain["acceptance"]["name"],
        sandbox=sandbox.name,
        versions={name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}
        | {CHECKOUT: version(task.root), "workers": str(len(runners))}
        | ({"llm server": llm["base_url"] or "Anthropic's"} if llm else {}),
        price_table=llm.get("prices", {}),
        details={key: plain[key] for key in ("searcher", "space", "acceptance")}
        | {"base": list(task.base), "folds": list(task.folds)}
        | {"llm": {key: value for key, value in llm.items() if key not in TRANSPORT}}
        | {"reference": dict(space.defaults)},
    )


def seal(task: Task, vault: Path) -> dict[int, Sealed]:
    """The sealed folds of the task's reference data, made on the host by the task's own function."""
    vault.mkdir(parents=True, exist_ok=True)
    made = task.function("seal")(composed(task), task.folds, vault)
    return {fold: Sealed(Path(folder).resolve(), Path(key).resolve()) for fold, folder, key in made}


def run_environment(threads: int | None) -> dict[str, str]:
    """All that a sandboxed run sees of the environment: threads, and no attempt to reach a network."""
    return {
        **thread_environment(threads or len(os.sched_getaffinity(0))),
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "PYTHONUNBUFFERED": "1",
    }


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
