"""A Hydra main goes in and is run; settings that are wrong come out as one line that says what is allowed.

Import it before torch: on a machine that others use too, it tells OpenMP's threads to sleep while they wait
for each other. There, threads that spin cost far more than they save (4 threads, load 13 on 4 cores: no step
in 8 s instead of 25); on a quiet machine they save a third of a step (docs/performance.md). In a process that has
torch already, being forked from one that imported it, OpenMP was told when that one started. And it tells the C
library to keep what a step frees: the next one takes it again, 2,000 pages of it, one fault each.
"""

from __future__ import annotations

import ctypes
import dataclasses
import difflib
import functools
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig

from eclip.config import ConfigError, Settings, check
from eclip.data.odvg import DataError

Result = TypeVar("Result")
KEYED = re.compile(r"[a-z_]+\.[a-z_.]+=")

if os.getloadavg()[0] > 1.25 * (os.cpu_count() or 1):
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's products wait by spinning, whatever OpenMP is told: ranks took 1.8 s there, and 0.1 s with one thread
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# glibc's malloc.h: option -> bytes
KEPT_MEMORY = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26), "M_MMAP_THRESHOLD": (-3, 2**25)}


def keep_memory() -> None:
    """Freed memory stays with the process, unless variables of the environment (MALLOC_…) say what should be. C
    libraries other than glibc have no such options, and are left as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        for option, size in KEPT_MEMORY.values():
            mallopt(option, size)


keep_memory()


def launch(main: Callable[[], object]) -> None:
    """Runs `main`. A ConfigError or Hydra's own refusal ends the process with status 2 and one message."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra would print a stack and hide the cause
    try:
        main()
    except ConfigError as error:
        sys.exit(_refuse(str(error)))
    except HydraException as error:
        sys.exit(_refuse(explain(error)))
    except Exception as error:
        raise error.with_traceback(_without_hydra(error.__traceback__)) from error.__cause__


def checked(config: DictConfig) -> Settings:
    """`eclip.config.check`; its refusal ends the process with status 2 and one line, which names the file that
    holds the key's default. Call inside a Hydra main."""
    try:
        return check(config)
    except ConfigError as error:
        # not as an exception: Hydra would print a line of its own before it
        raise SystemExit(_refuse(f"{error}{_where(str(error))}")) from None


def one_line_refusals(main: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """Below hydra.main: what was asked for and is not there, or cannot be used, ends the process with status 2 and
    one line: a ConfigError, a line of the annotations, a path or name that is told by its key (`run.resume=…: no
    such run folder`). Any other error is a fault, and keeps its stack."""

    @functools.wraps(main)
    def told(config: DictConfig) -> Result:
        try:
            return main(config)
        except (ConfigError, DataError) as error:
            raise SystemExit(_refuse(str(error))) from None
        except OSError as error:
            if not KEYED.match(str(error)):
                raise
            raise SystemExit(_refuse(str(error))) from None

    return told


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _where(message: str) -> str:
    """ " (configs/model/eclip_tiny.yaml)": the file that holds the key's default, when its group has one."""
    group = message.split(".", 1)[0]
    choice = HydraConfig.get().runtime.choices.get(group)
    path = Path("configs") / group / f"{choice}.yaml"
    # beside this source tree, wherever the command was given
    return f" ({path})" if (Path(__file__).resolve().parents[2] / path).is_file() else ""


def _without_hydra(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither Hydra's nor this module's."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/hydra/" not in file and file != __file__:
            return trace
        trace = trace.tb_next
    return None


def explain(error: HydraException) -> str:
    """Hydra's refusal in one or two lines; for an unknown key, the nearest known ones."""
    causes = [str(error), str(error.__cause__ or "")]
    unknown = re.search(r"Could not override '([^']+)'", causes[0])
    if not unknown:
        given = f"{error.override}: " if isinstance(error, OverrideParseException) else ""
        shown = given + causes[0].split("Config search path")[0].split("See https://hydra.cc")[0]
        return "\n".join(line for line in shown.splitlines() if line.strip())
    key = unknown.group(1)
    known = list(keys_of(Settings))
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    section = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
    return f"{key}: unknown key; " + (
        f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(section or known)}"
    )


def keys_of(section: type, prefix: str = "") -> Iterator[str]:
    """Every key of the settings, dotted."""
    for name, hint in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(hint):
            yield from keys_of(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield prefix + name
