"""A task and command-line overrides go in, the composed config comes out, as Hydra itself composes it.

Works inside a program that is itself a Hydra application and from several threads: Hydra's global state is
borrowed under a lock and given back.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.refused import explained, keys_of
from agent.task import Task

# what the runner will fill in; composing needs the keys, not the values
PLACEHOLDERS = {"run_dir": "/run", "sealed": "/sealed", "seed": 0, "seconds": 1.0}
_lock = threading.RLock()
_initialised: dict[Path, Any] = {}
_references: dict[tuple[Any, ...], DictConfig] = {}


class CompositionError(ValueError):
    """Hydra could not compose the config; the message says in one line what was refused."""


def composed(task: Task, overrides: Sequence[str] = ()) -> DictConfig:
    """What a run of `task` with these overrides after the base ones would see, its paths but placeholders.

    Raises CompositionError.
    """
    run = task.run_arguments(**PLACEHOLDERS, fold=task.folds[0])
    return composed_file(task.config_dir, task.config_name, [*task.base, *overrides, *run])


def composed_file(config_dir: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """The primary config `name` of a folder with these overrides. Raises CompositionError."""
    with _lock:
        before = Singleton._instances.get(GlobalHydra)
        try:
            GlobalHydra.set_instance(_hydra(config_dir))
            return compose(name, list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            known = lambda: keys_of(OmegaConf.to_container(compose(name)))  # noqa: E731
            raise CompositionError(explained(error, known)) from error
        finally:
            if before is None:
                Singleton._instances.pop(GlobalHydra, None)
            else:
                Singleton._instances[GlobalHydra] = before


def laid_over(task: Task, arguments: Sequence[str]) -> DictConfig:
    """`composed(task, arguments)` for arguments that set single values: laid over the reference composed once.

    After it has read the files, Hydra does the same with each of them; a fifth of the time is left. What names
    no section may choose a config group, and is composed by Hydra from the start. Raises CompositionError.
    """
    if not all("." in argument.partition("=")[0] for argument in arguments):
        return composed(task, arguments)
    config = copy.deepcopy(_reference(task))
    try:
        for override in OverridesParser.create().parse_overrides(list(arguments)):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise CompositionError(str(error.__cause__ or error).strip()) from error
    return config


def reference_leaves(task: Task) -> dict[str, Any]:
    """`leaves` of the reference, composed once: no proposal can change a config file."""
    return leaves(_reference(task))


def _reference(task: Task) -> DictConfig:
    key = (task.config_dir, task.config_name, task.base, task.arguments)
    if key not in _references:
        _references[key] = composed(task)
    return _references[key]


def _hydra(config_dir: Path) -> GlobalHydra:
    """Hydra's state for one folder of configs; 0.1 s the first time."""
    if config_dir not in _initialised:
        if not config_dir.is_dir():
            raise CompositionError(f"no folder of configs at {config_dir}")
        Singleton._instances.pop(GlobalHydra, None)
        with initialize_config_dir(str(config_dir), job_name="lab", version_base="1.3"):
            _initialised[config_dir] = Singleton._instances[GlobalHydra]
    return _initialised[config_dir]


def leaves(config: DictConfig) -> dict[str, Any]:
    """Every leaf as `section.key: value`, resolved; lists are leaves. Raises CompositionError."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise CompositionError(str(error).splitlines()[0]) from error
    return dict(_walk(plain, ""))


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _walk(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def config_hash(task: Task, flat: Mapping[str, Any]) -> str:
    """Identity of a composed config: what the runner sets is left out, 64 and 64.0 are the same."""
    mine = {
        key: _canonical(value)
        for key, value in flat.items()
        if not any(key == run or key.startswith(run + ".") for run in task.run_keys)
    }
    text = json.dumps(mine, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
