"""A model goes in and is compiled in place; compiled code comes from a folder of the caller's, and stays there."""

from __future__ import annotations

import atexit
import os
import shutil
import sysconfig
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from eclip.config import ConfigError
from eclip.data.batch import TOKEN_BUCKETS


def compile_model(model: nn.Module, cache: str | None, gpu: bool) -> None:
    """torch.compile for the encoders' transformer blocks, in place; on a CPU for the image encoder's alone.

    There, texts are packed into rows whose number changes from step to step: nine shapes in 300 steps of the
    default recipe, each of them compiled for seconds. Raises ConfigError.
    """
    require_compiler(gpu)
    if cache is not None:
        use_cache(Path(cache))
    compile_blocks(model if gpu else model.get_submodule("image"))


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """torch.compile for each transformer block of `model`, in place.

    Block by block: all blocks of an encoder are one piece of code, compiled once for each length of tokens, with
    gradients and without. torch's limit of 8 such variants would leave the later lengths uncompiled.
    """
    torch._dynamo.config.recompile_limit = 4 * len(TOKEN_BUCKETS)
    for block in transformer_blocks(model):
        block.compile(dynamic=False, backend=backend)


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The equal parts, of several layers each, of every list or sequence in `model` (timm's blocks are a sequence)."""
    stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    equal = [stack for stack in stacks if len({type(part) for part in stack}) == 1]
    return [part for stack in equal for part in stack if any(part.children())]


def use_cache(folder: Path) -> None:
    """What was compiled before is taken from `folder`, and what is compiled now is left there.

    A folder that this process may not write to is copied for it first: torch takes locks where it reads. The copy
    ends with the process. Raises ConfigError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"trainer.compile_cache={folder}: expected a folder, or a place for one: {error}"
        ) from error
    if not os.access(folder, os.W_OK):
        folder, kept = Path(tempfile.mkdtemp(prefix="compiled-")), folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for file in filter(Path.is_file, kept.rglob("*")):
            copy = folder / file.relative_to(kept)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder.absolute())


def require_compiler(gpu: bool) -> None:
    """Raises ConfigError where torch would find no compiler, or no Python headers, in the middle of the first step."""
    variable, usual = ("CC", "gcc") if gpu else ("CXX", "g++")
    name, header = os.environ.get(variable, usual), Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(name) is None:
        missing = f"there is no compiler {name} (apt-get install g++, or name another one in {variable})"
    elif not header.is_file():
        missing = f"there is no {header} (apt-get install python3-dev)"
    else:
        return
    raise ConfigError(f"trainer.compile=true: {missing}; trainer.compile=false trains without")


def time_without_compilation() -> float:
    """The wall clock, in seconds, standing still while torch compiles: the budget is for training."""
    from torch._dynamo.utils import calculate_time_spent

    return time.perf_counter() - calculate_time_spent()["total_wall_time"]
