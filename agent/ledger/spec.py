"""What a study is: the settings enter when it is created, and must be the same when it is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from agent.records import Budget

CHECKOUT = "checkout"  # in `versions`: the commit of the code that checks, seals and judges


@dataclass(frozen=True)
class StudySpec:
    """Everything that makes two studies comparable, or not.

    `details` holds further JSON: model names, a hash of the program, whatever must not change.
    `training_seeds` are in order of use: the first for every trial, the others for its re-runs.
    `versions` (packages, the checkout's commit, how many trials run side by side) may change between two sittings;
    all the rest may not.
    """

    searcher: str
    searcher_seed: int
    budget: Budget
    task: str
    direction: Literal["minimize", "maximize"] = "minimize"
    training_seeds: tuple[int, ...] = (0,)
    acceptance: str = ""
    sandbox: str = ""
    price_table: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def conflicts(self, other: StudySpec) -> dict[str, tuple[Any, Any]]:
        """Where two specs differ, versions apart: details.llm.model -> (mine, the other's)."""
        pairs = [
            (f.name, _plain(getattr(self, f.name)), _plain(getattr(other, f.name))) for f in fields(self)
        ]
        found: dict[str, tuple[Any, Any]] = {}
        for name, mine, others in pairs:
            if name != "versions":
                found |= dict(_differences(name, mine, others))
        return found


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Budget) else value


def _differences(name: str, mine: Any, others: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The innermost keys whose values differ; a key that one side lacks is None there."""
    if isinstance(mine, Mapping) and isinstance(others, Mapping):
        for key in sorted({*mine, *others}):
            yield from _differences(f"{name}.{key}", mine.get(key), others.get(key))
    elif mine != others:
        yield name, (mine, others)
