"""Import Lightning without what it drags in: import this module before `lightning` or `torchmetrics`.

torchmetrics (which Lightning imports) imports every optional package that it finds installed: scipy.signal,
matplotlib (whose font cache is built anew in each sandboxed run), transformers, torchvision. Nothing here uses
them through it, so they are hidden from it while it is imported. Nor is there garbage in what an import makes:
collections, which would walk all of it again and again, wait. Measured figures: docs/performance.md.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from typing import Any

from lightning_utilities.core import imports as probes

HIDDEN = frozenset({"matplotlib", "scipy", "torchvision", "transformers"})


@contextmanager
def hidden_packages() -> Iterator[None]:
    """Inside, Lightning's and torchmetrics' probes for optional packages do not find those of HIDDEN."""
    version, find_spec = probes._version, probes.find_spec
    probes._version = _hiding(version, PackageNotFoundError)
    probes.find_spec = _hiding(find_spec, ModuleNotFoundError)
    probes.package_available.cache_clear()
    try:
        yield
    finally:
        probes._version, probes.find_spec = version, find_spec
        probes.package_available.cache_clear()


def _hiding(probe: Callable[..., Any], error: type[Exception]) -> Callable[..., Any]:
    def probed(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in HIDDEN:
            raise error(name)
        return probe(name, *rest)

    return probed


@contextmanager
def without_collections() -> Iterator[None]:
    """Inside, Python's garbage collector rests."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


if "torchmetrics" not in sys.modules:
    with hidden_packages(), without_collections():
        import lightning.pytorch  # noqa: F401
        import torchmetrics  # noqa: F401
else:  # imported by whoever forked this process, with the same packages hidden: its probes may look again
    probes.package_available.cache_clear()
