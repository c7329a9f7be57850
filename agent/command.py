"""A command's main and the name of its config go in; it runs, and what is refused leaves as one line, no stack.

HYDRA_FULL_ERROR=1 brings the stack back, for those who look for a fault in the lab itself.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf

from agent.composition import composed_file
from agent.refused import explained, keys_of

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def launch(main: Callable[[DictConfig], None], name: str) -> None:
    """Runs `main` with the config configs/<name>.yaml and the command line's overrides.

    Exit status 2: words that are refused; 1: what the lab or the machine refuses; 130: Ctrl-C.
    """
    stacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a stack of its own and hides the cause
    run = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)
    if stacks:
        run(main)()
        return
    try:
        run(_without_stacks(main))()
    except HydraException as error:
        _end(explained(error, lambda: keys_of(OmegaConf.to_container(composed_file(CONFIGS, name, [])))), 2)
    except OSError as error:  # the folder that Hydra makes before it calls anybody
        _end(f"{type(error).__name__}: {error}", 1)
    except KeyboardInterrupt:
        _interrupted()


def _without_stacks(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """What `main` raises is caught before Hydra sees it, which would print a line of its own."""

    @functools.wraps(main)
    def quiet(config: DictConfig) -> None:
        if missing := sorted(OmegaConf.missing_keys(config)):
            _end("; ".join(f"{key}: has no value yet; give it one, {key}=…" for key in missing), 2)
        try:
            main(config)
        except InstantiationException as error:
            _end(str(error.__cause__ or error), 2)
        except (ValueError, RuntimeError, OSError) as error:
            _end(f"{type(error).__name__}: {error}", 1)
        except KeyboardInterrupt:
            _interrupted()

    return quiet


def _end(text: str, status: int) -> None:
    print(text, file=sys.stderr)
    sys.exit(status)


def _interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is still to be closed is closed
    _end("\ninterrupted; what was begun stands in the ledger, and the same command goes on with it", 130)
